"""What keeps and shows the short history of streams.

Conventions: see `ports.runtime`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tidegate.domain.history import Point


#: The longest time from the first value of a group to its last, milliseconds.
SPAN_MS = 15_000


@dataclass(frozen=True, slots=True)
class Series:
    """Whose points they are: a stream's, or those of a topic of a stream that has many; else `topic` is None."""

    stream_key: str
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Points of a series that one writer writes together.

    Attributes:
        first_ms: when the first of their values was, epoch milliseconds. No two groups of a series have the same.
        points: of different buckets, in order.
        expires_at: epoch seconds.
    """

    series: Series
    first_ms: int
    points: Sequence[Point]
    expires_at: int


class HistoryStore(Protocol):
    """Points of series. Those of one bucket are put together when they are read."""

    def add(self, series: Series, point: Point, expires_at: int) -> None:
        """Put one value into its bucket, for writers that know nothing of each other. Repeating changes nothing.

        `expires_at`: epoch seconds. Raises `Unavailable`: it is not known whether it was written.
        """

    def write(self, groups: Sequence[Group]) -> None:
        """Write groups of the only writer of their series. Repeating changes nothing.

        Raises `Unavailable`: some may be written.
        """

    def read(self, series: Series, from_ms: int, to_ms: int, *, consistent: bool = False) -> Iterator[Point]:
        """What was written in groups, or buckets, that begin from one moment to the other, the newest first.

        Once a piece of an older bucket has come, no newer bucket has more. The store is asked page by page. Without
        `consistent` what was written a moment ago may be missing, and the read costs half. Raises `Unavailable`.
        """
