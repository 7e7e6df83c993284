"""The time that all limiter calls of one request may take together, cleaning up included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tidegate.ports.runtime import Clock


class LimiterDeadline:
    """A deadline that stands still between limiter calls, while the request does other work."""

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._left_s = timeout_s

    @contextmanager
    def running(self) -> Iterator[float]:
        """For one call, or several in a row. Gives the monotonic second by which they must have ended."""
        began = self._clock.monotonic()
        try:
            yield began + self._left_s
        finally:
            self._left_s -= self._clock.monotonic() - began
