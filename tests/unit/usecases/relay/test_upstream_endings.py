"""How an upstream comes back, and what viewers hear of it, in minutes that pass in no time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from tests.doubles.platform import MemoryObserver
from tests.doubles.stores import MemoryLastValues
from tidegate.domain.subscriptions import Fault, LastValue, Stream
from tidegate.ports.relay import (
    MqttRequest,
    Opened,
    Oversize,
    SignOfLife,
    UpstreamEvent,
    UpstreamFault,
    UpstreamMessage,
    UpstreamRequest,
)
from tidegate.protocol.messages import ErrorCode
from tidegate.usecases.relay.upstream import Upstream

LEAST_MS, MOST_MS = 1000, 30_000
ENDED = UpstreamFault(ErrorCode.CONNECT_FAILED, "Upstream ended")
AT_ONCE = ("STREAM_CONNECT_FAILED", "Upstream closed the connection at once")
#: When the stream was requested, epoch seconds, and when the loop's time is 0.
REQUESTED = 1_000_000


class Skipping(asyncio.SelectorEventLoop):
    """A loop that does not wait: when nothing else is to be done, its time goes on to the next timer."""

    _skipped_s = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._began = super().time()

    def time(self) -> float:
        return self._skipped_s

    def _run_once(self) -> None:
        loop: Any = self
        if not loop._ready and loop._scheduled:
            self._skipped_s = max(self._skipped_s, loop._scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]


class LoopClock:
    def now(self) -> float:
        return REQUESTED + 1 + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Behaving:
    """A source that behaves the same on every connection: it waits, says something, and so on, and ends."""

    def __init__(self, *steps: float | UpstreamEvent | UpstreamFault) -> None:
        self.steps = steps
        self.opened_at: list[float] = []

    async def open(self, _request: object, last_id: str) -> AsyncIterator[UpstreamEvent]:
        self.opened_at.append(asyncio.get_running_loop().time())
        for step in self.steps:
            if isinstance(step, UpstreamFault):
                raise UpstreamFault(step.code, step.text, **_options(step))
            if isinstance(step, int | float):
                await asyncio.sleep(step)
            else:
                yield step
        raise UpstreamFault(ENDED.code, ENDED.text)

    async def close(self) -> None: ...


def _options(fault: UpstreamFault) -> dict[str, Any]:
    return {"refused": fault.refused, "over": fault.over, "retry_after_ms": fault.retry_after_ms}


class Viewers:
    """What viewers are sent, in order."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, ...]] = []

    def deliver(self, _stream: Stream, value: LastValue) -> None:
        self.frames.append(("data", value.payload))

    def notify(self, _stream: Stream, code: ErrorCode, text: str, *, status: bool = False) -> None:
        self.frames.append(("status" if status else "error", code.value, text))

    def connected(self, _stream: Stream) -> None:
        self.frames.append(("connected",))


class Run:
    """One upstream, observed."""

    def __init__(self, source: Behaving, chance: float = 0.999) -> None:
        self.source, self.viewers = source, Viewers()
        self.connected: list[bool] = []
        self._chance = chance

    def during(self, seconds: float, *events: tuple[float, Callable[[Upstream], object]], standby: bool = False) -> Run:
        """Let the time pass. `events`: what happens at which second."""

        async def work() -> None:
            running = asyncio.create_task(self._upstream().run(standby=standby))
            loop = asyncio.get_running_loop()
            for at, happen in events:
                loop.call_at(at, happen, self.upstream)
            await asyncio.sleep(seconds)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

        loop = Skipping()
        try:
            loop.run_until_complete(work())
        finally:
            loop.close()
        return self

    def _upstream(self) -> Upstream:
        async def request() -> UpstreamRequest | MqttRequest:
            return UpstreamRequest("sse", "https://source.example/", {})

        async def in_order(work: Callable[[], object]) -> object:
            return work()

        fan_out: Any = self.viewers
        self.upstream = Upstream(
            Stream("stream", "sse", "json", None, None, last_requested_at=REQUESTED),
            upstreams=self.source,
            request=request,
            last_values=MemoryLastValues(),
            fan_out=fan_out,
            in_order=in_order,
            note=self._note,
            reconnect_ms=(LEAST_MS, MOST_MS),
            per_second=0,
            chance=lambda: self._chance,
            clock=LoopClock(),
            observer=MemoryObserver(),
        )
        return self.upstream

    def _note(self, connected: bool, _fault: Fault | None) -> bool:
        changed = self.connected[-1:] != [connected]
        self.connected.append(connected)
        return changed

    @property
    def pauses(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.source.opened_at)]

    @property
    def faults(self) -> list[tuple[str, ...]]:
        return [frame[1:] for frame in self.viewers.frames if frame[0] in ("status", "error")]


def test_a_source_that_accepts_and_closes_is_met_with_growing_pauses_and_told_once() -> None:
    run = Run(Behaving(Opened())).during(600)
    assert [round(pause) for pause in run.pauses[:6]] == [2, 4, 8, 16, 30, 30]
    assert run.viewers.frames == [("connected",), ("status", *AT_ONCE)]
    assert not run.connected[-1]


def test_a_source_that_breaks_every_twenty_seconds_is_back_in_about_a_second_each_time() -> None:
    run = Run(Behaving(Opened(), 20), chance=0.0).during(200)
    assert len(run.pauses) == 9 and all(21 <= pause <= 22 for pause in run.pauses)
    broke = [("connected",), ("status", "STREAM_CONNECT_FAILED", "Upstream ended")]
    assert run.viewers.frames[:18] == broke * 9, "each break and each return is told"


def test_a_source_that_closes_after_each_value_is_polled() -> None:
    run = Run(Behaving(Opened(), UpstreamMessage(b"1"))).during(600)
    assert max(run.pauses) <= 4, "the pauses do not grow"
    others = [frame for frame in run.viewers.frames if frame[0] != "data"]
    assert others == [("connected",), ("status", "STREAM_CONNECT_FAILED", "Upstream ended")] * 2
    assert len(run.viewers.frames) - len(others) == len(run.source.opened_at), "each value is delivered"


def test_who_comes_back_is_announced_when_it_has_brought_a_value_or_has_held() -> None:
    source = Behaving(Opened())
    run = Run(source)

    def mend(_: Upstream) -> None:
        source.steps = (Opened(), 1000)

    run.during(100, (40, mend))
    assert run.viewers.frames == [("connected",), ("status", *AT_ONCE), ("connected",)]
    assert run.connected[-1]


def test_equal_faults_in_a_row_are_told_once_and_others_each_time() -> None:
    down = UpstreamFault(ErrorCode.CONNECT_REFUSED, "Upstream rejected connection")
    source = Behaving(down)
    run = Run(source)

    def page(_: Upstream) -> None:
        source.steps = (UpstreamFault(ErrorCode.PROTOCOL_ERROR, "Upstream is not an event stream"),)

    run.during(600, (300, page))
    assert run.faults == [
        ("STREAM_CONNECT_REFUSED", "Upstream rejected connection"),
        ("STREAM_PROTOCOL_ERROR", "Upstream is not an event stream"),
    ]
    assert ("connected",) not in run.viewers.frames
    assert [round(pause) for pause in run.pauses[-3:]] == [30, 30, 30]


def test_who_subscribes_later_hears_the_fault_too() -> None:
    refused = UpstreamFault(ErrorCode.AUTH_FAILED, "Upstream rejected connection", refused=True)
    run = Run(Behaving(refused)).during(600, (300, lambda upstream: upstream.requested(REQUESTED + 301)))
    assert run.faults == [("STREAM_AUTH_FAILED", "Upstream rejected connection")] * 2


def test_faults_of_messages_are_told_once_until_a_value_comes() -> None:
    bad, good = UpstreamMessage(b"{no JSON"), UpstreamMessage(b"1")
    run = Run(Behaving(Opened(), bad, bad, bad, 1, Oversize(), Oversize(), 1, good, 1, bad, bad, 1000)).during(100)
    unparsable = ("error", "STREAM_PROTOCOL_ERROR", "Payload parsing failed")
    large = ("error", "STREAM_MESSAGE_TOO_LARGE", "Message exceeded size limit")
    assert run.viewers.frames == [("connected",), unparsable, large, ("data", "1"), unparsable]


def test_a_sign_of_life_is_no_fault_and_no_value() -> None:
    alive: list[float | UpstreamEvent] = [2, SignOfLife("7")] * 60
    run = Run(Behaving(Opened(), *alive)).during(100)
    assert run.viewers.frames == [("connected",)] and len(run.source.opened_at) == 1


def test_a_source_that_is_over_is_connected_again_when_somebody_subscribes() -> None:
    over = UpstreamFault(ErrorCode.CONNECT_REFUSED, "Upstream has ended the stream", over=True)
    run = Run(Behaving(over)).during(2000, (1000, lambda upstream: upstream.requested(REQUESTED + 1001)))
    assert run.source.opened_at == [0, 1000]
    assert run.faults == [("STREAM_CONNECT_REFUSED", "Upstream has ended the stream")] * 2


@pytest.mark.parametrize(("asked_s", "at_least_s", "at_most_s"), [(20, 20, 30), (7200, 30, 30), (0, 1, 2)])
def test_a_pause_that_is_asked_for_is_kept_within_the_bounds(asked_s: int, at_least_s: int, at_most_s: int) -> None:
    for chance in (0.0, 0.999):
        down = UpstreamFault(ErrorCode.CONNECT_REFUSED, "Upstream rejected connection", retry_after_ms=asked_s * 1000)
        run = Run(Behaving(down), chance).during(40)
        assert at_least_s <= run.pauses[0] <= at_most_s


def test_who_takes_over_says_that_it_is_connected() -> None:
    """Its predecessor may have told a fault. A quiet source would say nothing for hours."""
    taken: list[asyncio.Task[None]] = []

    def take_over(upstream: Upstream) -> None:
        taken.append(asyncio.create_task(upstream.take_over()))

    run = Run(Behaving(Opened(), 1000)).during(100, (20, take_over), standby=True)
    assert run.viewers.frames == [("connected",)] and run.connected == [True]


def test_who_takes_over_tells_the_fault_that_goes_on() -> None:
    taken: list[asyncio.Task[None]] = []

    def take_over(upstream: Upstream) -> None:
        taken.append(asyncio.create_task(upstream.take_over()))

    run = Run(Behaving(Opened())).during(300, (40, take_over), standby=True)
    assert run.viewers.frames == [("status", *AT_ONCE)]
