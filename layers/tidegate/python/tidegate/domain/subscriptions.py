"""Connections, subscriptions and streams as stored, and the pure questions asked about them.

Invariant of this file: a row is *live* only when it is visible and nobody has claimed its termination. Only live rows
receive data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tidegate.domain.access import Claim, Refusal

if TYPE_CHECKING:
    from tidegate.domain.history import History, Recovering


@dataclass(frozen=True, slots=True)
class Connection:
    """One browser WebSocket.

    Attributes:
        connection_id: the platform's id.
        ip: identifies the client's address: an HMAC of it, never the address.
        opened_at: epoch seconds.
        batch: whether the client asked for `batch` frames.
        subscriptions: datasource id -> dashboard id, one pair for each of its subscription keys.
        slots: slots of caps that it has taken or is about to take. Each is named after the cap, `#` and the number of
            the counter shard.
        begun: window -> new subscriptions that were counted in it. Windows that are over may be missing.
        closing: set when the platform is about to be asked to close it. Nothing new is accepted then.
    """

    connection_id: str
    ip: str
    opened_at: int
    batch: bool = False
    subscriptions: Mapping[str, str] = field(default_factory=dict)
    slots: frozenset[str] = frozenset()
    begun: Mapping[int, int] = field(default_factory=dict)
    closing: bool = False


class SubscriptionKey(NamedTuple):
    """Identifies a row: a datasource of a dashboard, on a connection. A tuple, because sending looks it up for each
    frame several times, and the hash of a tuple is C."""

    dashboard_id: str
    connection_id: str
    datasource_id: str


#: How long a termination claim keeps every other run from notifying the viewer and deleting the row, seconds.
TERMINATION_CLAIM_S = 60
#: The run that made the claim notifies within this time, seconds. The rest of the claim's time allows for clocks that
#: differ.
NOTIFY_WITHIN_S = 45


@dataclass(frozen=True, slots=True)
class TerminationClaim:
    """The right to notify a viewer that the subscription ended and to delete its row, for `TERMINATION_CLAIM_S`.

    Only one run may have it. Otherwise a late second run could notify a viewer who has subscribed again meanwhile that
    the subscription was revoked.

    Attributes:
        by: id of the run that made the claim.
        at: when it was made, epoch seconds.
    """

    by: str
    at: int

    def holds_against(self, other: TerminationClaim) -> bool:
        """Whether the run of `other`, a claim made now, has to leave the row alone."""
        return self.by != other.by and self.at + TERMINATION_CLAIM_S > other.at


@dataclass(frozen=True, slots=True)
class Subscription:
    """One datasource on one connection.

    Attributes:
        key: its identity.
        generation: random id of the subscribe that wrote the row. Writes are conditional on it.
        claim: what it rests on; `allowed(row.claim, ...)` decides about it.
        stream_key: key of the stream it is delivered from.
        visible: whether fan-out may see it. Only then the row is in the stream index.
        termination: the claim of the run that is terminating it, until the row is deleted. None when no run is.
        batch: whether the connection asked for batch frames. Copied here, so that fan-out reads no connections.
        protocol: of the stream: `mqtt`, `sse` or `websocket`. Copied here, so that switches need not read streams.
        session_token: the newest token of this authorization. It is kept only where a remote API has to be asked
            again with it. A bearer credential: never logged, never sent to a client.
    """

    key: SubscriptionKey
    generation: str
    claim: Claim
    stream_key: str
    visible: bool = False
    termination: TerminationClaim | None = None
    batch: bool = False
    protocol: str = ""
    session_token: str | None = field(default=None, repr=False)

    @property
    def live(self) -> bool:
        return self.visible and self.termination is None

    @property
    def version(self) -> int:
        """Orders the generations of a row that guests subscribe to: the share version; -1 for members."""
        return -1 if self.claim.principal.share_version is None else self.claim.principal.share_version


#: A subscription that is to be terminated, and why.
Termination = tuple[Subscription, Refusal]


def same_authorization(one: Claim, other: Claim) -> bool:
    """Whether two claims differ at most in their expiry. Then a second subscribe only refreshes the first."""
    return (
        one.dashboard_id == other.dashboard_id
        and one.datasource_id == other.datasource_id
        and one.principal == other.principal
        and one.intent_hash == other.intent_hash
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an upstream is not connected, as viewers are told.

    Attributes:
        code: an error code of the protocol.
        text: for people; it holds no secret.
    """

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of messages, shared by all subscriptions with an equal intent.

    Attributes:
        stream_key: hash of the intent, without dashboard and datasource.
        protocol: `mqtt`, `sse` or `websocket`.
        parser: `json` or `text`.
        allowed_topic: the allowed topic whose IoT rule feeds it; None for streams of the relay.
        topic_filter: MQTT topic filter of an IoT Core stream; None for streams of the relay.
        last_requested_at: epoch seconds of the last subscribe.
        intent: what the relay connects to, without dashboard and datasource, and without a secret; None for IoT Core.
        connected: whether the relay last reported that its upstream is connected.
        connected_at: since when, epoch seconds, as far as the relay said it.
        fault: why it is not connected, as the relay reported last; None when it did not say.
        status_number: grows with every change of `connected` or `fault`.
        subscribes: how many there were since the count began; see `domain.crowds`.
        crowd_until: until when the stream's audience is marked as that of a crowd, epoch seconds.
        history: what is kept of its values; None when nobody has asked for any.
    """

    stream_key: str
    protocol: str
    parser: str
    allowed_topic: str | None
    topic_filter: str | None
    last_requested_at: int = 0
    intent: Mapping[str, object] | None = None
    connected: bool = False
    fault: Fault | None = None
    status_number: int = 0
    subscribes: int = field(default=0, compare=False)
    crowd_until: int = field(default=0, compare=False)
    history: History | None = None
    connected_at: int | None = None

    @property
    def relayed(self) -> bool:
        """Whether the relay feeds it, not an IoT rule."""
        return self.allowed_topic is None

    @property
    def by_topic(self) -> bool:
        """Whether it has many topics: its filter has a wildcard. Then each topic has an order and a last value."""
        wanted = self.topic_filter
        if wanted is None and self.protocol == "mqtt" and self.intent is not None:
            wanted = str(self.intent.get("topic", ""))
        return wanted is not None and ("+" in wanted or "#" in wanted)


#: Message ids that become part of a `seq`: those of devices are UUIDs or hashes.
_SEQ_TIE = re.compile(r"[A-Za-z0-9_-]{1,40}")


#: Most topics of a stream whose last values are kept. Of more, the stalest goes.
MOST_TOPICS = 200


@dataclass(frozen=True, slots=True)
class LastValue:
    """The newest value of a stream, or of one of its topics.

    Attributes:
        payload: JSON text as it is spliced into a `data` frame.
        timestamp_ms, message_id: its place in the order of the stream or topic; compared as a pair.
        topic: where it was published, of a stream that has many topics (`Stream.by_topic`); else None.
        deleted: the source took the value back. The payload is `null` then.
        overtaken: how many senders have noted, since the stream settled last, that an older value may have been sent
            after a newer one. No part of the value.
    """

    payload: str
    timestamp_ms: int
    message_id: str
    topic: str | None = None
    deleted: bool = False
    overtaken: int = field(default=0, compare=False)

    @property
    def order(self) -> tuple[int, str]:
        return (self.timestamp_ms, self.message_id)

    @property
    def seq(self) -> str:
        """Its place as text, for clients: of two values of a stream, the one with the higher text is newer.

        Fifteen digits of milliseconds last for 30,000 years. Message ids of devices are what `_SEQ_TIE` takes, so they
        order here as they do in `order`. An id that an upstream gave may have any characters. But the relay never
        gives two values of a stream the same millisecond, so there it decides nothing, and is left out when it is odd.
        """
        tie = self.message_id if _SEQ_TIE.fullmatch(self.message_id) else ""
        return f"{self.timestamp_ms:015d}-{tie}" if tie else f"{self.timestamp_ms:015d}"


#: `CatchUpRequest.told` of a viewer who has missed no status.
TOLD_ALL = -1


@dataclass(frozen=True, slots=True)
class CatchUpRequest:
    """A request to send a subscription, later, what it may have missed: the stream's last values, and its status.

    Attributes:
        key: of the subscription.
        generation: of the row. A row of another generation gets no catch-up.
        stream_key: of its stream.
        seen: the order of the value that the viewer was sent, by topic; under `""` where a stream has no topics. A
            topic that is not named counts as not seen.
        topics: those of which something may have been missed; None when it may be any.
        recovering: of a viewer who was away: what is still to be sent of the history.
        told: the stream's `status_number` when the viewer was told its status; `TOLD_ALL` when no status can have been
            missed; None when it is not known what the viewer was told.
        postponed: how often it was, because the send quota was used up.
    """

    key: SubscriptionKey
    generation: str
    stream_key: str
    seen: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    told: int | None = None
    topics: frozenset[str] | None = None
    recovering: Recovering | None = None
    postponed: int = 0
