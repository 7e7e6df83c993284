"""Keep the values of streams for whose datasources a history is asked.

The bridge writes each value that it sends, before it sends it. The relay gathers what it sends, and writes it every
`WRITE_S` in batches, on a thread of its own.

Invariant of this file: a stream that nobody asked a history of costs nothing: no call, no thread. What the relay has
gathered is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event, Lock, Thread

from tidegate.domain.history import Point, merged, point_of
from tidegate.domain.subscriptions import MOST_TOPICS, LastValue, Stream
from tidegate.errors import Unavailable
from tidegate.ports.history import SPAN_MS, Group, HistoryStore, Series
from tidegate.ports.runtime import Clock, Observer

#: How often the relay writes, seconds. A worker that dies loses the values of so many seconds, and of the write.
WRITE_S = 5.0
#: Groups that could not be written and are tried again. Beyond that the oldest are lost.
MOST_LATE = 2000
#: How long `close` waits for the last write, seconds.
_END_S = 2.5


def point_to_keep(stream: Stream, value: LastValue, now: float) -> tuple[Series, Point, int] | None:
    """Where a value is kept: its series, its point, and when that expires, epoch seconds. None when it is not kept."""
    history = stream.history
    if history is None or now >= history.until:
        return None
    point = point_of(value.payload, value.timestamp_ms, value.seq, history.every_ms)
    # Whoever reads the oldest bucket wants the whole of it.
    expires_at = (value.timestamp_ms + history.every_ms) // 1000 + history.seconds + 1
    return Series(stream.stream_key, value.topic), point, expires_at


class KeepEach:
    """Writes each value at once. For the bridge, whose calls end with their message."""

    def __init__(self, store: Callable[[], HistoryStore], clock: Clock) -> None:
        """`store` is asked only for a stream that has a history."""
        self._store = store
        self._clock = clock

    def __call__(self, stream: Stream, value: LastValue) -> None:
        """Keep a value. Repeating changes nothing. Raises `Unavailable`."""
        if (kept := point_to_keep(stream, value, self._clock.now())) is not None:
            self._store().add(*kept)


@dataclass(slots=True)
class _Gathered:
    first_ms: int
    points: dict[int, Point]
    expires_at: int = 0


class KeepInBatches:
    """Gathers values and writes them every `WRITE_S`. For the relay. Safe to use from many threads."""

    def __init__(self, store: Callable[[], HistoryStore], clock: Clock, observer: Observer) -> None:
        """`store` is asked only for a stream that has a history."""
        self._store = store
        self._clock = clock
        self._observer = observer
        self._changing, self._writing = Lock(), Lock()
        self._ended = Event()
        self._gathered: dict[Series, _Gathered] = {}
        self._topics: dict[str, int] = {}
        self._full: list[Group] = []
        self._late: list[Group] = []
        self._thread: Thread | None = None

    def __call__(self, stream: Stream, value: LastValue) -> None:
        """Keep a value. Waits for nothing and never fails."""
        if (kept := point_to_keep(stream, value, self._clock.now())) is None:
            return
        series, point, expires_at = kept
        with self._changing:
            gathered = self._gathered.get(series)
            if gathered is None or value.timestamp_ms - gathered.first_ms >= SPAN_MS:
                if gathered is not None:
                    self._full.append(_group(series, gathered))
                elif self._topics.get(series.stream_key, 0) >= MOST_TOPICS:
                    self._observer.count("history_topics_dropped")
                    return
                else:
                    self._topics[series.stream_key] = self._topics.get(series.stream_key, 0) + 1
                gathered = self._gathered[series] = _Gathered(value.timestamp_ms, {})
            there = gathered.points.get(point.start_ms)
            gathered.points[point.start_ms] = point if there is None else merged(there, point)
            gathered.expires_at = max(gathered.expires_at, expires_at)
            if self._thread is None:
                self._thread = Thread(target=self._keep_writing, name="history", daemon=True)
                self._thread.start()

    def write(self) -> None:
        """Write what was gathered. What cannot be written is kept and tried again with what follows."""
        with self._writing:
            with self._changing:
                new = [*self._full, *(_group(series, gathered) for series, gathered in self._gathered.items())]
                self._full, self._gathered, self._topics = [], {}, {}
            groups = [*self._late, *new]
            if not groups:
                return
            try:
                for wave in _waves(groups):
                    self._store().write(wave)
                self._late = []
            except Unavailable:
                self._observer.count("history_not_written")
                self._late = groups[-MOST_LATE:]
                if lost := len(groups) - len(self._late):
                    self._observer.count("history_lost", lost)
            except Exception as error:  # a fault of ours. What follows is written all the same
                self._observer.fault("history not written", error)
                self._observer.count("history_lost", len(groups))
                self._late = []

    def close(self) -> None:
        """End. Writes what was gathered, but does not wait for longer than `_END_S`."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_END_S)

    def _keep_writing(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(WRITE_S)
            self.write()


def _waves(groups: Sequence[Group]) -> Iterator[list[Group]]:
    """Groups so that those of a series are written one after the other: whoever sees one sees those before it."""
    left = list(groups)
    while left:
        wave, later = dict[Series, Group](), list[Group]()
        for group in left:
            if group.series in wave:
                later.append(group)
            else:
                wave[group.series] = group
        yield list(wave.values())
        left = later


def _group(series: Series, gathered: _Gathered) -> Group:
    points = [gathered.points[start_ms] for start_ms in sorted(gathered.points)]
    return Group(series, gathered.first_ms, points, gathered.expires_at)
