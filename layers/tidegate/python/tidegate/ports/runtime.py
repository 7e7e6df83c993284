"""What every room needs of the process it runs in: time, randomness, and what operators see.

Conventions of all ports: reads named without remark are strongly consistent; a method whose docstring says *index* may
lag. Every method may raise `Unavailable` when its store does not answer. Writes are safe to repeat with the same
arguments, because any answer may be lost: each says what a repetition does. `now` is epoch seconds (float),
`*_ms` epoch milliseconds (int)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """Time, so that tests can hold it still."""

    def now(self) -> float:
        """Epoch seconds."""

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps; for deadlines."""


class Ids(Protocol):
    """Randomness, so that tests can repeat it."""

    def new_id(self) -> str:
        """21 URL-safe characters, 126 bits: dashboards, users, profiles, attempts."""

    def new_share_token(self) -> str:
        """32 URL-safe characters from 24 random bytes."""


@dataclass(frozen=True, slots=True)
class ScanPage(Generic[T]):
    """One page of a scan. `position` is opaque; None at the segment's end."""

    items: Sequence[T]
    position: str | None


class Observer(Protocol):
    """Counts and events for operators."""

    def count(self, name: str, value: int = 1, **dimensions: str) -> None: ...

    def time(self, name: str, milliseconds: float) -> None:
        """One sample of a duration."""

    def info(self, message: str, **fields: object) -> None: ...

    def warning(self, message: str, **fields: object) -> None: ...

    def fault(self, message: str, error: BaseException, **fields: object) -> None:
        """Something unexpected; its text goes to the log, never to a client."""
