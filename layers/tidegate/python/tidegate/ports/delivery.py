"""What delivery needs: the managed WebSocket's management API, and the catch-up queue. Conventions: `ports.runtime`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeVar

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


class Sendable(Protocol):
    """What can be sent: a message for one connection. Two that say the same are two: results go by the object."""

    @property
    def connection_id(self) -> str: ...

    @property
    def body(self) -> bytes: ...


M = TypeVar("M", bound=Sendable)


@dataclass(frozen=True, slots=True)
class OutboundMessage:
    """A message and nothing more."""

    connection_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class SendResult:
    """Result of one post."""

    post: OutboundMessage
    delivery: Delivery


class OutboundQueue(Protocol[M]):
    """What a sender sends, as long as there is something. Times are the sender's, monotonic seconds."""

    def ready(self, now: float) -> int:
        """How many messages could be taken now."""

    @property
    def due(self) -> float | None:
        """When more becomes ready by time alone; None when nothing will."""

    @property
    def ended(self) -> bool:
        """Nothing is added any more."""

    def take(self, now: float) -> M | None:
        """The next message. None when none is ready."""

    def before(self, message: M) -> M | None:
        """Asked before every try: what to send in the message's place, to the same connection. None withholds it; then
        `answered` is not called for it."""

    def answered(self, message: M, delivery: Delivery) -> None:
        """What became of a message, as `before` last gave it."""


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
        """Send many, each an object of its own. `before_each` is asked before every send and every retry; False
        withholds. Returns the results in the order of the posts."""

    def send(self, outgoing: OutboundQueue[M]) -> None:
        """Send what there is until it has ended and everything was answered. One that takes long keeps no other."""

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
