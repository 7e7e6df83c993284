"""What the relay needs from the world, as Protocols; conventions as in `ports.runtime`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from tidegate.errors import Unavailable

if TYPE_CHECKING:
    from tidegate.domain.relay import Lease
    from tidegate.domain.subscriptions import Stream
    from tidegate.protocol.messages import ErrorCode


class RelayWorkers(Protocol):
    """The relay's workers."""

    def start(self, partition: int, *, successor: bool = False) -> None:
        """See to it that a worker holds the shard's upstreams soon. Asking again, or needlessly, is harmless.

        A `successor` is connected beside the worker that asks, and waits to be handed the shard.
        """


class RelayLeases(Protocol):
    """Who holds a shard. `now` is epoch seconds; every write is conditional on the fence."""

    def claim(self, partition: int, owner: str, now: float) -> Lease | None:
        """Take a shard that is free, or whose lease ended some time ago. None while another holds it."""

    def renew(self, lease: Lease, now: float) -> Lease | None:
        """Hold it for longer. None when it is another's now."""

    def release(self, lease: Lease) -> None:
        """Let it go. Harmless when it is another's."""

    def offer(self, partition: int, successor: str) -> Lease | None:
        """Say that a successor is connected and waits. The first is the one: None when another waits already, or there
        is no lease."""

    def hand_over(self, lease: Lease, now: float) -> bool:
        """Make the waiting successor the owner, in one conditional write. From then on this worker sends nothing."""

    def current(self, partition: int) -> Lease | None: ...


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What to connect to. URL and headers may hold a credential: never logged, never shown.

    Attributes:
        protocol: `sse` or `websocket`.
        protocols: WebSocket subprotocols.
        idle_timeout_s: how long a connected upstream may be silent.
    """

    protocol: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    protocols: tuple[str, ...] = ()
    idle_timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Broker:
    """An MQTT broker and whom it is entered as: what a connection is shared by.

    Attributes:
        profile_id: the broker profile's.
        url: `mqtt://` or `mqtts://`.
        username, password: of the basic credential; None enters as nobody. Never logged, never shown.
        ca: certificates of further authorities, PEM; empty for none.
    """

    profile_id: str
    url: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class MqttRequest:
    """What to subscribe to, and where.

    Attributes:
        topic: an MQTT topic filter.
        qos: 0 or 1.
        keepalive_s: of the connection, if this makes it.
    """

    broker: Broker
    topic: str
    qos: int = 0
    keepalive_s: int = 60


@dataclass(frozen=True, slots=True)
class UpstreamMessage:
    """One message as it came. `message_id` is the source's own, empty when it gives none."""

    payload: bytes
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """The upstream answered: it is connected, though it may have said nothing yet."""


@dataclass(frozen=True, slots=True)
class Oversize:
    """A message beyond the limit was dropped; the upstream goes on."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """The source asks to be left alone for so long after a break, milliseconds."""

    milliseconds: int


UpstreamEvent = Opened | UpstreamMessage | Oversize | RetryAfter


class UpstreamFault(Exception):
    """An upstream could not be connected to, or ended.

    Attributes:
        code, text: what viewers are told.
        refused: it will be refused again for the same reason: not to be hammered.
    """

    def __init__(self, code: ErrorCode, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.refused = refused


class NobodyListens(Unavailable):
    """Nobody is subscribed yet, or any more, so it cannot be told what a stream connects to."""


class Requests(Protocol):
    """Tells what a stream connects to, credential included, when it is to be connected."""

    def __call__(self, stream: Stream) -> UpstreamRequest | MqttRequest:
        """Raises `UpstreamFault`, `NobodyListens`, `Unavailable`."""


R = TypeVar("R", contravariant=True)


class UpstreamsFor(Protocol[R]):
    """Connections to the outside for one kind of request, each checked against the egress policy when it is made."""

    def open(self, request: R, last_id: str) -> AsyncIterator[UpstreamEvent]:
        """Connect and yield what comes. Raises `UpstreamFault` when it fails or ends; closing it ends it."""

    async def close(self) -> None: ...


class Upstreams(UpstreamsFor["UpstreamRequest | MqttRequest"], Protocol):
    """Connections for every kind of request."""
