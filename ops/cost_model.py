"""What a month of a load costs: how much of what AWS charges for, line by line, and dollars.

Figures of requests are those of `ops.units`, which tests measure. How long functions run on AWS was never measured; so
these seconds are assumptions, stated here, and can be given. Free tiers are not subtracted. Nothing is rounded until it
is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from ops import units
from ops.cost_load import DAYS, DEVICE, FUNCTION, SERVICE, Load
from ops.prices import Prices
from ops.units import Units
from tidegate.domain.activity import ACTIVE_S
from tidegate.domain.partitions import PARTITIONS

_KB, _GB = 1024, 1024**3
#: Seconds that a function runs, and for each viewer of a value: not measured on AWS. They rest on the CPU that the page
#: on performance has, twice as much for a slower core, and five milliseconds for each call of a store.
ASSUMED_S: Mapping[str, float] = {
    "connect": 0.025,
    "disconnect": 0.030,
    "subscribe": 0.060,
    "subscribe_each": 0.010,
    "refresh": 0.040,
    "api": 0.040,
    "catch_up": 0.020,
    "bridge": 0.030,
    "bridge_topic": 0.010,
    "viewer": 0.00006,
    "schedule": 0.050,
    "task": 0.100,
}
#: Bytes of a frame around its value; a test compares them with a real one.
FRAME_BYTES = 170
#: Bytes of logs for each invocation, START, END and REPORT included, and for each message of a client. Assumed.
LOG_BYTES, ACCESS_LOG_BYTES = 1_000, 300
#: What a page is: requests of a first visit, and bytes. Later visits find most of it kept. Assumed.
PAGE_REQUESTS, PAGE_BYTES = 12, 400_000
#: How often Lambda asks a queue for messages while there are none: five askers, 20 seconds each. AWS's documentation
#: ("Configuring scaling behavior for SQS event source mappings") has five at low traffic, and fewer only for queues
#: without a maximum concurrency; ours have one. That each asks for 20 seconds is from memory.
POLLS_A_MINUTE = 15

VIEWERS, VALUES, RELAY, REST = "viewers", "values", "relay", "at rest"
PARTS = (VIEWERS, VALUES, RELAY, REST)


class Line(NamedTuple):
    """A part of the bill.

    Attributes:
        part: one of `PARTS`.
        price: the name of a price.
        quantity: how many in the month.
        why: what they are, in a few words.
    """

    part: str
    price: str
    quantity: float
    why: str


class Estimate(NamedTuple):
    """A month's bill. `charges`: price -> dollars, over all lines, since tiers are for all together."""

    load: Load
    lines: tuple[Line, ...]
    charges: Mapping[str, float]
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """Dollars a month."""
        return sum(self.charges.values())

    def quantity(self, price: str) -> float:
        return sum(line.quantity for line in self.lines if line.price == price)


def estimate(load: Load, prices: Prices, assumed: Mapping[str, float] = ASSUMED_S) -> Estimate:
    """The bill of a month."""
    lines = tuple(line for line in _lines(load, assumed) if line.quantity > 0)
    quantities: dict[str, float] = {}
    for line in lines:
        quantities[line.price] = quantities.get(line.price, 0.0) + line.quantity
    charges = {name: prices[name].of(quantity) for name, quantity in quantities.items()}
    parts = dict.fromkeys(PARTS, 0.0)
    for line in lines:  # a tier is shared by all lines of a price
        parts[line.part] += charges[line.price] * line.quantity / quantities[line.price]
    return Estimate(load, lines, charges, parts)


def _lines(load: Load, assumed: Mapping[str, float]) -> Iterator[Line]:
    yield from _viewers(load, assumed)
    yield from _values(load, assumed)
    if load.protocol != DEVICE or load.relay == SERVICE:
        yield from _relay(load)
    yield from _rest(load, assumed)


def _dynamodb(part: str, asked: Units, why: str) -> Iterator[Line]:
    yield Line(part, "dynamodb_read", asked.reads, why)
    yield Line(part, "dynamodb_write", asked.writes + asked.indexes, why)


def _function(part: str, name: str, runs: float, seconds: float, why: str) -> Iterator[Line]:
    """Runs of a handler, and their logs."""
    gb = units.MEMORY_MB.get(name, units.USUAL_MEMORY_MB) / 1024
    yield Line(part, "lambda_request", runs, why)
    yield Line(part, "lambda_gb_s", runs * seconds * gb, why)
    yield Line(part, "log_gb", runs * LOG_BYTES / _GB, f"logs of {why}")


def _queue(part: str, messages: float, why: str, *, together: float = units.SQS_AT_ONCE) -> Iterator[Line]:
    """Messages of a queue: each is sent, and received and deleted with others."""
    yield Line(part, "sqs_request", messages * (units.SQS_SENT + units.SQS_TAKEN / together), why)


# --- viewers ------------------------------------------------------------------------------------------------------


def _viewers(load: Load, assumed: Mapping[str, float]) -> Iterator[Line]:
    part, connections, each = VIEWERS, load.connections, load.datasources
    visits = load.viewers * load.visits * DAYS
    tokens = 1 if load.together else each
    mints = (connections + load.refreshes) * tokens
    says = (connections + load.refreshes) * tokens
    answers = connections * 2 * each + load.refreshes * each  # ack and status; ack
    if load.batches:
        answers = says
    yield Line(part, "websocket_minute", load.viewers * load.watched_s / 60, "open connections")
    yield Line(part, "websocket_message", says + answers + connections * each, "subscribes, answers, first values")
    yield from _dynamodb(part, viewer_units(load), "opening, refreshing and closing")
    yield from _dynamodb(part, Units(writes=says / units.MESSAGES_A_WRITE), "budgets of messages")
    yield Line(part, "http_request", mints + visits, "session tokens and documents")
    yield Line(part, "cloudfront_request", mints + connections + visits * PAGE_REQUESTS, "requests at the edge")
    yield Line(part, "cloudfront_function", mints + connections + visits * PAGE_REQUESTS, "requests at the edge")
    yield Line(part, "cloudfront_gb", visits * PAGE_BYTES / _GB, "pages")
    yield from _function(part, "gateway_connect.connect", connections, assumed["connect"], "handshakes")
    yield from _function(part, "gateway_connect.disconnect", connections, assumed["disconnect"], "closed connections")
    first = assumed["subscribe"] + assumed["subscribe_each"] * each / tokens
    yield from _function(part, "gateway_connect.messages", connections * tokens, first, "subscribes")
    again = assumed["refresh"]
    yield from _function(part, "gateway_connect.messages", load.refreshes * tokens, again, "refreshes")
    yield from _function(part, "api.main", mints + visits, assumed["api"], "calls of the API")
    yield from _function(part, "mqtt_bridge.catch_up", connections * each, assumed["catch_up"], "catch-ups")
    yield from _queue(part, connections * each, "catch-ups")
    yield Line(part, "log_gb", says * ACCESS_LOG_BYTES / _GB, "access logs")
    revalidated = load.watched_s / 300 * load.viewers * each / units.ROWS_A_BLOCK / 2
    yield from _dynamodb(part, Units(reads=revalidated), "full revalidation")


def viewer_units(load: Load) -> Units:
    """Request units of all viewers in the month, without those of values."""
    each, connections = load.datasources, load.connections
    visits = load.viewers * load.visits * DAYS
    if load.together:
        subscribe, refresh, mint = units.SUBSCRIBE.of(each), units.REFRESH.of(each), units.MINT_SESSION.of(each)
    else:
        subscribe, refresh = units.SUBSCRIBE.of(1).times(each), units.REFRESH.of(1).times(each)
        mint = units.MINT_DATASOURCE.of(1).times(each)
    opened = units.CONNECT.of(each).plus(subscribe).plus(mint).plus(units.CATCH_UP.of(each))
    whole = opened.plus(units.DISCONNECT.of(each)).times(connections)
    return whole.plus(refresh.plus(mint).times(load.refreshes)).plus(units.GET_DASHBOARD.of(each).times(visits))


# --- values -------------------------------------------------------------------------------------------------------


def _values(load: Load, assumed: Mapping[str, float]) -> Iterator[Line]:
    frame = load.value_bytes + FRAME_BYTES
    carried = max(load.messages, load.deliveries * frame / (32 * _KB))
    pieces = math.ceil(frame / (32 * _KB)) if carried == load.deliveries else 1
    yield Line(VALUES, "websocket_message", carried * pieces, "values to viewers")
    yield Line(VALUES, "cloudfront_gb", load.deliveries * frame / _GB, "values to viewers")
    yield from _dynamodb(VALUES, units.ACCESS_A_SECOND.times(load.dashboards * _sending_s(load)), "rights, each second")
    audience = Units(reads=max(1.0, load.viewers_of_each / units.ROWS_A_BLOCK) / 2 / 0.8)
    yield from _dynamodb(VALUES, audience.times(load.sources * _sending_s(load)), "audiences, each 0.8 s")
    if load.protocol == DEVICE:
        yield from _devices(load, assumed)
    else:
        yield from _dynamodb(VALUES, relay_units(load), "values of upstreams")


def _sending_s(load: Load) -> float:
    """Seconds of the month for which what is read once a second is read, for one stream."""
    return load.watched_s * min(1.0, load.shown)


def _kb(load: Load) -> int:
    return max(1, math.ceil(load.value_bytes / _KB))


def relay_units(load: Load) -> Units:
    """Request units of an upstream's values, all sources of a month. What gives way is not stored."""
    values = load.sources * load.shown * load.watched_s
    asked = units.RELAY_VALUE.times(values * _kb(load))
    asks = min(values, PARTITIONS * units.QUOTA_ASKS_A_SECOND * load.watched_s)
    asked = asked.plus(units.QUOTA_ASK.times(asks))
    if load.history:
        kept = load.sources * load.watched_s / units.RELAY_HISTORY_S * min(1.0, load.shown * units.RELAY_HISTORY_S)
        asked = asked.plus(Units(writes=kept))
    return asked


def _devices(load: Load, assumed: Mapping[str, float]) -> Iterator[Line]:
    values = load.sources * load.updates * load.published_s
    messages = values * max(1, math.ceil(load.value_bytes / (5 * _KB)))
    yield Line(VALUES, "iot_message", messages, "values of devices")
    yield Line(VALUES, "iot_rule", messages, "values of devices")
    yield Line(VALUES, "iot_action", messages, "values of devices")
    yield Line(VALUES, "iot_minute", (load.devices or load.dashboards) * load.published_s / 60, "connected devices")
    yield from _dynamodb(VALUES, device_units(load, assumed), "values of devices")
    if load.batched:
        batches, each, topics = load.batch
        runs = batches * load.published_s
        seconds = assumed["bridge"] + topics * assumed["bridge_topic"]
        seconds += assumed["viewer"] * load.messages / max(1.0, runs)
        yield from _function(VALUES, "mqtt_bridge.bridge", runs, seconds, "batches of the bridge")
        yield from _queue(VALUES, values, "values of devices, in batches", together=min(each, units.SQS_AT_ONCE))
        return
    seconds = assumed["bridge"] + assumed["viewer"] * load.deliveries / max(1.0, values)
    yield from _function(VALUES, "mqtt_bridge.bridge", values, seconds, "calls of the bridge")
    if load.per_second and load.updates > load.per_second:  # one call waits for half of the interval, on average
        gb = units.MEMORY_MB["mqtt_bridge.bridge"] / 1024
        yield Line(VALUES, "lambda_gb_s", load.sources * load.published_s * 0.5 * gb, "waiting for the interval")


def device_units(load: Load, assumed: Mapping[str, float] = ASSUMED_S) -> Units:
    """Request units of devices' values, all sources of a month."""
    values = load.sources * load.updates * load.published_s
    kb = _kb(load)
    if load.batched:
        batches, _, topics = load.batch
        runs = batches * load.published_s
        asked = units.BATCH.times(runs).plus(units.BATCH_TOPIC.times(runs * topics * kb))
        written = runs * topics
    else:
        runs = written = values
        asked = units.DEVICE_VALUE.times(values)._replace(writes=units.DEVICE_VALUE.writes * values * kb)
        early = max(0.0, load.updates - load.per_second) if load.per_second else 0.0
        waits = min(early, load.per_second)
        asked = asked.plus(units.DEVICE_EARLY.times(load.sources * load.published_s * early * kb))
        asked = asked.plus(units.DEVICE_WAITS.times(load.sources * load.published_s * waits * kb))
    sent = runs * (load.watched_s / load.published_s if load.published_s else 0.0)
    # So many processes of the bridge are at work at a time, and each asks so often.
    processes = max(1.0, runs / max(1.0, load.published_s) * assumed["bridge"])
    asked = asked.plus(units.QUOTA_ASK.times(min(sent, processes * units.QUOTA_ASKS_A_SECOND * load.watched_s)))
    return asked.plus(units.DEVICE_HISTORY.times(written)) if load.history else asked


# --- the relay ----------------------------------------------------------------------------------------------------


def _relay(load: Load) -> Iterator[Line]:
    """What runs and holds the upstreams. A service runs always, a function while somebody watches."""
    month = DAYS * 24 * 3600.0
    held_s = month if load.relay == SERVICE else load.watched_s
    workers = min(float(PARTITIONS), load.sources)
    held = units.RELAY_VERSION_A_SECOND.plus(Units(writes=1 / units.RELAY_LEASE_S)).times(workers * held_s)
    yield from _dynamodb(RELAY, held, "leases and versions")
    listing = Units(reads=load.sources / units.ROWS_A_BLOCK / 15)
    yield from _dynamodb(RELAY, listing.times(load.watched_s), "streams, each 15 s")
    if load.relay == SERVICE:
        cpu, memory_mb = load.task
        yield Line(RELAY, "fargate_vcpu_hour", cpu / 1024 * month / 3600, "the relay's task")
        yield Line(RELAY, "fargate_gb_hour", memory_mb / 1024 * month / 3600, "the relay's task")
        yield Line(RELAY, "ipv4_hour", month / 3600, "its public address")
        yield Line(RELAY, "ecr_gb", 0.2, "its image")
        return
    alone_s = units.RELAY_FUNCTION_S - units.RELAY_HANDOVER_S
    runs = workers * load.watched_s / alone_s
    yield from _function(RELAY, "relay.worker", runs, units.RELAY_FUNCTION_S, "workers of the relay")


def service_from(load: Load, prices: Prices) -> float:
    """From how many watched hours a day the relay is cheaper as a service; above 24 never."""
    bills = [_relay_dollars(load, prices, hours) for hours in (8.0, 16.0)]
    (lambda_8, service_8), (lambda_16, service_16) = bills
    each, base = (lambda_16 - lambda_8) / 8, service_8 - (service_16 - service_8)
    grows = (service_16 - service_8) / 8
    return base / (each - grows) if each > grows else math.inf


def _relay_dollars(load: Load, prices: Prices, hours: float) -> tuple[float, float]:
    """The relay's part as a function and as a service."""
    as_function = estimate(replace(load, hours=hours, relay=FUNCTION), prices).parts[RELAY]
    return as_function, estimate(replace(load, hours=hours, relay=SERVICE), prices).parts[RELAY]


# --- what is there while nobody watches -----------------------------------------------------------------------------


def _rest(load: Load, assumed: Mapping[str, float]) -> Iterator[Line]:
    """A stage that nobody uses, and what is the same however many use it."""
    yield from _at_rest(load, assumed)
    kept = load.log_days / 30
    others = (*_viewers(load, assumed), *_values(load, assumed), *_at_rest(load, assumed))
    taken = sum(line.quantity for line in others if line.price == "log_gb")
    yield Line(REST, "log_storage", taken * kept, "logs that are kept")


def _at_rest(load: Load, assumed: Mapping[str, float]) -> Iterator[Line]:
    """The same without logs that are kept."""
    minutes = DAYS * 24 * 60.0
    for name, count in units.STANDING.items():
        yield Line(REST, name, count, "the stage itself")
    yield Line(REST, "sqs_request", units.POLLED_QUEUES * POLLS_A_MINUTE * minutes, "asking queues")
    yield Line(REST, "schedule", minutes, "the schedule")
    yield from _function(REST, "revalidate.schedule", minutes, assumed["schedule"], "runs of the schedule")
    yield from _queue(REST, minutes, "asking for changes of profiles", together=1)
    yield from _function(REST, "revalidate.profiles", minutes, assumed["schedule"], "looks for changes of profiles")
    yield from _dynamodb(REST, units.FOLLOW.times(minutes), "looks for changes of profiles")
    # The rest is done while somebody is connected, and for a while longer.
    active = min(minutes, (load.watched_s + DAYS * ACTIVE_S) / 60) if load.watched_s else 0.0
    idle_days = (minutes - active) / (24 * 60)
    yield from _dynamodb(REST, units.IDLE_RUN.times(minutes - active), "runs of the schedule")
    yield from _dynamodb(REST, units.ACTIVE_RUN.times(active), "runs of the schedule")
    yield Line(REST, "metric", units.IDLE_METRICS * units.IDLE_HOURS_A_DAY / 24 * idle_days / DAYS, "metrics at rest")
    tasks = units.TASKS_A_MINUTE * active + units.IDLE_TASKS_A_DAY * idle_days
    yield from _function(REST, "revalidate.worker", tasks, assumed["task"], "tasks of the schedule")
    yield from _queue(REST, tasks, "tasks of the schedule", together=1)
    yield from _dynamodb(REST, Units(reads=units.TASK_READS).times(tasks), "tasks of the schedule")
    if load.relay != SERVICE:
        starts = PARTITIONS * active
        yield from _function(REST, "relay.worker", starts, assumed["task"], "starts of the relay")
    yield Line(REST, "metric", load.metrics * load.hours / 24, "metrics of our own, in the hours with viewers")
