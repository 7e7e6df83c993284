"""Connections and subscriptions as stored, and the pure questions asked of them.

Invariant of this file: a row is *live* only when visible and not terminated; only live rows receive data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.domain.access import Claim, Refusal


@dataclass(frozen=True, slots=True)
class Connection:
    """One browser WebSocket.

    Attributes:
        connection_id: the platform's id.
        ip: what identifies the client's address: an HMAC, never the address.
        opened_at: epoch seconds.
        batch: whether the client asked for `batch` frames.
        subscriptions: datasource id -> dashboard id of the keys it holds.
        slots: dashboard slots it holds or is about to take, each `dashboardId#shard`.
        closing: set when the platform is being asked to close it; nothing new is accepted then.
    """

    connection_id: str
    ip: str
    opened_at: int
    batch: bool = False
    subscriptions: Mapping[str, str] = field(default_factory=dict)
    slots: frozenset[str] = frozenset()
    closing: bool = False


@dataclass(frozen=True, slots=True)
class SubscriptionKey:
    """Which datasource of which dashboard on which connection: the identity of a row."""

    dashboard_id: str
    connection_id: str
    datasource_id: str


#: How long a mark keeps everybody else from telling and deleting, seconds; who made it tells within
#: `NOTIFY_WITHIN_S`, so
#: that clocks may differ by the rest.
TERMINATION_CLAIM_S = 60
NOTIFY_WITHIN_S = 45


@dataclass(frozen=True, slots=True)
class TerminationClaim:
    """The right to tell a viewer of the end and to delete the row, for `TERMINATION_CLAIM_S`.

    Only one may have it: a second one, late, would tell a viewer who has come back meanwhile that it was revoked.

    Attributes:
        by: id of the run that marked.
        at: epoch seconds.
    """

    by: str
    at: int

    def holds_against(self, other: TerminationClaim) -> bool:
        """Whether `other`, made now, has to leave the row alone."""
        return self.by != other.by and self.at + TERMINATION_CLAIM_S > other.at


@dataclass(frozen=True, slots=True)
class Subscription:
    """One datasource on one connection.

    Attributes:
        key: its identity.
        attempt: random id of the subscribe attempt that wrote the row; conditions are on it.
        claim: what it rests on; `allowed(row.claim, ...)` judges it.
        stream_key: key of the stream it is delivered from.
        visible: whether fan-out may see it (it appears in the stream index only then).
        cut: marked as ended, not yet told and deleted: by whom; None when it is not.
        batch: whether the connection asked for batch frames (copied, so that fan-out reads no connection).
        session_token: the newest token of this grant, kept only where a remote API has to be asked again with it.
            A bearer credential: never logged, never sent to a client.
    """

    key: SubscriptionKey
    generation: str
    claim: Claim
    stream_key: str
    visible: bool = False
    termination: TerminationClaim | None = None
    batch: bool = False
    session_token: str | None = field(default=None, repr=False)

    @property
    def live(self) -> bool:
        return self.visible and self.termination is None

    @property
    def version(self) -> int:
        """What orders the attempts of guests on one row: the share version; -1 for members."""
        return -1 if self.claim.principal.share_version is None else self.claim.principal.share_version


#: A subscription that is to be ended, and why.
Termination = tuple[Subscription, Refusal]


def same_authorization(one: Claim, other: Claim) -> bool:
    """Whether two claims differ in nothing but their expiry: then a second subscribe is a refresh."""
    return (
        one.dashboard_id == other.dashboard_id
        and one.datasource_id == other.datasource_id
        and one.principal == other.principal
        and one.intent_hash == other.intent_hash
    )


@dataclass(frozen=True, slots=True)
class Stream:
    """One feed of messages, shared by every subscription whose intent is equal.

    Attributes:
        stream_key: hash of the intent, without dashboard and datasource.
        protocol: `mqtt`, `sse` or `websocket`.
        parser: `json` or `text`.
        entry: the allowed topic whose IoT rule feeds it; None for streams of the relay.
        topic_filter: MQTT topic filter; None for other protocols.
        wanted_at: epoch seconds of the last subscribe.
        intent: what the relay connects to (no secret in it), without dashboard and datasource; None for IoT Core.
        connected: whether the relay said last that its upstream is connected.
    """

    stream_key: str
    protocol: str
    parser: str
    allowed_topic: str | None
    topic_filter: str | None
    last_requested_at: int = 0
    intent: Mapping[str, object] | None = None
    connected: bool = False

    @property
    def relayed(self) -> bool:
        """Whether the relay holds its upstream, not an IoT rule."""
        return self.allowed_topic is None


@dataclass(frozen=True, slots=True)
class LastValue:
    """The newest value of a stream.

    Attributes:
        payload: JSON text as it is spliced into a `data` frame.
        timestamp_ms, message_id: its place in the order of the stream: compared as a pair.
    """

    payload: str
    timestamp_ms: int
    message_id: str

    @property
    def order(self) -> tuple[int, str]:
        return (self.timestamp_ms, self.message_id)


@dataclass(frozen=True, slots=True)
class CatchUpRequest:
    """A catch-up at a stream's last value, for one subscription.

    `seen` is the order of the value the viewer was sent, None when it was sent none."""

    key: SubscriptionKey
    generation: str
    stream_key: str
    seen: tuple[int, str] | None
