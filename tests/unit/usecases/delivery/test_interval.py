"""Calls that know nothing of each other keep the values of a topic apart, and the last one always comes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from tests.doubles.platform import ManualClock
from tests.doubles.stores import MemoryLastValues
from tests.model.actors import STREAM
from tidegate.domain.subscriptions import LastValue
from tidegate.ports.gateway import WAITS_MS, Admission, Verdict
from tidegate.usecases.delivery.interval import Interval

PER_SECOND, INTERVAL_MS = 10, 100


class Calls:
    """Calls of the bridge, each in a process of its own. While one of them waits, the others come."""

    def __init__(self, arrivals: list[tuple[int, str | None]]) -> None:
        """`arrivals`: (milliseconds after the one before, topic). The payload is the number of the arrival."""
        self.clock, self.values = ManualClock(), MemoryLastValues()
        self.sent: list[tuple[int, str | None, int]] = []
        self._at, at = list[tuple[int, str | None]](), 0
        for gap_ms, topic in arrivals:
            at += gap_ms
            self._at.append((at, topic))
        self._began, self._number = self.clock.now(), 0
        self._interval = Interval(
            last_values=self.values, per_second=PER_SECOND, clock=self.clock, sleep=self._meanwhile
        )

    def run(self) -> None:
        while self._number < len(self._at):
            self._next()

    def _next(self) -> None:
        at_ms, topic = self._at[self._number]
        self._number += 1
        self._move(self._began + at_ms / 1000)
        value = LastValue(str(self._number), round(self.clock.now() * 1000), f"{self._number:05d}", topic)
        wanted = self._interval(STREAM, value)
        if isinstance(wanted, LastValue):
            self.sent.append((int(self.clock.now() * 1000), wanted.topic, int(wanted.payload)))

    def _meanwhile(self, seconds: float) -> None:
        until = self.clock.now() + seconds
        while self._number < len(self._at) and self._began + self._at[self._number][0] / 1000 <= until:
            self._next()
        self._move(until)

    def _move(self, moment: float) -> None:
        self.clock.advance(max(0.0, moment - self.clock.now()))


@example([(0, None), (0, None), (100, None)])  # the third comes at the moment for which the second waits
@given(st.lists(st.tuples(st.integers(0, 250), st.sampled_from([None, "a", "b"])), min_size=1, max_size=60))
def test_values_of_a_topic_are_apart_in_order_and_the_last_one_comes(arrivals: list[tuple[int, str | None]]) -> None:
    calls = Calls(arrivals)
    calls.run()
    for topic in {topic for _, topic in arrivals}:
        sent = [(at, number) for at, of, number in calls.sent if of == topic]
        numbers = [number for _, number in sent]
        assert numbers == sorted(set(numbers)), "in order, none twice"
        assert numbers[-1] == max(number for number, (_, of) in enumerate(arrivals, start=1) if of == topic)
        assert all(later - earlier >= INTERVAL_MS - 1 for (earlier, _), (later, _) in pairwise(sent))


def test_a_hundred_a_second_are_ten_a_second() -> None:
    calls = Calls([(10, None)] * 300)
    calls.run()
    assert 29 <= len(calls.sent) <= 32 and calls.sent[-1][2] == 300


def test_sixteen_topics_do_not_limit_each_other() -> None:
    calls = Calls([(1, f"t/{number % 16}") for number in range(64)])
    calls.run()
    first = [topic for _, topic, number in calls.sent if number <= 16]
    assert first == [f"t/{number}" for number in range(16)]


def test_who_died_while_waiting_is_not_relied_upon_for_long() -> None:
    values, now = MemoryLastValues(), 1_000_000
    assert values.admit("k", LastValue("1", 1, "a"), now, INTERVAL_MS) == Admission(Verdict.SEND)
    dead = values.admit("k", LastValue("2", 2, "a"), now + 10, INTERVAL_MS)
    assert dead == Admission(Verdict.WAIT, now + INTERVAL_MS)
    assert values.admit("k", LastValue("3", 3, "a"), now + 20, INTERVAL_MS) == Admission(Verdict.LEAVE)
    later = now + INTERVAL_MS + WAITS_MS
    assert values.admit("k", LastValue("4", 4, "a"), later, INTERVAL_MS) == Admission(Verdict.SEND)
