"""A queue whose messages leave no faster than the send quota allows.

Invariant of this file: a message leaves only on a send that the quota granted at most `_GRANT_S` ago, and each grant is
for one message. If the quota cannot be asked, nothing leaves until it can: the messages wait, and newer values take
their place.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Generic, Protocol

from tidegate.domain.send_quota import SMALL, SendQuota, left_ms
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery, M, OutboundQueue, SendQuotaStore
from tidegate.ports.runtime import Clock, Observer

#: How long sends that were granted may be used, seconds. Unused ones are lost.
_GRANT_S = 1.0
#: A sender that goes on evenly asks so often in a second, not for each message.
_ASKS = 5
#: How long one ask may take, seconds. Meanwhile the sender does nothing else.
_ASK_S = 0.5
#: After an ask that failed, the quota is asked again after so many seconds.
_FAILED_S = 0.25
#: A sender that was refused makes small asks for streams that became ready meanwhile, so often at most, seconds.
_FEW_S = 0.01
#: Senders that were refused ask again within so many milliseconds of the next window, each at a moment of its own.
_SPREAD_MS = 20


class Pace:
    """The sends that one sender may make now. It asks for more when there are none. For one thread.

    Times are monotonic seconds of the sender.
    """

    def __init__(
        self,
        store: SendQuotaStore,
        quota: SendQuota,
        *,
        clock: Clock,
        chance: Callable[[], float],
        observer: Observer,
    ) -> None:
        """`chance`: a random number from 0 to less than 1, each time it is called."""
        self._store = store
        self._quota = quota
        self._clock = clock
        self._chance = chance
        self._observer = observer
        self._free = 0
        self._until = 0.0
        self._second = (0.0, 0, 0)  # since when, messages since then, messages of the second before
        self._item = 0
        self._throttled = False
        #: When the quota may be asked again; and when for a few sends of newcomers.
        self.asks_at = 0.0
        self.asks_few_at = 0.0
        #: How often the quota was asked, and whether it granted less than waited, the last time.
        self.asked = 0
        self.short = False

    def may_send(self, waiting: int, now: float) -> bool:
        """Whether one of the waiting messages may be sent. Asks the quota if it has to, and is allowed to by now."""
        if self._free and now < self._until:
            return True
        if now < self.asks_at:
            return False
        self._ask(waiting, now)
        return self._free > 0

    def may_send_few(self, wanted: int, now: float) -> bool:
        """Whether one of a few messages may be sent although a large ask was refused: a part of each window is kept for
        small asks. `wanted`: how many are asked for, `SMALL` at most."""
        if self._free and now < self._until:
            return True
        if not wanted or now < self.asks_few_at:
            return False
        self.asks_few_at = now + _FEW_S
        try:
            self._item = int(self._chance() * self._quota.items)
            self._free, self._until = self._take(wanted), now + _GRANT_S
        except Unavailable:
            self._observer.count("send_quota_unavailable")
        if self._free:
            self._observer.count("sends_granted", self._free)
        return self._free > 0

    def sent(self) -> None:
        """One message was taken, to be sent."""
        self._free -= 1
        since, count, before = self._second
        self._second = since, count + 1, before

    def throttled(self) -> None:
        """The platform took no more. The quota is told with the next ask, or by `tell`."""
        self._throttled = True

    def tell(self) -> None:
        """Tell the quota now whether the platform took no more. For a sender that may not ask again."""
        try:
            self._tell()
        except Unavailable:  # it is told with the next ask
            self._observer.count("send_quota_unavailable")

    def _tell(self) -> None:
        if self._throttled:
            self._store.throttled(self._item, monotonic() + _ASK_S)
            self._throttled = False

    def _ask(self, waiting: int, now: float) -> None:
        """Ask for what waits, or for what is likely to be sent until the next ask."""
        ahead = self._sent_lately(now) // _ASKS
        self._free = 0
        self.asked += 1
        self.short = True
        try:
            self._tell()
            self._item = int(self._chance() * self._quota.items)
            granted = self._take(max(waiting, ahead))
            if not granted and waiting <= SMALL < ahead:
                granted = self._take(waiting)
        except Unavailable:
            self._observer.count("send_quota_unavailable")
            self.asks_at = now + _FAILED_S
            return
        self.short = granted < waiting
        if granted:
            self._observer.count("sends_granted", granted)
            self._free, self._until = granted, now + _GRANT_S
            return
        self._observer.count("sends_refused")
        # Not all at the same moment: whoever comes first gets the most of a window.
        wait_ms = left_ms(int(self._clock.now() * 1000)) + self._chance() * _SPREAD_MS
        self.asks_at = now + wait_ms / 1000

    def _sent_lately(self, now: float) -> int:
        """Messages that were sent in the second before."""
        since, count, _ = self._second
        if now - since >= 1:
            self._second = now, 0, count if now - since < 2 else 0
        return self._second[2]

    def _take(self, wanted: int) -> int:
        return self._store.take(self._item, wanted, int(self._clock.now() * 1000), monotonic() + _ASK_S)


class OneShotQueue(OutboundQueue[M], Protocol[M]):
    """A queue of which messages can be given up."""

    def refuse(self, now: float) -> None:
        """Give up what is ready, because the quota did not grant it."""

    def leave(self, now: float) -> None:
        """Give up what is ready, because another sender sends the same or newer data."""


class PacedQueue(Generic[M]):
    """A `ports.delivery.OutboundQueue` around another one."""

    def __init__(
        self,
        queue: OutboundQueue[M],
        pace: Pace,
        hold_back: Callable[[bool], object],
        newcomers: Callable[[], int] = lambda: 0,
    ) -> None:
        """
        Args:
            hold_back: told whether messages are held back: then newer values are to take the place of older ones.
            newcomers: how many sends bring each stream that became ready lately its first message. They are asked for
                while a crowd that waits in the same queue is refused.
        """
        self._queue = queue
        self._newcomers = newcomers
        self._hold_back = hold_back
        self._pace = pace
        self._blocked_until = 0.0

    @property
    def ended(self) -> bool:
        return self._queue.ended

    @property
    def due(self) -> float | None:
        due = self._queue.due
        if not self._blocked_until:
            return due
        asks_at = self._blocked_until
        if self._newcomers():
            asks_at = min(asks_at, self._pace.asks_few_at)
        return asks_at if due is None else min(due, asks_at)

    def ready(self, now: float) -> int:
        waiting = self._queue.ready(now)
        if now < self._blocked_until and (now < self._pace.asks_few_at or not self._newcomers()):
            return 0
        return waiting

    def take(self, now: float) -> M | None:
        if now < self._blocked_until:
            return self._take_few(now)
        waiting = self._queue.ready(now)
        was_blocked, self._blocked_until = self._blocked_until, 0.0
        if not waiting:
            return None
        if not self._pace.may_send(waiting, now):
            self._blocked_until = self._pace.asks_at
        if bool(was_blocked) != bool(self._blocked_until):
            self._hold_back(bool(self._blocked_until))
        if self._blocked_until:
            return None
        message = self._queue.take(now)
        if message is not None:
            self._pace.sent()
        return message

    def _take_few(self, now: float) -> M | None:
        """A message in its turn, as long as there are newcomers and the quota grants a small ask. The crowd before them
        gets its turns too, no more than they."""
        if not self._pace.may_send_few(self._newcomers(), now):
            return None
        message = self._queue.take(now)
        if message is not None:
            self._pace.sent()
        return message

    def before(self, message: M) -> M | None:
        return self._queue.before(message)

    def answered(self, message: M, delivery: Delivery) -> None:
        self._queue.answered(message, delivery)

    def throttled(self) -> None:
        self._pace.throttled()


class OneShotPacedQueue(PacedQueue[M]):
    """The paced queue of a sender that does not go on: what the quota does not grant in time is refused."""

    def __init__(
        self, queue: OneShotQueue[M], pace: Pace, until: float, look: Callable[[float], bool] = lambda _now: True
    ) -> None:
        """
        Args:
            until: when time is over. What is granted by then is sent, the rest is refused.
            look: called after an ask while the quota is short. It may add messages. False ends the sending: the rest is
                left to another sender.
        """
        super().__init__(queue, pace, lambda _held: None)
        self._all = queue
        self._until = until
        self._look = look
        self._is_short = False
        self._left = False

    def take(self, now: float) -> M | None:
        asked = self._pace.asked
        message = None if self._left else super().take(now)
        if self._pace.asked != asked:
            self._is_short = self._is_short or self._pace.short
            self._left = self._is_short and not self._look(now)
        if self._left and message is None:
            self._blocked_until = 0.0
            self._all.leave(now)
        elif self._blocked_until and now >= self._until:
            self._blocked_until = 0.0
            self._all.refuse(now)
        elif self._blocked_until:
            self._blocked_until = min(self._blocked_until, self._until)
        return message
