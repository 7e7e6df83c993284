"""Frames on their way to viewers: what waits for whom, and what goes next. No I/O, no clock, no lock.

Each subscription has a queue of its own. A connection that asked for batch frames has one queue for all of its
subscriptions. At most one message of a queue is under way, so a viewer that is slow keeps nobody else waiting. Among
queues that are ready, dashboards take turns, then streams, then clients (`fair_order`).

Invariant of this file: the frames of a queue leave in the order they came, each once. A frame that is given up is
followed by a newer frame of the same queue.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tidegate.domain.fair_order import FairOrder, Place
from tidegate.domain.subscriptions import TOLD_ALL, CatchUpRequest, Subscription, SubscriptionKey
from tidegate.protocol import batches

#: Least time between two messages to a connection that asked for batch frames, seconds. It matches the default of
#: REALTIME_MAX_UPDATES_PER_SECOND, ten a second. The first message after a pause leaves at once.
WINDOW_S = 0.1
#: Bytes that may wait in a queue. Beyond that the oldest frames are given up. It is eight of the largest frames.
KEPT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """One encoded frame for one subscription.

    Attributes:
        is_data: a newer frame of the subscription and topic may take its place.
        topic: of the value, of a stream that has many.
    """

    row: Subscription
    body: bytes
    is_data: bool
    topic: str | None = None

    @property
    def queue_key(self) -> Hashable:
        return self.row.key.connection_id if self.row.batch else self.row.key


@dataclass(frozen=True, slots=True)
class Missed:
    """A subscription that could not be sent its frames.

    Attributes:
        status: not all of them were data.
        topics: of those that were; `""` stands for a stream without topics. None when it may be any.
    """

    row: Subscription
    status: bool
    topics: frozenset[str] | None = None

    @classmethod
    def of(cls, frame: Frame) -> Missed:
        """What is missed with a frame."""
        return cls(frame.row, not frame.is_data, frozenset([frame.topic or ""] if frame.is_data else []))

    def along_with(self, other: Missed | None) -> Missed:
        """What is missed by both, which are of one row."""
        if other is None:
            return self
        topics = None if self.topics is None or other.topics is None else self.topics | other.topics
        return Missed(self.row, self.status or other.status, topics)

    def request(self) -> CatchUpRequest:
        """The catch-up that sends what takes their place."""
        row, told = self.row, None if self.status else TOLD_ALL
        return CatchUpRequest(row.key, row.generation, row.stream_key, told=told, topics=self.topics)


class Batch:
    """The frames of one message, and the message itself. It is a `ports.delivery.Sendable`.

    Attributes:
        queue_key: the key of the queue the frames come from.
        frames: one or more, all for one connection.
        connection_id: the connection it is for.
        body: the bytes that are sent.
    """

    __slots__ = ("body", "connection_id", "frames", "queue_key")

    def __init__(self, queue_key: Hashable, frames: tuple[Frame, ...]) -> None:
        self.queue_key = queue_key
        self.frames = frames
        self.connection_id = frames[0].row.key.connection_id
        self.body = batches.joined([frame.body for frame in frames])


@dataclass(slots=True)
class _ClientQueue:
    """What waits for one client.

    Attributes:
        batch: several frames may share a message.
        place: whose turn it takes: that of its first frame's stream.
        waiting: the frames, in their order, by a number that grows.
        series: the numbers of data that waits, by subscription and topic, where newer data takes the place of older.
        size: bytes that wait.
        busy: a message is under way.
        listed: the queue is among the ready ones, or in the heap of those that become ready later.
        not_before: when the next message may leave.
    """

    batch: bool
    place: Place
    waiting: OrderedDict[int, Frame] = field(default_factory=OrderedDict)
    series: dict[tuple[SubscriptionKey, str | None], deque[int]] = field(default_factory=dict)
    size: int = 0
    busy: bool = False
    listed: bool = False
    not_before: float = float("-inf")


def in_rooms(groups: Iterable[Sequence[Frame]]) -> Iterator[list[Sequence[Frame]]]:
    """Put groups of frames together, as many as can wait at the same time without any being given up.

    A group is not cut: it is a value for all viewers. Half of the room is left for values that take their place.
    """
    together: list[Sequence[Frame]] = []
    sizes: Counter[Hashable] = Counter()
    for group in groups:
        added: Counter[Hashable] = Counter()
        for frame in group:
            added[frame.queue_key] += len(frame.body)
        if together and any(sizes[key] + size > KEPT_BYTES // 2 for key, size in added.items()):
            yield together
            together, sizes = [], Counter()
        together.append(group)
        sizes += added
    if together:
        yield together


class ClientQueues:
    """All queues. Times are seconds of one clock that never jumps."""

    def __init__(self, *, conflate: bool = False, window_s: float = 0.0) -> None:
        """
        Args:
            conflate: of the data of a topic that waits for a slow viewer, or while everything is held back, only the
                newest is kept. Else all of it is, up to `KEPT_BYTES`.
            window_s: least time between two messages to a connection that asked for batch frames, seconds. See
                `WINDOW_S`.
        """
        self._conflate = conflate
        self._window_s = window_s
        self._queues: dict[Hashable, _ClientQueue] = {}
        self._ready = FairOrder()
        self._later: list[tuple[float, int, Hashable]] = []
        self._listings = 0
        self._places = 0
        self.given_up = 0
        self.given_up_held_back = 0
        #: The sender may not send now, because the quota is used up.
        self.held_back = False

    def ready(self, now: float) -> int:
        """How many queues have a message that may leave now."""
        while self._later and self._later[0][0] <= now:
            key = heapq.heappop(self._later)[2]
            self._ready.add(key, self._queues[key].place)
        return len(self._ready)

    def newcomers(self, most: int) -> int:
        """How many messages bring each stream that became ready lately its first one. See `FairOrder.newcomers`."""
        return self._ready.newcomers(most)

    @property
    def waiting(self) -> int:
        """How many queues wait for nothing but the sender."""
        return len(self._ready)

    @property
    def replaces(self) -> bool:
        """Everything is held back, and newer data takes the place of older data meanwhile."""
        return self._conflate and self.held_back

    @property
    def empty(self) -> bool:
        """Nothing waits, and nothing is under way."""
        return not self._queues

    @property
    def due(self) -> float | None:
        """When the next queue becomes ready by time alone. None when none will."""
        return self._later[0][0] if self._later else None

    def add(self, frame: Frame) -> None:
        queue = self._queues.get(frame.queue_key)
        if queue is None:
            queue = self._queues[frame.queue_key] = _ClientQueue(
                frame.row.batch, (frame.row.key.dashboard_id, frame.row.stream_key)
            )
        if self._conflate and frame.is_data:
            places = queue.series.setdefault((frame.row.key, frame.topic), deque())
            while places and (queue.busy or self.held_back):
                self._give_up(queue, queue.waiting.pop(places.popleft()))
            places.append(self._places)
        queue.waiting[self._places] = frame
        self._places += 1
        queue.size += len(frame.body)
        while queue.size > KEPT_BYTES and len(queue.waiting) > 1:
            self._give_up(queue, self._first(queue))
        self._list(frame.queue_key, queue)

    def take(self, now: float) -> Batch | None:
        """The next message. Its queue is busy until `done`."""
        while self.ready(now):
            key = self._ready.take()
            queue = self._queues[key]
            queue.listed = False
            if not queue.waiting:  # it was kept only until its window had passed
                del self._queues[key]
                continue
            count = batches.fitting(len(frame.body) for frame in queue.waiting.values()) if queue.batch else 1
            frames = tuple(self._first(queue) for _ in range(count))
            queue.size -= sum(len(frame.body) for frame in frames)
            queue.busy = True
            if queue.batch and self._window_s:
                queue.not_before = now + self._window_s
            return Batch(key, frames)
        return None

    def done(self, key: Hashable) -> None:
        """The queue's message is no longer under way."""
        queue = self._queues[key]
        queue.busy = False
        if queue.waiting or queue.not_before > float("-inf"):
            self._list(key, queue)
        else:
            del self._queues[key]

    def drop(self, key: Hashable) -> list[Frame]:
        """Empty a queue that is busy. Returns the frames that waited."""
        queue = self._queues[key]
        waiting = list(queue.waiting.values())
        queue.waiting.clear()
        queue.series.clear()
        queue.size = 0
        return waiting

    def _list(self, key: Hashable, queue: _ClientQueue) -> None:
        if queue.busy or queue.listed:
            return
        queue.listed = True
        if queue.not_before > float("-inf"):
            self._listings += 1
            heapq.heappush(self._later, (queue.not_before, self._listings, key))
        else:
            self._ready.add(key, queue.place)

    def _first(self, queue: _ClientQueue) -> Frame:
        """Take the frame that has waited longest out of the queue."""
        _, frame = queue.waiting.popitem(last=False)
        if self._conflate and frame.is_data:
            series = frame.row.key, frame.topic
            queue.series[series].popleft()
            if not queue.series[series]:
                del queue.series[series]
        return frame

    def _give_up(self, queue: _ClientQueue, frame: Frame) -> None:
        queue.size -= len(frame.body)
        if self.held_back:
            self.given_up_held_back += 1
        else:
            self.given_up += 1
