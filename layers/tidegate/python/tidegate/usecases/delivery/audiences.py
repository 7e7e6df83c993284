"""Who is subscribed to a stream, read a moment ago. Safe to use from many threads.

A frame may wait: behind a message that is under way, for its window, or to be tried again. Meanwhile its viewer may
have unsubscribed. So when it leaves, the audience is asked again, not the one it was made for.

Invariant of this file: a reading is used for `AUDIENCE_S` from its start, and longer only when it is large: otherwise
an audience that takes a second to read and to send to could not be delivered to at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from tidegate.domain.crowds import Audience
from tidegate.domain.subscriptions import Subscription, SubscriptionKey
from tidegate.ports.runtime import Clock

#: How long a reading of an audience is used, seconds. What is left of a second is for the lag of the index and for the
#: way to the viewer. So a second after the `ack` of an unsubscribe nothing more of it arrives.
AUDIENCE_S = 0.8
#: A reading of more rows than this is used for longer: by so many seconds for each row above it. A thousand rows are
#: read in 50 ms or less, and sent to in 100 to 200 ms (docs/operations/performance.md, the bulk sender).
_SMALL = 2000
_ROW_S = 0.0002


@dataclass(frozen=True, slots=True)
class Reading:
    """The audience of a stream. `until`: when it is too old, monotonic seconds. `whole`: see `Audience`."""

    until: float
    rows: Mapping[SubscriptionKey, Subscription]
    whole: bool = True

    def names(self, row: Subscription) -> bool:
        """Whether the row is there, written by the same subscribe."""
        there = self.rows.get(row.key)
        return there is row or (there is not None and there.generation == row.generation)


class Audiences:
    """Audiences by stream."""

    def __init__(self, read: Callable[[str], Audience], clock: Clock) -> None:
        """`read` reads the live rows of a stream; see `ports.gateway.SubscriptionStore.audience`."""
        self.read = read
        self._clock = clock
        self._changing = Lock()
        self._kept: dict[str, Reading] = {}

    def of(self, stream_key: str) -> Sequence[Subscription]:
        """The audience of a stream, as far as it is read. Raises `Unavailable`."""
        return list(self._reading(stream_key).rows.values())

    def whole(self, stream_key: str) -> bool:
        """Whether the audience is read as a whole. Raises `Unavailable`."""
        return self._reading(stream_key).whole

    def _reading(self, stream_key: str) -> Reading:
        started = self._clock.monotonic()
        kept = self._kept.get(stream_key)
        if kept is None or kept.until <= started:
            audience = self.read(stream_key)
            rows = {row.key: row for row in audience.rows}
            kept = Reading(started + AUDIENCE_S + max(0, len(rows) - _SMALL) * _ROW_S, rows, audience.whole)
            with self._changing:
                self._kept = {key: reading for key, reading in self._kept.items() if reading.until > started}
                self._kept[stream_key] = kept
        return kept

    def kept(self, row: Subscription) -> Reading | None:
        """The last reading of the row's stream, however old. Asks no store."""
        return self._kept.get(row.stream_key)
