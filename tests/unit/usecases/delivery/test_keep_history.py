"""What is kept of the values that are sent, and what that costs who asked for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Thread

import pytest

from tests.containers.gateway import GatewayContainer
from tests.doubles.platform import ManualClock, MemoryObserver
from tests.doubles.stores import MemoryHistory
from tidegate.domain.history import History, Point
from tidegate.domain.subscriptions import MOST_TOPICS, LastValue, Stream
from tidegate.errors import Unavailable
from tidegate.ports.history import SPAN_MS, Group, Series
from tidegate.usecases.delivery import keep_history
from tidegate.usecases.delivery.keep_history import KeepInBatches
from tidegate.usecases.gateway.stream_history import points_of

HISTORY = {"seconds": 600, "everyMs": 1000}
ASKED = History(600, 1000)


def board(history: dict[str, int] | None = HISTORY, topic: str = "a/b") -> GatewayContainer:
    container = GatewayContainer()
    container.add_datasource("s", topic, history=history)
    container.subscribed("c", "s")
    return container


def shown(container: GatewayContainer, topic: str | None = None) -> list[Point]:
    (stream,) = container.streams.rows.values()
    series = Series(stream.stream_key, topic)
    return list(points_of(container.history, series, ASKED, container.clock.now())[0])


def test_a_value_that_is_sent_is_kept() -> None:
    container = board()
    container.publish(b"1")
    container.publish(b"3")
    container.clock.advance(1)
    container.publish(b"2.50")
    newest, oldest = shown(container)
    assert (newest.least, newest.most, newest.last) == (2.5, 2.5, "2.50")
    assert (oldest.least, oldest.most, oldest.last) == (1, 3, "3")
    assert newest.seq == container.frames("data")[-1]["seq"]


def test_each_topic_is_a_series() -> None:
    container = board(topic="a/+")
    container.publish(b"1", topic="a/b")
    container.publish(b"2", topic="a/c")
    assert [point.last for point in shown(container, "a/b")] == ["1"]
    assert [point.last for point in shown(container, "a/c")] == ["2"]


def test_without_a_history_nothing_is_asked() -> None:
    container = board(history=None)
    container.publish(b"1")
    assert container.history.calls == 0 and len(container.frames("data")) == 1


def test_nothing_is_kept_a_day_after_somebody_asked_for_it() -> None:
    container = board()
    container.clock.advance(86_401)
    container.publish(b"1")
    assert container.history.calls == 0


def test_a_value_is_sent_although_it_cannot_be_kept_and_is_kept_when_it_comes_again() -> None:
    container = board()
    container.history.fails = True
    with pytest.raises(Unavailable):
        container.publish(b"1")
    assert len(container.frames("data")) == 1
    (value,) = container.last_values.rows.values()
    container.history.fails = False
    container.publish(b"1", at_ms=value.timestamp_ms)
    assert [point.last for point in shown(container)] == ["1"]


def test_a_late_repetition_is_kept_too() -> None:
    container = board()
    container.history.fails = True
    with pytest.raises(Unavailable):
        container.publish(b"1")
    (value,) = container.last_values.rows.values()
    container.history.fails = False
    container.publish(b"2")
    container.publish(b"1", at_ms=value.timestamp_ms)
    assert [(point.least, point.most, point.last) for point in shown(container)] == [(1, 2, "2")]
    assert len(container.frames("data")) == 2, "it is outdated"


# --- the relay ---------------------------------------------------------------------------------------------

STREAM = Stream("k", "sse", "json", None, None, history=replace(ASKED, until=10**10))


class Relay:
    def __init__(self) -> None:
        self.clock, self.observer, self.history = ManualClock(), MemoryObserver(), MemoryHistory()
        self.keep = KeepInBatches(lambda: self.history, self.clock, self.observer)
        self.keep._thread = Thread()  # one that does nothing: `write` is called by the test

    def say(self, payload: str, *, topic: str | None = None, after_s: float = 0.1, stream: Stream = STREAM) -> None:
        self.clock.advance(after_s)
        self.keep(stream, LastValue(payload, round(self.clock.now() * 1000), "m", topic))

    def shown(self, topic: str | None = None) -> list[Point]:
        return list(points_of(self.history, Series("k", topic), ASKED, self.clock.now())[0])


def test_the_relay_writes_what_it_gathered_with_one_call() -> None:
    relay = Relay()
    for number in range(40):
        relay.say(str(number), topic=f"a/{number % 2}")
    relay.keep.write()
    assert relay.history.calls == 1 and len(relay.history.items) == 2
    assert sum(point.most is not None for point in relay.shown("a/0")) >= 4
    assert relay.shown("a/1")[0].last == "39"
    relay.history.calls = 0
    relay.keep.write()
    assert relay.history.calls == 0, "nothing new, nothing written"


def test_a_bucket_that_was_written_half_is_whole_in_the_end() -> None:
    relay = Relay()
    relay.clock.advance(1 - relay.clock.now() % 1)
    relay.say("5")
    relay.keep.write()
    relay.say("1")
    relay.keep.write()
    relay.say("3")
    relay.keep.write()
    assert [(point.least, point.most, point.last) for point in relay.shown()] == [(1, 5, "3")]


def test_what_cannot_be_written_is_written_with_what_follows() -> None:
    relay = Relay()
    relay.say("1")
    relay.history.fails = True
    relay.keep.write()
    relay.say("2", after_s=1)
    relay.keep.write()
    assert relay.observer.counts[("history_not_written",)] == 2
    relay.history.fails = False
    relay.keep.write()
    assert [point.last for point in relay.shown()] == ["2", "1"]
    assert ("history_lost",) not in relay.observer.counts


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep_history, "MOST_LATE", 3)
    relay = Relay()
    relay.history.fails = True
    for _ in range(5):
        relay.say("1", after_s=1)
        relay.keep.write()
    assert relay.observer.counts[("history_lost",)] == 2
    relay.history.fails = False
    relay.keep.write()
    assert len(relay.shown()) == 3, "the newest"


def test_topics_are_bounded() -> None:
    relay = Relay()
    for number in range(MOST_TOPICS + 5):
        relay.say("1", topic=str(number), after_s=0.001)
    relay.keep.write()
    assert len(relay.history.items) == MOST_TOPICS and relay.observer.counts[("history_topics_dropped",)] == 5


def test_a_group_spans_some_seconds_at_most_however_late_it_is_written() -> None:
    relay = Relay()
    for _ in range(40):
        relay.say("1", after_s=1)
    relay.keep.write()
    spans = [points[-1].last_ms - first_ms for (_, first_ms), points in relay.history.items.items()]
    assert len(spans) == 3 and max(spans) < SPAN_MS and len(relay.shown()) == 40


def test_groups_of_a_series_are_written_one_after_the_other() -> None:
    """Who sees a group has to see those before it: a batch is written in no order."""
    relay, calls = Relay(), list[list[tuple[str | None, int]]]()
    write = relay.history.write

    def noted(groups: Sequence[Group]) -> None:
        calls.append([(group.series.topic, group.first_ms) for group in groups])
        write(groups)

    relay.history.write = noted  # type: ignore[method-assign]
    for _ in range(40):
        relay.say("1", topic="a", after_s=0.5)
        relay.say("1", topic="b", after_s=0.5)
    relay.keep.write()
    assert len(calls) == 3 and all(len({topic for topic, _ in call}) == len(call) for call in calls)
    assert [at for call in calls for topic, at in call if topic == "a"] == sorted(
        at for (series, at) in relay.history.items if series.topic == "a"
    )


def test_a_stream_without_a_history_starts_no_thread() -> None:
    observer, history = MemoryObserver(), MemoryHistory()
    keep = KeepInBatches(lambda: history, ManualClock(), observer)
    keep(replace(STREAM, history=None), LastValue("1", 1, "m"))
    assert keep._thread is None
    keep.close()
    assert history.calls == 0


def test_the_end_of_a_worker_writes_what_it_has() -> None:
    history, clock = MemoryHistory(), ManualClock()
    keep = KeepInBatches(lambda: history, clock, MemoryObserver())
    keep(STREAM, LastValue("1", round(clock.now() * 1000), "m"))
    keep.close()
    assert [point.last for point in points_of(history, Series("k"), ASKED, clock.now())[0]] == ["1"]
