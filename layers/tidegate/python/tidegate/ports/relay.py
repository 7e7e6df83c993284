"""What the relay needs: workers, leases and upstreams. Conventions: see `ports.runtime`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from tidegate.errors import Unavailable

if TYPE_CHECKING:
    from tidegate.domain.credentials import Placement
    from tidegate.domain.relay import Lease
    from tidegate.domain.subscriptions import Stream
    from tidegate.protocol.messages import ErrorCode


class RelayLeases(Protocol):
    """Who holds a partition. `now` is epoch seconds. Every write is conditional on the fence."""

    def claim(self, partition: int, owner: str, now: float) -> Lease | None:
        """Take a partition that is free, or whose lease ended some time ago. None while another worker holds it."""

    def renew(self, lease: Lease, now: float) -> Lease | None:
        """Extend the lease. None when another worker has it now."""

    def release(self, lease: Lease) -> None:
        """Give the lease back. Harmless when another worker has it."""

    def offer(self, partition: int, successor: str) -> Lease | None:
        """Note that a successor is connected and waits. Only the first is accepted.

        None when another one waits already, or when there is no lease.
        """

    def ask_successor(self, lease: Lease) -> Lease | None:
        """Note that the owner is about to end. None when another worker has the lease now."""

    def hand_over(self, lease: Lease, now: float) -> bool:
        """Make the waiting successor the owner, in one conditional write. After that the caller must send nothing."""

    def current(self, partition: int) -> Lease | None: ...


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What to connect to. It may hold a credential, so it is never logged and never shown.

    Attributes:
        protocol: `sse` or `websocket`.
        url, headers: without the credential. Those from a remote API contain it.
        credential: put into each request, redirects included, whose URL its destinations cover; into no other.
        protocols: WebSocket subprotocols.
        idle_timeout_s: how long a connected upstream may be silent.
        secret_revision: of the credential profile; 0 without one.
    """

    protocol: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    protocols: tuple[str, ...] = ()
    idle_timeout_s: float = 120.0
    credential: Placement | None = field(default=None, repr=False)
    secret_revision: int = 0


@dataclass(frozen=True, slots=True)
class Broker:
    """An MQTT broker, and the user that connects to it. Streams with an equal `Broker` share a connection.

    Attributes:
        profile_id: id of the broker profile.
        url: begins with `mqtt://` or `mqtts://`.
        username, password: of the basic credential; None connects without. Never logged, never shown.
        ca: certificates of additional authorities, PEM; empty for none.
        secret_revision: of the credential profile; 0 without one. A connection with an older one gets no new streams.
    """

    profile_id: str
    url: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca: str = field(default="", repr=False)
    secret_revision: int = 0


@dataclass(frozen=True, slots=True)
class MqttRequest:
    """What to subscribe to, and at which broker.

    Attributes:
        topic: an MQTT topic filter.
        qos: 0 or 1.
        keepalive_s: keep-alive of the connection, seconds; used when this request is the one that opens it.
    """

    broker: Broker
    topic: str
    qos: int = 0
    keepalive_s: int = 60

    @property
    def secret_revision(self) -> int:
        return self.broker.secret_revision


@dataclass(frozen=True, slots=True)
class UpstreamMessage:
    """One message as received.

    Attributes:
        message_id: the upstream's own id, empty when it gives none.
        topic: where it was published, with MQTT; empty otherwise.
        deleted: whether the source took the value back: an MQTT message without a payload.
    """

    payload: bytes
    message_id: str = ""
    topic: str = ""
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """The upstream answered: it is connected, though no message may have come yet."""


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """The upstream said that it is there, with a message that has no value. `message_id` is as of a message."""

    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Oversize:
    """A message larger than the limit was dropped. The upstream goes on."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """After a break, the upstream asks for a pause of this length before the next connect."""

    milliseconds: int


UpstreamEvent = Opened | UpstreamMessage | SignOfLife | Oversize | RetryAfter


class UpstreamFault(Exception):
    """An upstream could not be connected, or ended.

    Attributes:
        code, text: what viewers are told.
        refused: the upstream will refuse again for the same reason, so it is tried less often.
        over: the upstream says that there is nothing more to come. It is not connected again until somebody subscribes.
        retry_after_ms: how long the upstream asks to be left alone now, milliseconds; 0 when it does not ask.
    """

    def __init__(
        self, code: ErrorCode, text: str, *, refused: bool = False, over: bool = False, retry_after_ms: int = 0
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.refused = refused
        self.over = over
        self.retry_after_ms = retry_after_ms


class NobodyListens(Unavailable):
    """Nobody is subscribed, yet or any more. What the stream connects to can only be learned for a subscriber."""


class UpstreamRequests(Protocol):
    """Says what a stream connects to, credential included. Called whenever it is to be connected."""

    def __call__(self, stream: Stream) -> UpstreamRequest | MqttRequest:
        """Raises `UpstreamFault`, `NobodyListens`, `Unavailable`."""


R = TypeVar("R", contravariant=True)


class UpstreamsFor(Protocol[R]):
    """Opens upstreams for one kind of request. Each connection is checked against the egress policy when made."""

    def open(self, request: R, last_id: str) -> AsyncIterator[UpstreamEvent]:
        """Connect, and yield what comes. Closing the iterator ends the connection.

        Args:
            last_id: id of the last message received before; empty for none. Where the protocol allows, the upstream is
                asked to go on after it.

        Raises:
            UpstreamFault: it could not be connected, or it ended.
        """

    async def close(self) -> None: ...


class Upstreams(UpstreamsFor["UpstreamRequest | MqttRequest"], Protocol):
    """Opens upstreams for every kind of request."""
