"""Frames on their way to viewers: what waits for whom, and what goes next. No I/O, no clock, no lock.

A subscription's frames are a line of their own; a connection that asked for batch frames has one line for all of its
subscriptions. At most one message of a line is under way, so a viewer that is slow keeps nobody else waiting.

Invariant of this file: the frames of a line leave in the order they came, each once; what is given up is followed by a
newer frame of the same line.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from tidegate.domain.subscriptions import Subscription
from tidegate.protocol import batches

#: Between two messages to a connection that asked for batch frames, seconds: as fine as the default of
#: REALTIME_MAX_UPDATES_PER_SECOND, and the first one after a pause leaves at once.
WINDOW_S = 0.1
#: What may wait in a line, bytes; beyond it the oldest frames are given up. Eight of the largest frames there are.
KEPT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """One encoded frame for one subscription. `is_data`: a newer one of the same subscription may take its place."""

    row: Subscription
    body: bytes
    is_data: bool

    @property
    def queue_key(self) -> Hashable:
        return self.row.key.connection_id if self.row.batch else self.row.key


@dataclass(frozen=True, slots=True)
class Batch:
    """What one message carries."""

    queue_key: Hashable
    frames: tuple[Frame, ...]

    @property
    def connection_id(self) -> str:
        return self.frames[0].row.key.connection_id

    @property
    def body(self) -> bytes:
        return batches.joined([frame.body for frame in self.frames])


@dataclass(slots=True)
class _ClientQueue:
    """`busy`: a message is under way. `not_before`: when the next may leave. `listed`: it is ready, or in the heap."""

    batch: bool
    waiting: deque[Frame] = field(default_factory=deque)
    size: int = 0
    busy: bool = False
    listed: bool = False
    not_before: float = float("-inf")


class ClientQueues:
    """All lines. Times are seconds of one clock that never jumps."""

    def __init__(self, *, conflate: bool, window_s: float = WINDOW_S) -> None:
        """`conflate`: what waits behind a slow viewer gives way to what is newer; else it is kept, up to a bound."""
        self._conflate = conflate
        self._window_s = window_s
        self._queues: dict[Hashable, _ClientQueue] = {}
        self._ready: deque[Hashable] = deque()
        self._later: list[tuple[float, int, Hashable]] = []
        self._listings = 0
        self.given_up = 0

    def ready(self, now: float) -> int:
        """Lines whose next message may leave."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        return len(self._ready)

    @property
    def waiting(self) -> int:
        """Lines that wait for nothing but the sender."""
        return len(self._ready)

    @property
    def empty(self) -> bool:
        """Nothing waits, and nothing is under way."""
        return not self._queues

    @property
    def due(self) -> float | None:
        """When a line becomes ready by time alone; None when none will."""
        return self._later[0][0] if self._later else None

    def add(self, frame: Frame) -> None:
        queue_key = self._queues.get(frame.queue_key)
        if queue_key is None:
            queue_key = self._queues[frame.queue_key] = _ClientQueue(frame.row.batch)
        if self._conflate and queue_key.busy and frame.is_data:
            self._drop_older(queue_key, frame)
        queue_key.waiting.append(frame)
        queue_key.size += len(frame.body)
        while queue_key.size > KEPT_BYTES and len(queue_key.waiting) > 1:
            self._give_up(queue_key, queue_key.waiting.popleft())
        self._list(frame.queue_key, queue_key)

    def take(self, now: float) -> Batch | None:
        """The next message; its line is busy until `done`."""
        while self.ready(now):
            key = self._ready.popleft()
            queue_key = self._queues[key]
            queue_key.listed = False
            if not queue_key.waiting:  # only its window had to pass
                del self._queues[key]
                continue
            count = batches.fitting(len(frame.body) for frame in queue_key.waiting) if queue_key.batch else 1
            frames = tuple(queue_key.waiting.popleft() for _ in range(count))
            queue_key.size -= sum(len(frame.body) for frame in frames)
            queue_key.busy = True
            if queue_key.batch:
                queue_key.not_before = now + self._window_s
            return Batch(key, frames)
        return None

    def done(self, key: Hashable) -> None:
        """The line's message is under way no more."""
        queue_key = self._queues[key]
        queue_key.busy = False
        if queue_key.waiting or queue_key.not_before > float("-inf"):
            self._list(key, queue_key)
        else:
            del self._queues[key]

    def drop(self, key: Hashable) -> list[Frame]:
        """Forget what waits in a line, which is busy. Returns it."""
        queue_key = self._queues[key]
        waiting = list(queue_key.waiting)
        queue_key.waiting.clear()
        queue_key.size = 0
        return waiting

    def _list(self, key: Hashable, queue_key: _ClientQueue) -> None:
        if queue_key.busy or queue_key.listed:
            return
        queue_key.listed = True
        if queue_key.not_before > float("-inf"):
            self._listings += 1
            heapq.heappush(self._later, (queue_key.not_before, self._listings, key))
        else:
            self._ready.append(key)

    def _drop_older(self, queue_key: _ClientQueue, newer: Frame) -> None:
        older = [one for one in queue_key.waiting if one.is_data and one.row.key == newer.row.key]
        if older:
            queue_key.waiting = deque(
                one for one in queue_key.waiting if not (one.is_data and one.row.key == newer.row.key)
            )
            for frame in older:
                self._give_up(queue_key, frame)

    def _give_up(self, queue_key: _ClientQueue, frame: Frame) -> None:
        queue_key.size -= len(frame.body)
        self.given_up += 1
