"""How long a quiet stream waits beside a crowded one, where both together want more than the account may send.

The crowd watches one upstream of the relay, or one device. Two quiet streams with one viewer each are measured: one of
the relay worker that sends to the crowd, and a device's, which the bridge delivers. They are measured alone; and beside
each crowd, with the send quota and without it, when whoever comes first is served. Each run has tables and a relay of
its own.

The relay is its own process (`python -m functions.relay`). The bridge of the quiet device runs in this one, and that of
the crowded device in some others, a call for each value as on Lambda. Tables and the send quota are the emulator's, and
the upstreams are fakes. The platform is a stand-in with a quota: what is above is answered with 429. Pages of audiences
are answered by `benchmarks.index`, because the emulator takes a good part of a window for them.

A device's value is late by the time from the call of the bridge until the stand-in has the frame. A value of the relay
is late by the time until the stand-in has it, beyond the one of all runs that was quickest: an upstream sends number n
at n intervals after its start.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from threading import Event, Thread

from benchmarks.figures import Cell, Figure, Table
from benchmarks.handlers import unheard
from benchmarks.index import remembered
from benchmarks.platform import MOMENT_S, Account, Counters, counters, platform
from benchmarks.progress import for_all, step
from benchmarks.relay import Fixtures, Relayed
from benchmarks.tables import Tables, running_emulator
from functions.mqtt_bridge.wiring import bridge_services
from local_stack.config import Config, StackError
from local_stack.processes import wait_until
from tidegate.domain.send_quota import WINDOW_MS
from tidegate.domain.subscriptions import Stream, SubscriptionKey
from tidegate.usecases.delivery.bridge import Bridge, DeviceMessage

_ALLOWED, _TOPIC = "demo/#", "demo/quiet"
#: Connections of the two quiet viewers. `Relayed.watch` names those of its first datasource `s0-…`.
_BY_RELAY, _BY_BRIDGE = "s0-0", "device-0"
#: Connections of the crowd begin with this: of the relay's as above, and of the device's.
_CROWD_OF_RELAY, _CROWD_OF_DEVICE = "s1-", "crowd-"
_CROWDED_TOPIC = "demo/crowded"
#: Calls of the bridge that may run at the same time for the crowded device.
_CALLS = 6
#: How long it may take until every viewer has a message, seconds.
_PATIENCE_S = 60.0
#: Values that are still on their way when a run ends may take so long, seconds.
_LATE_S = 5.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much is sent.

    Attributes:
        crowd: viewers of the crowded stream.
        updates: of it, a second.
        quota: messages a second, of the account and of the setting alike.
        quiet_ms: between two values of a quiet stream. No multiple of a window, so that they meet its every part.
        seconds: that a run is measured, and how long it runs before.
        settle_s: how long it runs before.
    """

    crowd: int
    updates: int
    quota: int
    quiet_ms: int
    seconds: float
    settle_s: float


FULL = Size(crowd=1_000, updates=10, quota=2_000, quiet_ms=170, seconds=34.0, settle_s=3.0)
SMALL = Size(crowd=60, updates=10, quota=200, quiet_ms=170, seconds=2.0, settle_s=0.5)


@dataclass(frozen=True, slots=True)
class _Run:
    """What one run gave.

    Attributes:
        device: by value, how late it was, seconds; None when it did not come.
        relayed: number of a value -> when it came, epoch seconds.
        numbers: the first and the last number that was due.
        per_moment: messages in each moment of `MOMENT_S`, one after another.
        crowd: messages of each viewer of the crowd.
        throttled: messages that the account refused.
        seconds: how long it was measured.
    """

    device: Sequence[float | None]
    relayed: Mapping[int, float]
    per_moment: Sequence[int]
    crowd: Sequence[int]
    throttled: int
    seconds: float


def run(config: Config, size: Size) -> list[Table]:
    """A quiet stream beside a crowded one: with the send quota, and without it."""
    with running_emulator(config):
        with step("fake upstreams"):
            fixtures = Fixtures(config)
        quota = str(size.quota)
        runs = {
            "alone": _measured(fixtures, size, "alone", "", quota),
            "beside the crowd": _measured(fixtures, size, "beside", _CROWD_OF_RELAY, quota),
            "beside it, no quota": _measured(fixtures, size, "unpaced", _CROWD_OF_RELAY, "0"),
            "beside a device's crowd": _measured(fixtures, size, "device", _CROWD_OF_DEVICE, quota),
            "beside that, no quota": _measured(fixtures, size, "unpaced-device", _CROWD_OF_DEVICE, "0"),
        }
    return [_delays(runs, size), _traffic(runs, size)]


def _measured(fixtures: Fixtures, size: Size, name: str, crowd: str, quota: str) -> _Run:
    """One run. `crowd`: with what the connections of the crowd begin; empty for none."""
    account = Account(size.quota, (_BY_RELAY, _BY_BRIDGE))
    with platform(account=account) as url, remembered(fixtures.config.emulator_url) as index_url:
        settings = {"REALTIME_MAX_SENDS_PER_SECOND": quota, "REALTIME_MQTT_ALLOWED_TOPICS": _ALLOWED}
        where = Relayed(fixtures, url, name, settings)
        where.watch([_upstream(fixtures, f"interval_ms={size.quiet_ms}")])
        if crowd == _CROWD_OF_RELAY:
            where.watch([_upstream(fixtures, f"rate={size.updates}")], size.crowd)
        if crowd == _CROWD_OF_DEVICE:
            _device(where.tables, _CROWDED_TOPIC, [f"{crowd}{number}" for number in range(size.crowd)])
        _device(where.tables, _TOPIC, [_BY_BRIDGE])
        where.tables.env["AWS_ENDPOINT_URL_DYNAMODB"] = index_url
        bridge = _bridge(where.tables.env)
        viewers = size.crowd if crowd else 0
        with where.relay(), _publishing(where.tables.env, size) if crowd == _CROWD_OF_DEVICE else nullcontext():
            if not wait_until(lambda: len(counters(url).data) >= 1 + viewers, _PATIENCE_S):
                raise StackError(f"Not every viewer had a message within {_PATIENCE_S:.0f} s.")
            time.sleep(size.settle_s)
            with step(f"{name}, viewers of the crowd: {viewers:,}"):
                before, began = counters(url), time.time()
                called = _publish(bridge, size)
                after, ended = counters(url), time.time()
            # What is late is waited for, so that it is not taken for lost.
            wait_until(lambda: len(counters(url).watched[_BY_BRIDGE]) >= len(called), _LATE_S)
            last = counters(url)
    came = {_payload(body): at for at, body in last.watched[_BY_BRIDGE]}
    relayed = {_payload(body): at for at, body in last.watched[_BY_RELAY] if began <= at < ended}
    return _Run(
        device=[came[number] - at if number in came else None for number, at in enumerate(called)],
        relayed=relayed,
        per_moment=_per_moment(after, began, ended),
        crowd=[after.data[f"{crowd}{number}"] - before.data[f"{crowd}{number}"] for number in range(viewers)],
        throttled=after.throttled - before.throttled,
        seconds=ended - began,
    )


def _upstream(fixtures: Fixtures, query: str) -> Mapping[str, object]:
    return {"type": "sse", "settings": {"url": fixtures.url("sse", query)}}


def _device(where: Tables, topic: str, connections: Sequence[str]) -> None:
    """Put a device's stream and its viewers into the tables."""
    name = topic.rpartition("/")[2]
    stream = Stream(f"stream-{name}".ljust(64, "-"), "mqtt", "json", _ALLOWED, topic, int(time.time()))
    where.shown([name])
    keys = [SubscriptionKey(name, connection_id, "s") for connection_id in connections]
    put = partial(where.viewer, intent_hash="hash".ljust(64, "-"), stream_key=stream.stream_key)
    for_all(f"{where.name}: viewers of {name}", put, keys, len(keys))
    where.container.streams.touch(stream)


def _bridge(env: Mapping[str, str]) -> Bridge:
    services = bridge_services(env)
    unheard(services.observer)
    return services.bridge


@contextmanager
def _publishing(env: Mapping[str, str], size: Size) -> Iterator[None]:
    """The crowded device publishes while the block runs. A call that comes late finds that its value is outdated."""
    ended = Event()
    with ProcessPoolExecutor(_CALLS, get_context("spawn"), _begin_call, (dict(env),)) as pool:

        def publish() -> None:
            began, number = time.monotonic(), 0
            while not ended.wait(max(0.0, began + number / size.updates - time.monotonic())):
                pool.submit(_call, number, int(time.time() * 1000))
                number += 1

        publisher = Thread(target=publish, daemon=True)
        publisher.start()
        try:
            yield
        finally:
            ended.set()
            publisher.join()
            pool.shutdown(cancel_futures=True)


_of_crowd: Bridge | None = None


def _begin_call(env: Mapping[str, str]) -> None:
    """In a new process: what stays between calls."""
    global _of_crowd
    _of_crowd = _bridge(env)


def _call(number: int, at_ms: int) -> None:
    """One call of the bridge for the crowded device."""
    assert _of_crowd is not None
    _of_crowd(DeviceMessage(_ALLOWED, _CROWDED_TOPIC, b'{"n":%d}' % number, at_ms, f"message-{number:08}"))


def _publish(bridge: Bridge, size: Size) -> Sequence[float]:
    """Values of the device, numbered from 0. Returns when each was handed to the bridge, epoch seconds."""
    called, began = list[float](), time.monotonic()
    while (due := len(called) * size.quiet_ms / 1000) < size.seconds:
        time.sleep(max(0.0, began + due - time.monotonic()))
        now, number = time.time(), len(called)
        called.append(now)
        bridge(DeviceMessage(_ALLOWED, _TOPIC, b'{"n":%d}' % number, int(now * 1000), f"message-{number:08}"))
    return called


def _payload(frame: str) -> int:
    number: int = json.loads(frame)["payload"]["n"]
    return number


def _per_moment(counted: Counters, began: float, ended: float) -> Sequence[int]:
    """Of the moments that lie between, whole."""
    moments = range(int(began / MOMENT_S) + 1, int(ended / MOMENT_S))
    return [counted.moments.get(str(moment), 0) for moment in moments]


# --- tables ---------------------------------------------------------------------------------------------------------


def _delays(runs: Mapping[str, _Run], size: Size) -> Table:
    quickest = min(at - number * size.quiet_ms / 1000 for each in runs.values() for number, at in each.relayed.items())
    rows: list[tuple[Cell, ...]] = []
    notes = ["not sent: a newer one took its place, or the sender's tries were used up and a catch-up would follow"]
    for kind in ("device, by the bridge", "upstream, by the same relay"):
        measured: dict[str, Sequence[float]] = {}
        for name, each in runs.items():
            if kind.startswith("device"):
                late, values = [delay for delay in each.device if delay is not None], len(each.device)
            else:
                late = [at - number * size.quiet_ms / 1000 - quickest for number, at in each.relayed.items()]
                values = 1 + max(each.relayed) - min(each.relayed)
            measured[name] = _three(late)
            row = (Figure(values), Figure(values - len(late)), *(Figure(s * 1000, ",.1f") for s in measured[name]))
            rows.append((f"{kind}: {name}", *row))
        for crowd in ("beside the crowd", "beside a device's crowd"):
            more = [beside - alone for alone, beside in zip(measured["alone"], measured[crowd], strict=True)]
            rows.append((f"{kind}: more {crowd}", "", "", *(Figure(s * 1000, "+,.1f") for s in more)))
            kept = "kept" if more[1] <= WINDOW_MS / 1000 else "not kept"
            notes.append(f"{kind}: p99 at most {WINDOW_MS} ms more {crowd}: {kept}")
    return Table(
        ("a quiet stream, its values", "values", "not sent", "median ms", "p99 ms", "most ms"), rows, (*notes,)
    )


def _three(late: Sequence[float]) -> Sequence[float]:
    """Median, p99 and most."""
    ordered = sorted(late)
    return statistics.median(ordered), ordered[math.ceil(0.99 * len(ordered)) - 1], ordered[-1]


def _traffic(runs: Mapping[str, _Run], size: Size) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, each in runs.items():
        wanted = size.updates * len(each.crowd)
        # Seconds that begin with any moment: a quota that is kept in each is kept in those of the clock too.
        moments = round(1 / MOMENT_S)
        seconds = [sum(each.per_moment[at : at + moments]) for at in range(len(each.per_moment) - moments + 1)]
        sent = sum(each.crowd) / each.seconds
        crowd: tuple[Cell, ...] = ("", "", "", "")
        if each.crowd:
            crowd = (
                Figure(wanted),
                Figure(sent, ",.0f"),
                Figure(max(0.0, 1 - sent / wanted) * 100, ".0f"),
                f"{min(each.crowd) / each.seconds:.2f} to {max(each.crowd) / each.seconds:.2f}",
            )
        rows.append(
            (
                name,
                *crowd,
                Figure(sum(each.per_moment) / len(each.per_moment) / MOMENT_S, ",.0f"),
                Figure(max(seconds)),
                Figure(max(each.per_moment)),
                Figure(each.throttled / each.seconds, ",.0f"),
            )
        )
    crowd_columns = ("crowd wants/s", "gets/s", "gave way %", "a viewer gets/s")
    platform_columns = ("sent/s", "most in a second", "most in 0.1 s", "429/s")
    return Table(
        (f"quota {size.quota:,}/s, {size.crowd:,} viewers", *crowd_columns, *platform_columns),
        rows,
        ("sent/s and the columns after it: all streams, counted where they arrive",),
    )
