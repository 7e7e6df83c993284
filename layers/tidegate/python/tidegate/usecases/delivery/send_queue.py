"""Frames on their way: each leaves for whoever may have it at that moment, batched where the connection asked.

Invariant of this file (invariant 2 of the product): a frame leaves only to a row that `allowed` admitted from access
items whose read *started* at most one second ago, and whose token has not expired at that moment. An answer that
cannot be had withholds the frame. Every retry asks again, and of a batch only the frames still allowed are sent.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from threading import Condition, Lock

from tidegate.domain.client_queues import Batch, ClientQueues, Frame
from tidegate.domain.subscriptions import Subscription
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery, OutboundMessage
from tidegate.ports.runtime import Observer
from tidegate.usecases.delivery.fresh_access import FreshAccess

#: Messages that may wait for a socket before whoever adds more is made to wait: the sources feel a sender that is
#: behind, and a crowded stream does not push the others' frames far back.
_ROOM = 256
#: Connections remembered as gone: an audience read before may name them for a second or so.
_GONE = 10_000


class SendQueue:
    """`ports.delivery.OutboundQueue`. Frames may be added from many threads; one sender sends them.

    Attributes:
        leftovers: what sending leaves to be done: ids of connections that are gone, and rows whose newest value is to
            be tried again. Whoever works on them keeps no frame waiting.
    """

    def __init__(
        self,
        *,
        access: FreshAccess,
        queues: ClientQueues,
        may_send: Callable[[], bool],
        wake: Callable[[], None],
        observer: Observer,
    ) -> None:
        """`may_send` is asked before every send and every retry: a relay that lost its lease sends nothing more."""
        self._access = access
        self._queues = queues
        self._may_send = may_send
        self._wake = wake
        self._observer = observer
        self._changed = Condition(Lock())
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._outcomes: Counter[Delivery] = Counter()
        self.failures: SimpleQueue[str | Subscription | None] = SimpleQueue()
        self.ended = False

    # --- adding -------------------------------------------------------------------------------------------

    def add(self, frames: Iterable[Frame]) -> None:
        """Have them sent. Never waits."""
        with self._changed:
            for frame in frames:
                self._queues.add(frame)
        self._wake()

    def wait_for_room(self) -> None:
        """Wait while the sender is behind. A viewer that is slow does not count."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or self._queues.waiting <= _ROOM)

    def wait_until_empty(self, seconds: float) -> bool:
        """Whether all that was added is sent, withheld or given up, within `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._queues.empty, seconds)

    def end(self) -> None:
        """Nothing is added any more."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()
        self._wake()

    def take_outcomes(self) -> Counter[Delivery]:
        """What became of frames since this was last asked: how many per outcome."""
        with self._changed:
            outcomes, self._outcomes = self._outcomes, Counter()
            given_up, self._queues.given_up = self._queues.given_up, 0
        if given_up:
            self._observer.count("frames_given_up", given_up)
        return outcomes

    # --- sending ------------------------------------------------------------------------------------------

    def ready(self, now: float) -> int:
        with self._changed:
            return self._queues.ready(now)

    @property
    def due(self) -> float | None:
        with self._changed:
            return self._queues.due

    def take(self, now: float) -> OutboundMessage | None:
        with self._changed:
            while (batch := self._queues.take(now)) is not None:
                if batch.connection_id not in self._gone:
                    self._notify_waiting()
                    return OutboundMessage(batch.connection_id, batch.body, batch)
                self._drop(batch)
            self._notify_waiting()
        return None

    def before(self, post: OutboundMessage) -> OutboundMessage | None:
        batch = _sending(post)
        kept = tuple(frame for frame in batch.frames if self._admits(frame))
        if len(kept) == len(batch.frames):
            return post
        with self._changed:
            self._outcomes[Delivery.WITHHELD] += len(batch.frames) - len(kept)
            if not kept:
                self._queues.done(batch.queue_key)
                self._notify_waiting()
                return None
        smaller = Batch(batch.queue_key, kept)
        return OutboundMessage(post.connection_id, smaller.body, smaller)

    def answered(self, post: OutboundMessage, delivery: Delivery) -> None:
        batch = _sending(post)
        if delivery in (Delivery.THROTTLED, Delivery.FAILED):
            self._again(batch.frames)
        with self._changed:
            if delivery is Delivery.GONE:
                self._forget(post.connection_id)
                self._drop(batch)
            else:
                self._outcomes[delivery] += len(batch.frames)
                self._queues.done(batch.queue_key)
            self._notify_waiting()

    def _admits(self, frame: Frame) -> bool:
        try:
            if self._access.allows(frame.row):
                if self._may_send():
                    return True
                self._again([frame])
        except Unavailable:
            self._observer.count("withheld_unchecked")
            self._again([frame])
        return False

    def _again(self, frames: Iterable[Frame]) -> None:
        """A stream's newest value is always tried again; by then it may be a newer one."""
        for row in {frame.row.key: frame.row for frame in frames}.values():
            self.failures.put(row)

    def _forget(self, connection_id: str) -> None:
        if connection_id not in self._gone:
            self.failures.put(connection_id)
        self._gone[connection_id] = None
        if len(self._gone) > _GONE:
            self._gone.popitem(last=False)

    def _drop(self, batch: Batch) -> None:
        self._outcomes[Delivery.GONE] += len(batch.frames) + len(self._queues.drop(batch.queue_key))
        self._queues.done(batch.queue_key)

    def _notify_waiting(self) -> None:
        if self._queues.empty or self._queues.waiting <= _ROOM:
            self._changed.notify_all()


def _sending(post: OutboundMessage) -> Batch:
    assert isinstance(post.tag, Batch)
    return post.tag
