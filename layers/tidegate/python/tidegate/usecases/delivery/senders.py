"""Send frames to subscriptions: a few at once (`OneShotSender`), or continuously on a thread (`BackgroundSender`).

Both use the send queue of `send_queue`. The background sender adds what only it needs: a lock, because several threads
add frames; conflation and batch windows, because it goes on; and the check of the lease before every send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Protocol

from tidegate.domain.client_queues import WINDOW_S, Batch, ClientQueues, Frame, Missed
from tidegate.ports.delivery import Delivery, OutboundQueue, Sender
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.delivery.failures import FOLLOW_UP_S, FailureHandler
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.paced_queue import OneShotPacedQueue, Pace, PacedQueue
from tidegate.usecases.delivery.send_queue import SendQueue, SharedSendQueue

#: When a worker hands over, it waits for what it has yet to send while messages are answered: until none was for so
#: many seconds, and no longer than for `FLUSH_MOST_S`. For what is left then, a catch-up sends the newest value. A
#: standby keeps a thousand messages of each stream meanwhile.
FLUSH_S = 2.0
FLUSH_MOST_S = 8.0
#: How long `close` waits for messages that are under way, seconds. A worker keeps five in reserve for its end.
_END_S = 2.5
#: Of that, for the failures at the end, seconds.
_LAST_S = 2.0
#: How often outcomes are counted while nothing else happens, seconds.
_COUNTED_S = 1.0


class Patience:
    """How long the sends of an invocation may wait for the quota, all together. What was not granted then is refused.

    Attributes:
        until: when it is over, monotonic seconds of the sender.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._ends = self.until = 0.0

    def begin(self) -> None:
        """An invocation begins."""
        self._ends = self.until = self._clock.monotonic() + self._seconds

    def share(self, parts: int) -> None:
        """What follows is one of so many parts that are left, and may take as much of the time as each other."""
        now = self._clock.monotonic()
        self.until = now + max(0.0, self._ends - now) / parts


class Looking(Protocol):
    """One value on its way to all viewers, and what takes its place while the send quota is short."""

    def look(self, now: float, until: float) -> Sequence[Frame] | None:
        """Called while the quota is short: what is to be sent in place of older values, if anything.

        Args:
            now: monotonic seconds.
            until: when the call's time is over.

        Returns:
            Frames of the newest value for all viewers; none when there is nothing newer. None when the rest is left to
            another call.
        """

    def end(self, until: float) -> Sequence[Frame]:
        """Called when all is sent and answered: what is to be sent after it, or nothing, and then it is over."""

    def leave(self, frames: Sequence[Frame]) -> None:
        """Called with the frames that were not sent, because `look` said that the rest is left to another call."""


class OneShotSender:
    """Sends some frames and returns what became of them. For one thread."""

    def __init__(
        self,
        *,
        access: FreshAccess,
        sender: Sender,
        failure_handler: FailureHandler,
        observer: Observer,
        pace: Pace | None = None,
        patience: Patience | None = None,
    ) -> None:
        """`pace`: None sends as fast as the platform takes it. Else with the `patience` to wait for it."""
        self._access = access
        self._sender = sender
        self._failure_handler = failure_handler
        self._observer = observer
        self._pace = pace
        self._patience = patience

    def __call__(self, frames: Sequence[Frame], carrying: Looking | None = None) -> Mapping[Delivery, int]:
        """Send the frames. Those of one subscription, or of one connection with batches, are sent in order.

        A connection that is gone is removed. A row that could not be sent its frame gets a catch-up.

        Args:
            carrying: the frames are of this value. While the quota is short, newer values take its place.

        Returns:
            What became of the frames: how many per outcome.

        Raises:
            Unavailable: nothing was sent, because the access items could not be read. Or somebody could not be sent the
                frame, and a catch-up could not be queued. The message is to be handled again.
        """
        if not frames:
            return {}
        self._access.load(frame.row for frame in frames)
        outcomes, left = send_once(
            frames,
            access=self._access,
            sender=self._sender,
            observer=self._observer,
            pace=self._pace,
            until=self._patience.until if self._patience is not None else float("inf"),
            carrying=carrying,
        )
        counted = _counted(outcomes, self._observer)
        self._failure_handler.or_fail(left)
        return counted


def send_once(
    frames: Iterable[Frame],
    *,
    access: FreshAccess,
    sender: Sender,
    observer: Observer,
    pace: Pace | None = None,
    until: float = float("inf"),
    carrying: Looking | None = None,
) -> tuple[Mapping[Delivery, int], Sequence[str | Missed]]:
    """Send frames. Those of one per-client queue are sent in order.

    Args:
        pace: None sends as fast as the platform takes it.
        until: frames that `pace` does not grant by then are refused, monotonic seconds.
        carrying: as for `OneShotSender`.

    Returns:
        The number of frames per outcome, and the work that is left: ids of connections that are gone; and rows that
        could not be sent their frame, or for which it could not be checked whether they may receive it.
    """
    queues = ClientQueues(conflate=carrying is not None)
    for frame in frames:
        queues.add(frame)
    left: list[str | Missed] = []
    send_queue = SendQueue(queues, access=access, left=left.append, observer=observer)
    if pace is None:
        sender.send(send_queue)
        return send_queue.take_outcomes(), left

    def look(now: float) -> bool:
        newer = () if carrying is None else carrying.look(now, until)
        send_queue.replace(newer or ())
        return newer is not None

    outgoing = OneShotPacedQueue(send_queue, pace, until, look)
    sender.send(outgoing)
    while carrying is not None and (newer := carrying.end(until)):
        send_queue.replace(newer)
        sender.send(outgoing)
    if carrying is not None and send_queue.left:
        carrying.leave(send_queue.left)
    pace.tell()
    return send_queue.take_outcomes(), left


class BackgroundSender:
    """Sends, on a thread of its own, the frames that others add. A second thread handles failures. `close` ends both.

    Attributes:
        healthy: False once sending failed by a fault of ours. Then nothing is sent any more.
    """

    def __init__(
        self,
        *,
        access: FreshAccess,
        sender: Sender,
        failure_handler: FailureHandler,
        may_send: Callable[[], bool],
        conflate: bool,
        observer: Observer,
        pace: Pace | None = None,
    ) -> None:
        """
        Args:
            sender: used by this object only.
            may_send: called before every send and every retry.
            conflate: as for `ClientQueues`.
            pace: used by this object only. None sends as fast as the platform takes it.
        """
        self._access = access
        self._sender = sender
        self._failure_handler = failure_handler
        self._observer = observer
        self.healthy = True
        self._left: SimpleQueue[str | Missed | None] = SimpleQueue()
        self._send_queue = SharedSendQueue(
            ClientQueues(conflate=conflate, window_s=WINDOW_S),
            access=access,
            left=self._left.put,
            may_send=may_send,
            wake=sender.wake,
            observer=observer,
        )
        self._outgoing: OutboundQueue[Batch] = self._send_queue
        if pace is not None:
            self._outgoing = PacedQueue(self._send_queue, pace, self._send_queue.hold_back, self._send_queue.newcomers)
        self._threads = [
            Thread(target=work, name=name, daemon=True)
            for name, work in (("sender", self._send), ("follow-up", self._follow))
        ]
        for thread in self._threads:
            thread.start()

    def __call__(self, frames: Sequence[Frame]) -> Mapping[Delivery, int]:
        """Add frames to be sent. Waits only while the sender as a whole is behind.

        Returns nothing per outcome, because what becomes of the frames is not known yet.

        Raises:
            Unavailable: nothing is sent, because the access items could not be read.
        """
        if frames:
            self._access.load(frame.row for frame in frames)
            self._send_queue.add(frames)
            self._send_queue.wait_for_room()
        return {}

    def flush(self) -> bool:
        """Wait until what was added is sent, while messages are answered. False when some viewers are too slow."""
        return self._send_queue.wait_until_empty(FLUSH_S, FLUSH_MOST_S)

    def close(self) -> None:
        """End. Waits until what is under way is answered and its failures are handled, but not longer than `_END_S`."""
        self._send_queue.end()
        deadline = monotonic() + _END_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))

    def _send(self) -> None:
        try:
            self._sender.send(self._outgoing)
        except Exception as error:  # nothing is sent any more: the worker sees it by `healthy`
            self._observer.fault("the sender broke", error)
            self.healthy = False
            self._send_queue.end()
        finally:
            self._sender.end()
            self._left.put(None)

    def _follow(self) -> None:
        ended = False
        left: Sequence[str | Missed] = []
        while not ended:
            found, ended = self._found()
            left = self._handled([*left, *found], ended)
            if ended or self._left.empty():
                _counted(self._send_queue.take_outcomes(), self._observer)
        if left:
            self._observer.count("catch_ups_lost", len(left))

    def _found(self) -> tuple[Sequence[str | Missed], bool]:
        """What sending left meanwhile, all at once; and whether nothing follows. Waits for it, but not long."""
        found: list[str | Missed] = []
        with suppress(Empty):
            left = self._left.get(timeout=_COUNTED_S)
            while left is not None:
                found.append(left)
                left = self._left.get_nowait()
            return found, True
        return found, False

    def _handled(self, left: Sequence[str | Missed], ended: bool) -> Sequence[Missed]:
        """Do the work. Returns the catch-ups that could not be queued: they are tried again with what follows."""
        if not left:
            return []
        try:
            return self._failure_handler(left, _LAST_S if ended else FOLLOW_UP_S)
        except Exception as error:  # later failures are handled all the same
            self._observer.fault("failure not handled", error)
            return []


def _counted(outcomes: Mapping[Delivery, int], observer: Observer) -> Mapping[Delivery, int]:
    for delivery, count in outcomes.items():
        observer.count("deliveries", count, outcome=delivery.value)
    return outcomes
