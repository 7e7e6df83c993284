"""Under a shortage of the send quota, one call sends a topic's newest value for all calls: it *carries* the topic.

IoT Core calls the bridge once for each message. When the quota grants fewer sends than a value has viewers, the call
takes longer, and newer values come meanwhile. If each call went on with its own, older values would use up the quota of
newer ones. So the first call that is short notes on the last value that it carries the topic. Newer values are left to
it. Five times a second it says that it still does, reads the newest value with that write, and goes on with it, from
viewer to viewer. A call that finds that another carries leaves the rest to that one.

Invariant of this file: a call leaves the rest only to one that carries, and that has yet to read the newest value once
more; or to one that stored a newer value, and sends it to all. Whoever carries ends only if nothing newer was stored,
and nothing was noted, since it read what it sent to all viewers; or by handing over, after which the next value is sent
by its own call. That the last value sent is the newest rests on `settle`, as without a shortage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tidegate.domain.client_queues import Frame
from tidegate.domain.subscriptions import LastValue, Stream
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery
from tidegate.ports.gateway import LastValueStore
from tidegate.ports.runtime import Clock, Ids, Observer

#: Least time between two looks at the newest value, seconds. A call that carries is relied upon for five of them.
LOOK_S = 0.2
#: The part of its time after which a call hands over. It goes on with what it has until its time is over.
TAKES_ON = 2 / 3


@dataclass(frozen=True, slots=True)
class Carry:
    """Makes a `Carrying` for each value that is sent.

    Attributes:
        send: a `OneShotSender` with a pace.
        per_second: most values of a topic that are sent in a second, 1 or more.
        sleep: waits so many seconds.
    """

    send: Callable[[Sequence[Frame], Carrying], Mapping[Delivery, int]]
    last_values: LastValueStore
    per_second: int
    sleep: Callable[[float], object]
    clock: Clock
    ids: Ids
    observer: Observer

    def of(self, stream: Stream, value: LastValue, frames: Callable[[LastValue], Sequence[Frame]]) -> Carrying:
        """`frames` makes the frames of a value for all viewers."""
        return Carrying(self, stream.stream_key, value, frames)


class Carrying:
    """One value on its way to all viewers of a topic, and newer ones after it. For one thread.

    Attributes:
        sent: the newest value of which frames were made.
        carries: whether newer values are left to this call. A lost answer leaves that open: then they may be.
        settled: it ended after the newest value.
        left: another call carries the topic, and was left the rest.
    """

    def __init__(
        self, needs: Carry, stream_key: str, value: LastValue, frames: Callable[[LastValue], Sequence[Frame]]
    ) -> None:
        self._needs = needs
        self._key, self._topic = stream_key, value.topic
        self._frames = frames
        self._id = ""
        #: The order of the value that was sent to all, and what was noted when it was read.
        self._state = (value.order, 0)
        self._looks_at = float("-inf")
        self._interval_ms = 1000 // needs.per_second
        self._began = self._made_at = needs.clock.monotonic()
        self.sent = value
        self.carries = False
        self.settled = False
        self.left = False

    def look(self, now: float, until: float) -> Sequence[Frame] | None:
        """Called while the quota is short: what is to be sent in place of older values, if anything.

        Args:
            now: monotonic seconds.
            until: when the call's time is over.

        Returns:
            Frames of the newest value for all viewers; none when there is nothing newer. None when the rest is left to
            another call.
        """
        if now < self._looks_at:
            return ()
        self._looks_at = now + max(LOOK_S, self._interval_ms / 1000)
        try:
            if self._is_late(now, until):
                return self._last_look()
            return self._taken(self._carry())
        except Unavailable:
            self._needs.observer.count("looks_failed")
            return ()

    def end(self, until: float) -> Sequence[Frame]:
        """Called when all is sent and answered: what is to be sent after it, or nothing, and then it is over.

        Raises:
            Unavailable: the store did not answer. The message is to be handled again.
        """
        clock = self._needs.clock
        while self.carries:
            if self._last_values.end_carrying(
                self._key, self._topic, self._id, self.sent, self._now_ms(), self._interval_ms
            ):
                self.carries, self.settled = False, True
                break
            # There is a newer value. Values of a topic are kept apart here too.
            self._needs.sleep(max(0.0, self._made_at + self._interval_ms / 1000 - clock.monotonic()))
            late = self._is_late(clock.monotonic(), until)
            newer = self._last_look() if late else self._taken(self._carry())
            if newer:
                return newer
        return ()

    def leave(self, frames: Sequence[Frame]) -> None:
        """Nothing: the call that carries sends them."""

    def _is_late(self, now: float, until: float) -> bool:
        return now >= self._began + (until - self._began) * TAKES_ON

    @property
    def _last_values(self) -> LastValueStore:
        return self._needs.last_values

    def _carry(self) -> LastValue | None:
        self._id = self._id or self._needs.ids.new_id()
        self.carries = True  # as far as is known, also when the answer is lost
        return self._last_values.carry(self._key, self._topic, self._id, self._now_ms())

    def _last_look(self) -> Sequence[Frame] | None:
        """Near the end of its time the call takes no more on. It leaves the rest once a newer value is stored."""
        if self.carries:
            newest = self._last_values.hand_over(self._key, self._topic, self._id, self._now_ms())
            self.carries = False
            if newest is not None:  # else it was handed over before, or another has taken over
                return self._newer(newest)
        newest = self._last_values.get(self._key, self._topic)
        return None if newest is not None and newest.order > self.sent.order else ()

    def _taken(self, newest: LastValue | None) -> Sequence[Frame] | None:
        """What is to be sent after a write that was to carry the topic."""
        if newest is None:
            self.carries, self.left = False, True
            return None
        return self._newer(newest)

    def _newer(self, newest: LastValue) -> Sequence[Frame]:
        """Frames of the newest value, if it or what was noted is another than before."""
        state = newest.order, newest.overtaken
        if state == self._state:
            self.sent = newest
            return ()
        self._state, self.sent = state, newest
        self._made_at = self._needs.clock.monotonic()
        return self._frames(newest)

    def _now_ms(self) -> int:
        return int(self._needs.clock.now() * 1000)
