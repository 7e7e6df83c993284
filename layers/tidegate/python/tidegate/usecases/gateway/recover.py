"""What came while a viewer was away: the points since the last value that the viewer has.

Two parts. At the subscribe, `Recover.at_once` sends what is in the history by then. Some seconds later a catch-up
sends what came until the viewer was surely in the audience, by `Recover.the_rest`, and says with `end` whether that is
all.

Invariant of this file: after a frame with `end` and `recovered`, every value since the one that the viewer named is in
the points that were sent, or is sent as `data`. Points may be sent twice, and may come after newer `data`. A point
stands for all values of its bucket up to its `seq`, so neither does harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tidegate.domain.history import History, Point, Recovering, ms_of
from tidegate.domain.subscriptions import LastValue, Stream
from tidegate.ports.history import HistoryStore, Series
from tidegate.ports.runtime import Clock
from tidegate.protocol import messages
from tidegate.usecases.gateway.stream_history import points_of

#: Most topics whose points are sent, and about how many bytes of points. For more, the viewer reads the history itself.
MOST_RECOVERED, MOST_BYTES = 10, 96_000
#: Bytes of points in a frame, so that it stays within one message of 32 KB.
_FRAME_BYTES = 20_000
#: How long after a history began, or an upstream was connected, whoever keeps values may not know of it, seconds.
_KNOWN_S = 3
#: How long after a value others may keep an older one, milliseconds: as long as a call of the bridge may take.
LATE_MS = 30_000
#: How often a catch-up looks for what the relay has gathered and not written. Each look is three seconds later, and the
#: relay writes every five.
MOST_LOOKS = 4


@dataclass(frozen=True, slots=True)
class Recovered:
    """Frames to be sent, each with its topic, the oldest first.

    Attributes:
        left: what the next catch-up has to know.
        ended: whether there is none.
    """

    frames: Sequence[tuple[str | None, bytes]]
    left: Recovering
    ended: bool = False


class Recover:
    """Sends the points that a viewer missed."""

    def __init__(self, history: HistoryStore, clock: Clock) -> None:
        self._history = history
        self._clock = clock

    def at_once(
        self, datasource_id: str, stream: Stream, asked: History, since: str, newest: Sequence[LastValue]
    ) -> Recovered:
        """What is in the history by now.

        Args:
            stream: as it was stored when the row was not visible yet.
            asked: the history that the datasource asks for.
            since: the `seq` of the newest value that the viewer has.
            newest: the last values of the stream, read after the row became visible.

        Raises:
            Unavailable: the store did not answer.
        """
        left = Recovering(asked.seconds, asked.every_ms, since, recovered=_reaches(stream, asked, since, self._clock))
        found, _ = self._read(datasource_id, stream.stream_key, left, _marks(newest, since))
        return found

    def the_rest(self, datasource_id: str, stream_key: str, left: Recovering, newest: Sequence[LastValue]) -> Recovered:
        """What came since, and the end. While the history does not have it all, nothing: another catch-up looks.

        Args:
            newest: the last values of the stream, read when the viewer is in the audience.

        Raises:
            Unavailable: the store did not answer.
        """
        left = replace(left, marks=left.marks or _marks(newest, left.since))
        found, whole = self._read(datasource_id, stream_key, left, left.marks)
        if not whole and left.looks < MOST_LOOKS:
            return Recovered([], replace(left, looks=left.looks + 1))
        recovered = found.left.recovered and whole
        end = messages.history(datasource_id, [], self._clock.now(), recovered=recovered)
        return Recovered([*found.frames, (None, end)], replace(found.left, recovered=recovered), ended=True)

    def _read(
        self, datasource_id: str, stream_key: str, left: Recovering, marks: Mapping[str, str]
    ) -> tuple[Recovered, bool]:
        """What the viewer has not been sent of the topics of `marks`, and whether it goes up to them."""
        frames: list[tuple[str | None, bytes]] = []
        sent, recovered, whole = dict(left.sent), left.recovered, True
        if len(marks) > MOST_RECOVERED:
            return Recovered([], replace(left, recovered=False)), True
        for name, mark in marks.items():
            topic = name or None
            points, before = points_of(
                self._history,
                Series(stream_key, topic),
                History(left.seconds, left.every_ms),
                self._clock.now(),
                since=_from(left, name),
                most_bytes=MOST_BYTES // len(marks),
                consistent=True,
            )
            recovered = recovered and before is None
            whole = whole and bool(points) and points[0].seq >= mark
            if points:
                sent[name] = points[0].seq
            frames += [
                (topic, messages.history(datasource_id, part, self._clock.now(), topic=topic))
                for part in _parts(points)
            ]
        return Recovered(frames, replace(left, sent=sent, recovered=recovered)), whole


def _marks(newest: Sequence[LastValue], since: str) -> dict[str, str]:
    """Topic, or `""`, to the `seq` of its newest value, of those that have news."""
    return {value.topic or "": value.seq for value in newest if value.seq > since}


def _from(left: Recovering, name: str) -> str:
    """From where on points are read. What a call keeps late is older than what was sent, so a little is read again."""
    sent = left.sent.get(name)
    return left.since if sent is None else max(left.since, f"{max(0, ms_of(sent) - LATE_MS):015d}")


def _reaches(stream: Stream, asked: History, since: str, clock: Clock) -> bool:
    """Whether all that came since is in the history, as far as anybody knows."""
    kept, since_s = stream.history, ms_of(since) / 1000
    if kept is None or since_s < max(clock.now() - asked.seconds, kept.since + _KNOWN_S):
        return False
    if not stream.relayed:
        return True
    # While it was not connected, or by another worker that died, values may have been missed.
    return stream.connected and stream.connected_at is not None and since_s >= stream.connected_at


def _parts(points: Sequence[Point]) -> Iterator[list[str]]:
    """Points as text, the oldest first, in parts that fit into a frame."""
    part, size = list[str](), 0
    for point in reversed(points):
        text = point.encode()
        length = len(text.encode("utf-8", "replace"))
        if part and size + length > _FRAME_BYTES:
            yield part
            part, size = [], 0
        part.append(text)
        size += length + 1
    if part:
        yield part
