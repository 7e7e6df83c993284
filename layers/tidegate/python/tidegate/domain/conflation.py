"""Limits how many values of a topic are delivered in a second. The newest wins, and the last is always delivered.

A stream without topics is one topic. Topics do not limit each other: with fifty devices behind a wildcard, each of them
is seen.

Invariant of this file: two deliveries of a topic are at least the interval apart. A value that no other of its topic
follows is delivered.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")

#: Topics that are remembered before those are forgotten whose interval is over.
_REMEMBERED = 1_000


class Conflator(Generic[T]):
    """Conflates the values of one stream. Times are seconds of a clock that never jumps."""

    def __init__(self, per_second: int) -> None:
        """`per_second` 0 lets everything through."""
        self._interval_s = 1 / per_second if per_second else 0.0
        self._next_at: dict[str, float] = {}
        self._waiting: dict[str, T] = {}
        self._due: list[tuple[float, str]] = []  # a heap with each topic of which a value waits
        self._forget_above = _REMEMBERED

    def offer(self, value: T, now: float, topic: str = "") -> T | None:
        """Returns the value when it may be delivered now. Otherwise it waits, in place of the one of its topic that
        waited before, and the answer is None."""
        at = self._next_at.get(topic, now)
        if topic not in self._waiting and now >= at:
            self._delivered(topic, now)
            return value
        if topic not in self._waiting:
            heapq.heappush(self._due, (at, topic))
        self._waiting[topic] = value
        return None

    def due(self, now: float) -> T | None:
        """A waiting value whose time has come. To be asked until there is none."""
        if not self._due or now < self._due[0][0]:
            return None
        _, topic = heapq.heappop(self._due)
        self._delivered(topic, now)
        return self._waiting.pop(topic)

    @property
    def next_at(self) -> float | None:
        """When `due` will have something; None when nothing waits."""
        return self._due[0][0] if self._due else None

    def _delivered(self, topic: str, now: float) -> None:
        self._next_at[topic] = now + self._interval_s
        if len(self._next_at) > self._forget_above:
            self._next_at = {topic: at for topic, at in self._next_at.items() if at > now}
            self._forget_above = max(_REMEMBERED, 2 * len(self._next_at))
