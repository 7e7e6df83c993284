"""Frames on their way to subscriptions. Each is checked at the moment it is sent, and batched if its connection asked.

Invariant of this file (invariant 2): a frame is sent only for a row that `allowed` admits at that moment: from access
items whose read *started* at most one second ago, and with a token that has not expired. If that cannot be checked, the
frame is withheld. Every retry checks again, and of a batch only the frames that are still allowed are sent.

The same holds for a viewer who unsubscribed (invariant 17), however long a frame has waited.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from threading import Condition, Lock
from time import monotonic

from tidegate.domain.client_queues import Batch, ClientQueues, Frame, Missed
from tidegate.domain.send_quota import SMALL
from tidegate.domain.subscriptions import SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery
from tidegate.ports.runtime import Observer
from tidegate.usecases.delivery.fresh_access import FreshAccess

#: Messages that may wait for a socket. Beyond that, adding waits: so upstreams are slowed down by a sender that is
#: behind, and a stream with many viewers does not push the frames of others far back.
_ROOM = 256
#: Connections that are remembered as gone. An audience that was read earlier may name them for about a second.
_GONE = 10_000

#: Receives the work that sending leaves: the id of a connection that is gone, or who needs a catch-up. It never
#: waits for that work, so that no frame waits for it either.
Left = Callable[[str | Missed], object]


class SendQueue:
    """`ports.delivery.OutboundQueue` of frames that are all known when sending begins. For one thread.

    Attributes:
        ended: whether nothing will be added any more.
        left: the frames that `leave` gave up.
    """

    def __init__(self, queues: ClientQueues, *, access: FreshAccess, left: Left, observer: Observer) -> None:
        """`queues` hold the frames."""
        self._queues = queues
        self.left: list[Frame] = []
        self._access = access
        self._left = left
        self._observer = observer
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._outcomes: Counter[Delivery] = Counter()
        self.ended = True

    def take_outcomes(self) -> Counter[Delivery]:
        """What became of frames since the last call: how many per outcome."""
        outcomes, self._outcomes = self._outcomes, Counter()
        given_up, self._queues.given_up = self._queues.given_up, 0
        if given_up:
            self._observer.count("frames_given_up", given_up)
        held_back, self._queues.given_up_held_back = self._queues.given_up_held_back, 0
        if held_back:
            self._observer.count("frames_conflated_by_quota", held_back)
        return outcomes

    def ready(self, now: float) -> int:
        return self._queues.ready(now)

    @property
    def due(self) -> float | None:
        return self._queues.due

    def take(self, now: float) -> Batch | None:
        while (batch := self._queues.take(now)) is not None:
            if batch.connection_id not in self._gone:
                return batch
            self._drop(batch)
        return None

    def before(self, batch: Batch) -> Batch | None:
        kept = tuple(frame for frame in batch.frames if self._admits(frame))
        if len(kept) == len(batch.frames):
            return batch
        self._withhold(batch, len(batch.frames) - len(kept))
        return Batch(batch.queue_key, kept) if kept else None

    def answered(self, batch: Batch, delivery: Delivery) -> None:
        if delivery is Delivery.GONE:
            self._forget(batch.connection_id)
            self._drop(batch)
            return
        if delivery in (Delivery.THROTTLED, Delivery.FAILED, Delivery.REFUSED):
            self._again(batch.frames)
        self._outcomes[delivery] += len(batch.frames)
        self._queues.done(batch.queue_key)

    def throttled(self) -> None:
        """Nothing follows here: what the throttled message becomes, `answered` says. See `paced_queue`."""

    def refuse(self, now: float) -> None:
        """Give up what is ready, because the quota did not grant it. A catch-up follows."""
        while (batch := self.take(now)) is not None:
            self.answered(batch, Delivery.REFUSED)

    def leave(self, now: float) -> None:
        """Give up what is ready, because another sender sends the same or newer data."""
        while (batch := self.take(now)) is not None:
            self._queues.given_up_held_back += len(batch.frames)
            self.left += batch.frames
            self._queues.done(batch.queue_key)

    def replace(self, frames: Iterable[Frame]) -> None:
        """Add frames, each of which takes the place of older data that waits."""
        self._queues.held_back = True
        for frame in frames:
            self._queues.add(frame)

    def _admits(self, frame: Frame) -> bool:
        try:
            if self._access.allows(frame.row):
                return True
        except Unavailable:
            self._observer.count("withheld_unchecked")
            self._again([frame])
            return False
        if not self._access.named(frame.row):
            # Most likely the viewer has left. But an index may also forget a row for a moment. The catch-up reads the
            # row itself.
            self._again([frame])
        return False

    def _withhold(self, batch: Batch, count: int) -> None:
        """Count `count` frames of the batch as withheld. If that is all of them, the batch is done."""
        self._outcomes[Delivery.WITHHELD] += count
        if count == len(batch.frames):
            self._queues.done(batch.queue_key)

    def _again(self, frames: Iterable[Frame]) -> None:
        """Leave the frames' rows to a catch-up. It sends the newest value and status, which may be newer than these."""
        missed: dict[SubscriptionKey, Missed] = {}
        for frame in frames:
            missed[frame.row.key] = Missed.of(frame).along_with(missed.get(frame.row.key))
        for leftover in missed.values():
            self._left(leftover)

    def _forget(self, connection_id: str) -> None:
        if connection_id not in self._gone:
            self._left(connection_id)
        self._gone[connection_id] = None
        if len(self._gone) > _GONE:
            self._gone.popitem(last=False)

    def _drop(self, batch: Batch) -> None:
        self._outcomes[Delivery.GONE] += len(batch.frames) + len(self._queues.drop(batch.queue_key))
        self._queues.done(batch.queue_key)


class SharedSendQueue(SendQueue):
    """The queue of a background sender: many threads add frames while one thread sends them."""

    def __init__(
        self,
        queues: ClientQueues,
        *,
        access: FreshAccess,
        left: Left,
        may_send: Callable[[], bool],
        wake: Callable[[], None],
        observer: Observer,
    ) -> None:
        """
        Args:
            may_send: called before every send and every retry. A relay worker that lost its lease sends nothing more.
            wake: tells the sender that frames were added, or that none will be added any more.
        """
        super().__init__(queues, access=access, left=left, observer=observer)
        self._may_send = may_send
        self._wake = wake
        self._changed = Condition(Lock())
        self._answers = 0  # messages that were answered
        self._awaited = False  # somebody waits until it is empty
        self.ended = False

    # --- adding -------------------------------------------------------------------------------------------

    def add(self, frames: Iterable[Frame]) -> None:
        """Add frames to be sent. Never waits."""
        with self._changed:
            for frame in frames:
                self._queues.add(frame)
        self._wake()

    def wait_for_room(self) -> None:
        """Wait while the sender as a whole is behind. One slow viewer does not make it wait.

        It does not wait for the quota where newer data takes the place of older data: no more waits then than one value
        for each viewer, and a crowded stream would make the others wait with it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.ended or self._queues.waiting <= _ROOM or self._queues.replaces)

    def wait_until_empty(self, idle_s: float, most_s: float) -> bool:
        """Wait until every frame was sent, withheld or given up.

        It goes on while messages are answered: a sender that is behind is waited for, and a viewer who does not answer
        is not. False when nothing was answered for `idle_s`, or `most_s` were not enough.
        """
        deadline = monotonic() + most_s
        with self._changed:
            while not self._queues.empty:
                answers, left_s = self._answers, min(idle_s, deadline - monotonic())
                self._awaited = True
                went_on = self._changed.wait_for(lambda n=answers: self._queues.empty or self._answers > n, left_s)  # type: ignore[misc]
                if not went_on:
                    break
            self._awaited = False
            return self._queues.empty

    def end(self) -> None:
        """Say that nothing will be added any more."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()
        self._wake()

    def hold_back(self, held: bool) -> None:
        """Say whether nothing may be sent now, because the quota is used up. Then newer data takes the place of older
        data, if the queues conflate at all."""
        with self._changed:
            self._queues.held_back = held
            self._changed.notify_all()

    def take_outcomes(self) -> Counter[Delivery]:
        with self._changed:
            return super().take_outcomes()

    # --- sending ------------------------------------------------------------------------------------------

    def ready(self, now: float) -> int:
        with self._changed:
            return self._queues.ready(now)

    def newcomers(self) -> int:
        """How many sends bring each stream that became ready lately its first message: as many as a small ask may be
        for. 0 when there is none."""
        with self._changed:
            return self._queues.newcomers(SMALL)

    @property
    def due(self) -> float | None:
        with self._changed:
            return self._queues.due

    def take(self, now: float) -> Batch | None:
        with self._changed:
            batch = super().take(now)
            self._notify_waiting()
            return batch

    def answered(self, batch: Batch, delivery: Delivery) -> None:
        with self._changed:
            super().answered(batch, delivery)
            self._answers += 1
            self._notify_waiting()

    def _admits(self, frame: Frame) -> bool:
        """Not under the lock, because access items may have to be read."""
        if not super()._admits(frame):
            return False
        if not self._may_send():
            self._again([frame])
            return False
        return True

    def _withhold(self, batch: Batch, count: int) -> None:
        with self._changed:
            super()._withhold(batch, count)
            self._notify_waiting()

    def _notify_waiting(self) -> None:
        if self._awaited or self._queues.empty or self._queues.waiting <= _ROOM:
            self._changed.notify_all()
