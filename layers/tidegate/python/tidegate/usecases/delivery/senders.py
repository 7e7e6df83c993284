"""Send frames to subscriptions: a handful and done, or on and on beside the work that makes them.

Both give the sender the same queue, see `send queue`. The background's adds what only it needs: a lock, because several
threads add to it; conflation and windows, because it goes on; and the lease that allows it to send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic

from tidegate.domain.client_queues import WINDOW_S, ClientQueues, Frame
from tidegate.domain.subscriptions import Subscription
from tidegate.errors import Unavailable
from tidegate.ports.delivery import CatchUpQueue, Delivery, Sender
from tidegate.ports.runtime import Observer
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.send_queue import SendQueue, SharedSendQueue
from tidegate.usecases.gateway.end_connection import EndConnection

#: What is under way when a worker hands over has so long to be answered, seconds; then a catch-up brings it.
FLUSH_S = 2.0
#: How long the end waits for what is under way, seconds: a worker has five in reserve.
_END_S = 2.5
_COUNTED_S = 1.0


class FailureHandler:
    """What sending leaves to be done. One viewer that is gone never keeps a message from the others, nor does cleaning
    up after it."""

    def __init__(self, *, catch_ups: CatchUpQueue, end_connection: EndConnection, observer: Observer) -> None:
        self._catch_ups = catch_ups
        self._end_connection = end_connection
        self._observer = observer

    def __call__(self, what: str | Subscription) -> None:
        """Release a connection that is gone, or have a row's newest value tried again."""
        if isinstance(what, str):
            self._release(what)
        else:
            self._request_catch_up(what)

    def _release(self, connection_id: str) -> None:
        try:
            self._end_connection.gone(connection_id)
        except Unavailable:
            self._observer.count("viewers_not_released")

    def _request_catch_up(self, row: Subscription) -> None:
        try:
            self._catch_ups.queue(row.key, row.generation, row.stream_key, None)
        except Unavailable:
            self._observer.count("catch_ups_lost")


class OneShotSender:
    """Send some frames and say what became of them. For one thread."""

    def __init__(
        self, *, access: FreshAccess, sender: Sender, failure_handler: FailureHandler, observer: Observer
    ) -> None:
        self._access = access
        self._sender = sender
        self._failure_handler = failure_handler
        self._observer = observer

    def __call__(self, frames: Sequence[Frame]) -> Mapping[Delivery, int]:
        """Send them; those of one subscription, and of one connection with batches, in order.

        Whoever is gone is released; who could not be sent a frame gets a catch-up.

        Returns:
            What became of the frames: how many per outcome.

        Raises:
            Unavailable: nothing was sent, because the access items could not be read.
        """
        if not frames:
            return {}
        self._access.load(frame.row for frame in frames)
        outcomes, left = send_once(frames, access=self._access, sender=self._sender, observer=self._observer)
        for what in left:
            self._failure_handler(what)
        return _counted(outcomes, self._observer)


def send_once(
    frames: Iterable[Frame], *, access: FreshAccess, sender: Sender, observer: Observer
) -> tuple[Mapping[Delivery, int], Sequence[str | Subscription]]:
    """Send frames, those of one queue in order.

    Returns:
        How many frames per outcome; and what is left to be done: ids of connections that are gone, and rows that could
        not be sent their frame, or of which it could not be said whether they may have it.
    """
    queues = ClientQueues()
    for frame in frames:
        queues.add(frame)
    left: list[str | Subscription] = []
    send_queue = SendQueue(queues, access=access, left=left.append, observer=observer)
    sender.send(send_queue)
    return send_queue.take_outcomes(), left


class BackgroundSender:
    """Sends on a thread of its own what others add, and follows up on another. `close` ends both.

    Attributes:
        healthy: False once it broke, by a fault of ours: nothing is sent any more.
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
    ) -> None:
        """`sender` is for this alone. `may_send` is asked before every send and retry; `conflate` as for
        `ClientQueues`."""
        self._access = access
        self._sender = sender
        self._failure_handler = failure_handler
        self._observer = observer
        self.healthy = True
        self._left: SimpleQueue[str | Subscription | None] = SimpleQueue()
        self._send_queue = SharedSendQueue(
            ClientQueues(conflate=conflate, window_s=WINDOW_S),
            access=access,
            left=self._left.put,
            may_send=may_send,
            wake=sender.wake,
            observer=observer,
        )
        self._threads = [
            Thread(target=work, name=name, daemon=True)
            for name, work in (("sender", self._send), ("follow-up", self._follow))
        ]
        for thread in self._threads:
            thread.start()

    def __call__(self, frames: Sequence[Frame]) -> Mapping[Delivery, int]:
        """Have them sent; waits only while the sender as a whole is behind. What becomes of them is not known yet.

        Raises:
            Unavailable: nothing is sent, because the access items could not be read.
        """
        if frames:
            self._access.load(frame.row for frame in frames)
            self._send_queue.add(frames)
            self._send_queue.wait_for_room()
        return {}

    def flush(self) -> bool:
        """Wait until what was added is sent. False when some viewers were too slow for that."""
        return self._send_queue.wait_until_empty(FLUSH_S)

    def close(self) -> None:
        """End, once what is under way was answered and followed up, or took too long for that."""
        self._send_queue.end()
        deadline = monotonic() + _END_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))

    def _send(self) -> None:
        try:
            self._sender.send(self._send_queue)
        except Exception as error:  # nothing is sent any more: whoever holds the upstreams must know
            self._observer.fault("the sender broke", error)
            self.healthy = False
            self._send_queue.end()
        finally:
            self._sender.end()
            self._left.put(None)

    def _follow(self) -> None:
        ended = False
        while not ended:
            with suppress(Empty):
                left = self._left.get(timeout=_COUNTED_S)
                if left is None:
                    ended = True
                else:
                    self._try_to_handle(left)
            if ended or self._left.empty():
                _counted(self._send_queue.take_outcomes(), self._observer)

    def _try_to_handle(self, left: str | Subscription) -> None:
        try:
            self._failure_handler(left)
        except Exception as error:  # the next one is not this one's fault
            self._observer.fault("failure not handled", error)


def _counted(outcomes: Mapping[Delivery, int], observer: Observer) -> Mapping[Delivery, int]:
    for delivery, count in outcomes.items():
        observer.count("deliveries", count, outcome=delivery.value)
    return outcomes
