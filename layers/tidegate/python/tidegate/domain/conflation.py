"""Limits how many values of a stream are delivered in a second. The newest wins, and the last is always delivered.

Invariant of this file: two deliveries are at least the interval apart. A value that no other follows is delivered.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Conflator(Generic[T]):
    """Conflates the values of one stream. Times are seconds of a clock that never jumps."""

    def __init__(self, per_second: int) -> None:
        """`per_second` 0 lets everything through."""
        self._interval_s = 1 / per_second if per_second else 0.0
        self._next_at = float("-inf")
        self._waiting: list[T] = []

    def offer(self, value: T, now: float) -> T | None:
        """Returns the value when it may be delivered now. Otherwise it waits, in place of the one that waited before,
        and the answer is None."""
        if now >= self._next_at:
            self._next_at = now + self._interval_s
            self._waiting.clear()
            return value
        self._waiting[:] = [value]
        return None

    def due(self, now: float) -> T | None:
        """The waiting value, once its time has come."""
        if not self._waiting or now < self._next_at:
            return None
        self._next_at = now + self._interval_s
        return self._waiting.pop()

    @property
    def next_at(self) -> float | None:
        """When `due` will have something; None when nothing waits."""
        return self._next_at if self._waiting else None
