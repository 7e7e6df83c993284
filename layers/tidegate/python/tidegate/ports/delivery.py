"""What delivery needs: the managed WebSocket's management API, and the catch-up queue. Conventions: `ports.runtime`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tidegate.domain.subscriptions import LastValue, SubscriptionKey


class Delivery(StrEnum):
    """What became of one message to one connection."""

    DELIVERED = "delivered"
    GONE = "gone"  # the platform says 410
    TOO_LARGE = "too_large"
    FORBIDDEN = "forbidden"
    THROTTLED = "throttled"
    FAILED = "failed"
    WITHHELD = "withheld"  # the check before sending said no


@dataclass(frozen=True, slots=True)
class OutboundMessage:
    """One message for one connection. `tag` is the caller's own and comes back with the result."""

    connection_id: str
    body: bytes
    tag: object = None


@dataclass(frozen=True, slots=True)
class SendResult:
    """Result of one post."""

    post: OutboundMessage
    delivery: Delivery


class OutboundQueue(Protocol):
    """What a sender sends, as long as there is something. Times are the sender's, monotonic seconds."""

    def ready(self, now: float) -> int:
        """How many posts could be taken now."""

    @property
    def due(self) -> float | None:
        """When more becomes ready by time alone; None when nothing will."""

    @property
    def ended(self) -> bool:
        """Nothing is added any more."""

    def take(self, now: float) -> OutboundMessage | None:
        """The next post. None when none is ready."""

    def before(self, post: OutboundMessage) -> OutboundMessage | None:
        """Asked before every try: what to send in the post's place, to the same connection. None withholds it; then
        `answered` is not called for it."""

    def answered(self, post: OutboundMessage, delivery: Delivery) -> None:
        """What became of a post."""


class Sender(Protocol):
    """The managed WebSocket's management API. A missing connection is a result, never an exception."""

    def post(self, connection_id: str, body: bytes) -> Delivery: ...

    def post_many(
        self,
        posts: Iterable[OutboundMessage],
        *,
        before_each: Callable[[OutboundMessage], bool] | None = None,
        deadline: float | None = None,
    ) -> Sequence[SendResult]:
        """Send many. `before_each` is asked before every send and every retry; False withholds."""

    def send(self, outgoing: OutboundQueue) -> None:
        """Send what there is until it has ended and everything was answered. A post that takes long keeps no other."""

    def wake(self) -> None:
        """From any thread: what `send` sends has more, or has ended."""

    def end(self) -> None:
        """Nothing is sent any more: give back what is kept open."""

    def exists(self, connection_id: str) -> bool: ...

    def close(self, connection_id: str) -> None:
        """Ask the platform to close the connection; one already gone is fine."""


class CatchUpQueue(Protocol):
    def queue(self, key: SubscriptionKey, generation: str, stream_key: str, seen: LastValue | None) -> None:
        """Ask for a catch-up at the stream's last value for this subscription, some seconds from now."""
