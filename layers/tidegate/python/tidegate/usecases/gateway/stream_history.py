"""Read the points of a series as one datasource asks for them."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.domain.history import History, Point, ms_of, newest_points
from tidegate.ports.history import SPAN_MS, HistoryStore, Series

#: Later than any moment, epoch milliseconds: 15 digits.
_NEVER_MS = 10**15 - 1


def points_of(
    store: HistoryStore,
    series: Series,
    asked: History,
    now: float,
    *,
    since: str | None = None,
    before_ms: int | None = None,
    most_bytes: int | None = None,
    consistent: bool = False,
) -> tuple[Sequence[Point], int | None]:
    """Points of the last `asked.seconds`, the newest first, and the `before_ms` that brings what is before them.

    Args:
        asked: of the datasource whose viewer asks, whatever is kept for others.
        now: epoch seconds.
        since: only buckets with something newer than this `seq`. A bucket is whole, also the one that it is in.
        before_ms: only buckets that begin before this, epoch milliseconds.
        most_bytes: see `newest_points`.
        consistent: see `HistoryStore.read`.

    Raises:
        ValueError: `since` is no `seq`.
        Unavailable: the store did not answer.
    """
    every_ms = asked.every_ms
    oldest_ms = max(0, int(now * 1000) - asked.seconds * 1000, 0 if since is None else ms_of(since))
    oldest_ms -= oldest_ms % every_ms
    if before_ms is not None:
        before_ms -= before_ms % every_ms
    # A bucket of others may begin a little earlier than the one of this datasource that it is counted to, and a group
    # has values of some seconds.
    pieces = store.read(
        series,
        oldest_ms - every_ms - SPAN_MS,
        _NEVER_MS if before_ms is None else before_ms + every_ms,
        consistent=consistent,
    )
    wanted = (piece for piece in pieces if piece.start_ms - piece.start_ms % every_ms >= oldest_ms)
    points, next_ms = newest_points(wanted, every_ms, before_ms=before_ms, most_bytes=most_bytes)
    return [point for point in points if since is None or point.seq > since], next_ms
