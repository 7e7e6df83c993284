"""What delivery needs: the management API of the managed WebSocket, and the catch-up queue.

Conventions: see `ports.runtime`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from tidegate.domain.crowds import CrowdPart
    from tidegate.domain.subscriptions import CatchUpRequest


class Delivery(StrEnum):
    """What became of one message to one connection."""

    DELIVERED = "delivered"
    GONE = "gone"  # the platform says 410
    TOO_LARGE = "too_large"
    FORBIDDEN = "forbidden"
    THROTTLED = "throttled"
    FAILED = "failed"
    WITHHELD = "withheld"  # the check before sending said no
    REFUSED = "refused"  # the send quota did not grant it in time, so it was not sent


class Sendable(Protocol):
    """What can be sent: a message for one connection.

    Each is compared by identity: two objects with the same content are two messages, with a result each.
    """

    @property
    def connection_id(self) -> str: ...

    @property
    def body(self) -> bytes: ...


M = TypeVar("M", bound=Sendable)


class OutboundMessage(NamedTuple):
    """A message for one connection, with nothing else attached. A tuple, because thousands are made at a time."""

    connection_id: str
    body: bytes


class SendResult(NamedTuple):
    """What became of one message of `Sender.post_many`."""

    post: OutboundMessage
    delivery: Delivery


class OutboundQueue(Protocol[M]):
    """Where a sender takes its messages from, until the queue has ended. Times are monotonic seconds of the sender."""

    def ready(self, now: float) -> int:
        """How many messages can be taken now."""

    @property
    def due(self) -> float | None:
        """When the next message becomes ready by the passing of time alone; None when none will."""

    @property
    def ended(self) -> bool:
        """Whether nothing will be added any more."""

    def take(self, now: float) -> M | None:
        """The next message; None when none is ready."""

    def before(self, message: M) -> M | None:
        """Called before every try to send the message.

        Returns what to send in its place, to the same connection. None withholds the message; then `answered` is not
        called for it.
        """

    def answered(self, message: M, delivery: Delivery) -> None:
        """Called with what became of a message. `message` is what `before` returned last."""

    def throttled(self) -> None:
        """Called each time the platform answers that it takes no more, also when the message is tried again."""


class Sender(Protocol):
    """The management API of the managed WebSocket. A missing connection is a result, never an exception."""

    def post(self, connection_id: str, body: bytes) -> Delivery: ...

    def post_many(
        self,
        posts: Iterable[OutboundMessage],
        *,
        before_each: Callable[[OutboundMessage], bool] | None = None,
        deadline: float | None = None,
    ) -> Sequence[SendResult]:
        """Send many messages at the same time.

        Args:
            posts: the messages, each an object of its own.
            before_each: called before every send and every retry; False withholds the message.
            deadline: monotonic seconds at which the rest is given up; None for the sender's own limit.

        Returns:
            The results, in the order of `posts`.
        """

    def send(self, outgoing: OutboundQueue[M]) -> None:
        """Send the queue's messages until it has ended and every message was answered.

        A message that takes long delays no other.
        """

    def wake(self) -> None:
        """Tell a running `send` that its queue has more messages, or has ended. May be called from any thread."""

    def end(self) -> None:
        """Close what is kept open. Nothing is sent afterwards."""

    def exists(self, connection_id: str) -> bool: ...

    def close(self, connection_id: str) -> None:
        """Ask the platform to close the connection. No error when it is already gone."""


class SendQuotaStore(Protocol):
    """What all senders together may send, see `domain.send_quota`. For one thread."""

    def take(self, item: int, wanted: int, now_ms: int, deadline: float) -> int:
        """Ask for sends of the current window.

        Args:
            item: which of the quota's stored items is asked.
            wanted: how many sends, 1 or more.
            now_ms: epoch milliseconds.
            deadline: monotonic seconds after which `Unavailable` is raised.

        Returns:
            How many were granted: up to `wanted`, or 0.
        """

    def throttled(self, item: int, deadline: float) -> None:
        """The platform took no more. The share that is used falls, once for all who say so in a second."""


class CrowdQueue(Protocol):
    """The queue of parts of crowds."""

    def ask(self, parts: Sequence[CrowdPart], delay_s: int = 0) -> None:
        """Ask that each part be sent, `delay_s` seconds from now. Asking twice is harmless.

        Raises:
            Unavailable: not all of them are known to be asked for.
        """


class CatchUpQueue(Protocol):
    def queue(self, request: CatchUpRequest) -> None:
        """Ask for a catch-up some seconds from now. Raises `Unavailable`."""

    def queue_many(self, requests: Sequence[CatchUpRequest], deadline: float) -> Sequence[CatchUpRequest]:
        """Ask for many catch-ups, with few calls at the same time. One that cannot be queued keeps no other.

        Args:
            deadline: monotonic seconds at which the rest is given up.

        Returns:
            Those that were not queued, or for which no answer came.
        """
