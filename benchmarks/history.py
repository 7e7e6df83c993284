"""What a history costs: keeping it, in the bridge and in the relay, reading it, and a subscribe that recovers.

The functions run in this process, over the emulator's tables. CPU is the process's own, user and system, without what
the emulator takes. Where there are several cases they take turns, so that other work on the machine moves all of them.
Calls and units are of further values, reads and subscribes, because counting takes time too. They are exact; units are
computed from requests and answers, without what indexes add: see `benchmarks.meter`. What is asked of the history
table is counted once more by itself: it is what a history adds.

Send quota and conflation are switched off: to wait for them is not what a value costs.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, cycle
from typing import Any

from benchmarks.figures import Cell, Figure, Table
from benchmarks.handlers import Handlers, deployed, unheard
from benchmarks.meter import Asked, metered
from benchmarks.platform import platform
from benchmarks.progress import step
from benchmarks.tables import Tables, running_emulator
from functions.mqtt_bridge.wiring import bridge_services, catch_up_services
from local_stack.config import Config, StackError
from local_stack.deployment import client
from local_stack.seed import mqtt
from tidegate.adapters.aws.catch_up_queue import read_catch_up
from tidegate.domain.history import ASKED_S, History, Point
from tidegate.domain.subscriptions import LastValue, Stream, SubscriptionKey
from tidegate.ports.history import Group, Series
from tidegate.tables import HISTORY
from tidegate.usecases.delivery.bridge import Bridge, DeviceMessage
from tidegate.usecases.delivery.keep_history import WRITE_S, KeepInBatches

_ALLOWED = "demo/#"
_HASH = "hash".ljust(64, "-")
#: Length of all buckets, milliseconds, and the number of most values: nine digits.
_EVERY_MS = 1000
_NUMBER = 1234.56789
#: As long as the ids of IoT Core.
_MESSAGE_ID = "5bd64fc7-ad90-4c84-8e24-9f2a6fbb91d1"
#: Series of the relay: as many as go into one call. Values of each in a second.
_SERIES, _A_SECOND = 25, 10
#: Processes of the bridge that take turns in one of the cases.
_PROCESSES = 4
#: Points reach so far into the future, seconds, so that none of them expires while they are read.
_AHEAD_S = 60


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        values: of a device, for each case.
        rounds: in which the relay keeps the values of five seconds.
        points: that one read gives, one number after another.
        reads: of each number of points.
        missed: values that came while a viewer was away.
        subscribes: for each case.
    """

    values: int
    rounds: int
    points: Sequence[int]
    reads: int
    missed: int
    subscribes: int


FULL = Size(values=600, rounds=40, points=(100, 2_000), reads=20, missed=60, subscribes=40)
SMALL = Size(values=20, rounds=2, points=(10, 40), reads=2, missed=5, subscribes=2)


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of one piece of work.

    Attributes:
        cpu_s: CPU seconds of this process.
        asked: of all tables.
        of_history: of these, of the history table.
    """

    cpu_s: float
    asked: Asked
    of_history: Asked

    def cells(self, per: int = 1) -> tuple[Cell, ...]:
        """Calls, read and write units, those of the history table after them."""
        figures = (*self.asked.of_dynamodb, *self.of_history.of_dynamodb)
        return tuple(Figure(figure / per, ",.2f" if per > 1 else ",g") for figure in figures)


_COUNTED = ("calls", "read units", "write units", "history: calls", "history: reads", "history: writes")


def run(config: Config, size: Size) -> list[Table]:
    """What a history costs: keeping it, reading it, and a subscribe that recovers."""
    with running_emulator(config), platform() as url:
        where = deployed(config, url, "history")
        where.env |= {"REALTIME_MAX_SENDS_PER_SECOND": "0", "REALTIME_MAX_UPDATES_PER_SECOND": "0"}
        handlers = Handlers(where.env)
        broker = handlers.broker()
        return [
            _of_devices(where, size),
            _of_relay(where, size),
            _reads(where, handlers, broker, size),
            *_subscribes(where, handlers, broker, client(config, "sqs"), size),
        ]


def _cpu_s(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def _counted(where: Tables, work: Callable[[], object]) -> tuple[Asked, Asked]:
    """Of all tables, and of the history table."""
    with metered() as meter, metered(where.env[HISTORY.variable]) as of_history:
        work()
        return meter.taken(), of_history.taken()


# --- keeping --------------------------------------------------------------------------------------------------------


def _of_devices(where: Tables, size: Size) -> Table:
    """A value of a device to one viewer, handled by the bridge."""
    off, on, shared = (_device(where, name, kept) for name, kept in (("off", False), ("on", True), ("shared", True)))
    cases = {
        "without a history": partial(_publish, [_bridge(where)], off, _numbers(1)),
        "with one": partial(_publish, [_bridge(where)], on, _numbers(2)),
        f"with one, {_PROCESSES} processes take turns": partial(
            _publish, [_bridge(where) for _ in range(_PROCESSES)], shared, _numbers(3)
        ),
    }
    for publish in cases.values():
        publish(2 * _PROCESSES)  # what a process makes once is not what a value costs
    cpu: dict[str, float] = dict.fromkeys(cases, 0.0)
    block = max(1, size.values // 10)
    with step("values of devices", len(cases) * size.values) as progress:
        for _ in range(0, size.values, block):
            for name, publish in cases.items():
                cpu[name] += _cpu_s(partial(publish, block))
                progress.advance(block)
    values = -(-size.values // block) * block
    rows: list[tuple[Cell, ...]] = []
    for name, publish in cases.items():
        cost = _Cost(cpu[name] / values, *_counted(where, partial(publish, block)))
        ratio = Figure(cpu[name] / cpu["without a history"], ".2f")
        rows.append((name, Figure(cost.cpu_s * 1e6, ",.0f"), ratio, *cost.cells(block)))
    notes = ("access and audience are read once a second, however many values there are: these are the broken figures",)
    return Table(("bridge: a value to one viewer", "CPU us", "ratio", *_COUNTED), rows, notes)


def _device(where: Tables, name: str, kept: bool) -> str:
    """The topic of a new stream with one viewer."""
    now, topic = int(time.time()), f"demo/value/{name}"
    history = History(600, _EVERY_MS, now + ASKED_S, now) if kept else None
    stream = Stream(f"stream-{name}".ljust(64, "-"), "mqtt", "json", _ALLOWED, topic, now, history=history)
    where.shown([name])
    where.viewer(SubscriptionKey(name, f"viewer-{name}", "s"), _HASH, stream.stream_key)
    where.container.streams.touch(stream)
    return topic


def _bridge(where: Tables) -> Bridge:
    services = bridge_services(where.env)
    unheard(services.observer)
    return services.bridge


def _numbers(seed: int) -> Iterator[str]:
    """Of a sensor: each a little above or below the one before."""
    chance, number = random.Random(seed), _NUMBER
    while True:
        number += chance.uniform(-1, 1)
        yield f"{number:.5f}"


_MESSAGES = count()


def _publish(bridges: Sequence[Bridge], topic: str, numbers: Iterator[str], values: int) -> None:
    for bridge, _ in zip(cycle(bridges), range(values), strict=False):
        at_ms, number = int(time.time() * 1000), next(_MESSAGES)
        bridge(DeviceMessage(_ALLOWED, topic, next(numbers).encode(), at_ms, f"{number:08}{_MESSAGE_ID[8:]}"))


def _of_relay(where: Tables, size: Size) -> Table:
    """What the relay does with the values of some seconds, beside sending them."""
    values = int(WRITE_S * _A_SECOND)
    cases = {"without a history": False, "with one": True}
    cpu: dict[str, float] = dict.fromkeys(cases, 0.0)
    start_ms = int(time.time()) * 1000
    with step("values of the relay", size.rounds) as progress:
        for _ in range(size.rounds):
            start_ms += int(WRITE_S * 1000)
            for name, kept in cases.items():
                cpu[name] += _cpu_s(partial(_keep, where, kept, start_ms, values))
            progress.advance()
    rows: list[tuple[Cell, ...]] = []
    for name, kept in cases.items():
        counted = _counted(where, partial(_keep, where, kept, start_ms, values))
        cost = _Cost(cpu[name] / size.rounds / _SERIES, *counted)
        rows.append(
            (name, Figure(cost.cpu_s * 1e6, ",.0f"), Figure(cost.cpu_s / values * 1e6, ",.2f"), *cost.cells(_SERIES))
        )
    first = f"relay: {values} values of a series, {WRITE_S:.0f} s"
    note = f"keeping alone, without receiving and sending; {_SERIES} series in a call"
    return Table((first, "CPU us", "CPU us a value", *_COUNTED), rows, (note,))


def _keep(where: Tables, kept: bool, start_ms: int, values: int) -> None:
    """Keep values of all series as a worker does, and write them as it does at its end."""
    container = where.container
    keep = KeepInBatches(lambda: container.history, container.clock, container.observer)
    history = History(600, _EVERY_MS, int(time.time()) + ASKED_S) if kept else None
    streams = [
        Stream(f"relayed-{number}".ljust(64, "-"), "sse", "json", None, None, history=history)
        for number in range(_SERIES)
    ]
    for number in range(values):
        at_ms = start_ms + number * 1000 // _A_SECOND
        for stream in streams:
            keep(stream, LastValue(f"{_NUMBER + number}", at_ms, _MESSAGE_ID))
    keep.close()


# --- reading --------------------------------------------------------------------------------------------------------


def _reads(where: Tables, handlers: Handlers, broker: str, size: Size) -> Table:
    """A read of all points by a viewer, through the API."""
    rows: list[tuple[Cell, ...]] = []
    for points in size.points:
        for kind, fill in (("the relay", _fill_as_relay), ("a device", _fill_as_device)):
            name = f"{points:,} points of {kind}"
            source = mqtt("h", broker, f"demo/read/{points}/{kind[-1]}")
            source["settings"]["history"] = {"seconds": points, "everyMs": _EVERY_MS}
            board = handlers.board(name, [source])
            token = _session(handlers, board)
            series = Series(_registered(where, handlers, board, token, source))
            with step(f"a read of {name}", size.reads):
                fill(where, series, _points(points))
                read = partial(_read, handlers, board, token)
                read()
                cpu_s = statistics.median(_cpu_s(read) for _ in range(size.reads))
                pages, length, found = read()
                cost = _Cost(cpu_s, *_counted(where, read))
            if found != points:
                raise StackError(f"A read of {name} gave {found:,}.")
            rows.append(
                (name, Figure(pages), Figure(length / 1024, ",.0f"), Figure(cpu_s * 1000, ",.1f"), *cost.cells())
            )
    return Table(("API: a read", "answers", "KB", "CPU ms", *_COUNTED), rows)


def _session(handlers: Handlers, board: str) -> str:
    return str(handlers.call("POST", f"/api/dashboards/{board}/session", {})["token"])


def _registered(
    where: Tables, handlers: Handlers, board: str, token: str, source: Mapping[str, Any], connection_id: str = ""
) -> str:
    """The key of the datasource's stream, once a viewer has subscribed."""
    connection_id = connection_id or f"{board}-first"
    handlers.open(connection_id, "192.0.2.9")
    _subscribe(handlers, board, token, source["id"], connection_id)
    topic = source["settings"]["topic"]
    (found,) = (
        stream.stream_key
        for stream in where.container.streams.of_source(_ALLOWED).streams
        if stream.topic_filter == topic
    )
    return found


def _subscribe(
    handlers: Handlers, board: str, token: str, datasource_id: str, connection_id: str, since: str | None = None
) -> None:
    asked = {"type": "subscribe", "dashboardId": board, "datasourceId": datasource_id, "sessionToken": token}
    handlers.say(connection_id, asked | ({} if since is None else {"since": since}))


def _points(number: int) -> list[Point]:
    """One in each second, the last in the future: see `_AHEAD_S`."""
    first_ms = (int(time.time()) + _AHEAD_S - number) * 1000
    moments = range(first_ms, first_ms + number * 1000, 1000)
    text = str(_NUMBER)
    return [Point(at_ms, f"{at_ms:015d}-{_MESSAGE_ID}", text, _NUMBER, _NUMBER) for at_ms in moments]


def _fill_as_relay(where: Tables, series: Series, points: Sequence[Point]) -> None:
    span, expires_at = int(WRITE_S), int(time.time()) + ASKED_S
    groups = [points[start : start + span] for start in range(0, len(points), span)]
    where.container.history.write([Group(series, group[0].start_ms, group, expires_at) for group in groups])


def _fill_as_device(where: Tables, series: Series, points: Sequence[Point]) -> None:
    expires_at = int(time.time()) + ASKED_S
    for point in points:
        where.container.history.add(series, point, expires_at)


def _read(handlers: Handlers, board: str, token: str) -> tuple[int, int, int]:
    """Answers, their bytes, and points, of a read of all."""
    pages = length = points = 0
    until: str | None = ""
    while until is not None:
        query = "datasourceId=h" + (f"&until={until}" if until else "")
        text = handlers.answer(
            "GET", f"/api/dashboards/{board}/history?{query}", None, bearer=token, address="192.0.2.1"
        )
        answer = json.loads(text)
        pages, length, points = pages + 1, length + len(text), points + len(answer["points"])
        until = answer["next"]
    return pages, length, points


# --- recovering -----------------------------------------------------------------------------------------------------


def _subscribes(where: Tables, handlers: Handlers, broker: str, sqs: Any, size: Size) -> list[Table]:
    """A subscribe with `since` and one without, and the catch-up that follows each."""
    none, kept = (mqtt(name, broker, f"demo/back/{name}") for name in ("none", "kept"))
    kept["settings"]["history"] = {"seconds": 600, "everyMs": _EVERY_MS}
    board = handlers.board("recover", [none, kept])
    token = _session(handlers, board)
    _registered(where, handlers, board, token, none, "first-none")
    series = Series(_registered(where, handlers, board, token, kept, "first-kept"))
    began_ms = (int(time.time()) - size.missed - 1) * 1000
    came = [
        replace(point, start_ms=began_ms + at * 1000, seq=f"{began_ms + at * 1000:015d}-{_MESSAGE_ID}")
        for at, point in enumerate(_points(size.missed))
    ]
    _fill_as_device(where, series, came)
    for topic in ("none", "kept"):
        _publish([_bridge(where)], f"demo/back/{topic}", _numbers(4), 1)
    (newest,) = where.container.last_values.newest(series.stream_key)
    before = f"{began_ms - 1:015d}-{_MESSAGE_ID}"
    cases: dict[str, tuple[str, str | None]] = {
        "without a history": ("none", None),
        "with one, no since": ("kept", None),
        "with one, since, nothing came": ("kept", newest.seq),
        f"with one, since, {size.missed + 1} values came": ("kept", before),
    }
    catch_ups = _CatchUps(where, sqs)
    catch_ups.taken(2 + 2 * len(size.points))  # of those who came first
    connections = (f"viewer-{number}" for number in count())
    cpu: dict[str, list[float]] = {name: [] for name in cases}
    later: dict[str, list[float]] = {name: [] for name in cases}
    costs: dict[str, tuple[_Cost, _Cost]] = {}
    with step("subscribes", size.subscribes * len(cases)) as progress:
        for number in range(size.subscribes):
            for name, (source, since) in cases.items():
                come = _coming(handlers, board, token, source, since, next(connections), number)
                cpu[name].append(_cpu_s(come))
                progress.advance()
    with step("their catch-ups"):
        for body in catch_ups.taken(size.subscribes * len(cases)):
            name = _case_of(body, cases)
            later[name].append(_cpu_s(partial(catch_ups.handle, body)))
    for name, (source, since) in cases.items():
        come = _coming(handlers, board, token, source, since, next(connections), size.subscribes)
        first = _Cost(statistics.median(cpu[name]), *_counted(where, come))
        (body,) = catch_ups.taken(1)
        second = _Cost(statistics.median(later[name]), *_counted(where, partial(catch_ups.handle, body)))
        costs[name] = first, second
    return [
        _of_subscribes(what, {name: each[index] for name, each in costs.items()})
        for index, what in enumerate(("a subscribe to a datasource", "its catch-up"))
    ]


def _coming(
    handlers: Handlers, board: str, token: str, source: str, since: str | None, connection_id: str, number: int
) -> Callable[[], None]:
    """The subscribe of a viewer whose connection is open. Each has an address and a token of its own."""
    address = f"10.1.{number // 250}.{number % 250}"
    handlers.open(connection_id, address)
    return partial(_subscribe, handlers, board, token, source, connection_id, since)


def _case_of(body: str, cases: Mapping[str, tuple[str, str | None]]) -> str:
    request = read_catch_up(body)
    since = None if request.recovering is None else request.recovering.since
    (name,) = (name for name, case in cases.items() if case == (request.key.datasource_id, since))
    return name


def _of_subscribes(what: str, costs: Mapping[str, _Cost]) -> Table:
    base = next(iter(costs.values()))
    rows: list[tuple[Cell, ...]] = [
        (name, Figure(cost.cpu_s * 1000, ",.2f"), Figure(cost.cpu_s / base.cpu_s, ".2f"), *cost.cells())
        for name, cost in costs.items()
    ]
    return Table((what, "CPU ms", "ratio", *_COUNTED), rows)


class _CatchUps:
    """The queue of catch-ups, and what handles them."""

    def __init__(self, where: Tables, sqs: Any) -> None:
        self._url, self._sqs = where.env["CATCH_UP_QUEUE_URL"], sqs
        services = catch_up_services(where.env)
        unheard(services.observer)
        self._catch_up = services.catch_up

    def taken(self, number: int) -> Sequence[str]:
        """So many of them, once their delay is over. Raises `StackError` when they do not come."""
        bodies, deadline = list[str](), time.monotonic() + 60
        while len(bodies) < number:
            if time.monotonic() > deadline:
                raise StackError(f"Of {number} catch-ups {len(bodies)} came.")
            asked = {"QueueUrl": self._url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 1}
            for message in self._sqs.receive_message(**asked).get("Messages", []):
                bodies.append(message["Body"])
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def handle(self, body: str) -> None:
        self._catch_up(read_catch_up(body))
