"""Which messages of a shared connection are for whom: what a run against a broker does not reach."""

from __future__ import annotations

import asyncio

from tests.doubles.platform import ManualClock
from tidegate.adapters.upstreams.mqtt_client import Dropped
from tidegate.adapters.upstreams.mqtt_filters import COPY_S, Filters, Stream
from tidegate.ports.relay import Oversize, UpstreamEvent, UpstreamMessage
from tidegate.protocol.mqtt import Publish


def taken(stream: Stream) -> list[UpstreamEvent]:
    """All events that wait."""

    async def take() -> list[UpstreamEvent]:
        found: list[UpstreamEvent] = []
        while True:
            try:
                async with asyncio.timeout(0):
                    found.append(await stream.take())
            except TimeoutError:
                return found

    return asyncio.run(take())


class Bench:
    """Filters with a stream for each, and a clock."""

    def __init__(self, *topic_filters: str) -> None:
        self.clock = ManualClock()
        self.filters = Filters(self.clock.monotonic)
        self.streams = {topic_filter: Stream() for topic_filter in topic_filters}
        self.joined = {name: self.filters.join(name, stream) for name, stream in self.streams.items()}

    def came(self, topic: str, payload: bytes, *, retain: bool = False, names: tuple[str, ...] = ()) -> None:
        identifiers = tuple(self.joined[name].identifier for name in names)
        message = Publish(topic, payload, retain=retain, identifiers=identifiers)
        self.filters.came(message, by_identifier=bool(names))

    def payloads(self, topic_filter: str) -> list[bytes]:
        return [event.payload for event in taken(self.streams[topic_filter]) if isinstance(event, UpstreamMessage)]


def test_an_equal_value_after_the_window_is_a_message() -> None:
    bench = Bench("t/+", "t/a")
    for _ in range(2):
        bench.came("t/a", b"1")
        bench.came("t/a", b"1")  # the copy
        bench.clock.advance(COPY_S)
    assert bench.payloads("t/+") == bench.payloads("t/a") == [b"1", b"1"]


def test_there_are_no_more_copies_than_filters() -> None:
    bench = Bench("t/+", "t/a", "#")
    for _ in range(6):
        bench.came("t/a", b"1")
    assert bench.payloads("#") == [b"1", b"1"]


def test_a_copy_that_is_named_goes_to_its_own_subscription() -> None:
    bench = Bench("t/+", "t/a")
    bench.came("t/a", b"1", names=("t/+",))
    bench.came("t/a", b"1", names=("t/a",))
    bench.came("t/a", b"2", names=("t/+", "t/a"))
    assert bench.payloads("t/+") == bench.payloads("t/a") == [b"1", b"2"]


def test_a_message_of_a_subscription_that_is_gone_is_for_nobody() -> None:
    bench = Bench("t/+", "t/a")
    bench.filters.leave(bench.streams["t/a"])
    bench.joined["t/a"].asked = True
    assert bench.filters.forget("t/a")
    bench.came("t/a", b"1", names=("t/a",))
    assert bench.payloads("t/+") == []


def test_a_filter_that_was_never_asked_for_needs_no_unsubscribe() -> None:
    bench = Bench("t/a")
    assert not bench.filters.forget("t/a"), "somebody uses it"
    assert bench.filters.leave(bench.streams["t/a"]) == ["t/a"]
    assert not bench.filters.forget("t/a")
    assert not bench.filters.forget("t/a")


def test_what_a_filter_keeps_for_later_is_bounded_and_the_stalest_goes() -> None:
    for count, size, kept in ((500, 10, 200), (20, 100_000, 10)):
        bench = Bench("#")
        for number in range(count):
            bench.came(f"t/{number}", bytes(size))
        bench.came(f"t/{count - kept}", b"newest")
        later = Stream()
        bench.filters.join("#", later)
        topics = [event.topic for event in taken(later) if isinstance(event, UpstreamMessage)]
        assert len(topics) in (kept, kept + 1) and topics[-1] == f"t/{count - kept}"
        assert set(topics) <= {f"t/{number}" for number in range(count - kept - 1, count)}


def test_a_dropped_message_is_told_once_though_it_comes_in_copies() -> None:
    bench = Bench("t/+", "t/a")
    for _ in range(2):
        bench.filters.came(Dropped("t/a"), by_identifier=False)
    assert taken(bench.streams["t/a"]) == taken(bench.streams["t/+"]) == [Oversize()]
