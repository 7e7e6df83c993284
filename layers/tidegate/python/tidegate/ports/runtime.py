"""What every package of use cases needs of its process: time, randomness, and what operators see.

Conventions of all ports:

- A read is strongly consistent, unless its docstring says *index*: then it may lag.
- Every method may raise `Unavailable`, when its store does not answer.
- Any answer may be lost, so every write is safe to repeat with the same arguments. Each says what a repetition does.
- `now` is epoch seconds (float). `*_ms` is epoch milliseconds (int).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """Time, as a port so that tests can stop it."""

    def now(self) -> float:
        """Epoch seconds."""

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps. For deadlines."""


class Ids(Protocol):
    """Random ids, as a port so that tests can repeat them."""

    def new_id(self) -> str:
        """21 URL-safe characters, 126 bits. For dashboards, users, profiles, and generations of subscriptions."""

    def new_uuid(self) -> str:
        """A random UUID, 36 characters, 122 bits. For session tokens, where other gateways expect one."""

    def new_share_token(self) -> str:
        """32 URL-safe characters from 24 random bytes."""


class ScanPage(NamedTuple, Generic[T]):
    """One page of a scan. `position` is opaque; None at the end of the segment."""

    items: Sequence[T]
    position: str | None


class Observer(Protocol):
    """Metrics and log lines for operators."""

    def count(self, name: str, value: int = 1, **dimensions: str) -> None: ...

    def time(self, name: str, milliseconds: float) -> None:
        """One sample of a duration."""

    def about(self, **fields: str) -> None:
        """Put these fields into every further log line of what is handled now. Only where it is handled alone."""

    def info(self, message: str, **fields: object) -> None: ...

    def warning(self, message: str, **fields: object) -> None: ...

    def fault(self, message: str, error: BaseException, **fields: object) -> None:
        """Something unexpected. The error's text goes to the log, never to a client."""
