"""What the gateway needs: access items, connections, subscriptions, streams and session tokens; conventions as in
`ports.runtime`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tidegate.domain.access import DashboardAccess, UserAccess
    from tidegate.domain.subscriptions import (
        Connection,
        LastValue,
        Stream,
        Subscription,
        SubscriptionKey,
        TerminationClaim,
    )
    from tidegate.domain.tokens import SessionClaims
    from tidegate.ports.runtime import ScanPage


@dataclass(frozen=True, slots=True)
class AccessSnapshot:
    """Access items read together; ids without an item are absent from the maps."""

    dashboards: Mapping[str, DashboardAccess]
    users: Mapping[str, UserAccess]


class AccessStore(Protocol):
    """The access items."""

    def read(self, dashboard_ids: Iterable[str], user_ids: Iterable[str]) -> AccessSnapshot:
        """Read access items strongly, in as few calls as the store allows."""

    def intent(self, dashboard_id: str, datasource_id: str) -> Mapping[str, object] | None:
        """The canonical intent stored for a datasource (see `domain.intents`), None when there is none."""


class Reservation(StrEnum):
    """Outcome of `ConnectionStore.hold`."""

    HELD = "held"
    GONE = "gone"  # no such connection, or it is closing
    FULL = "full"  # its set is at the cap
    OTHER_DASHBOARD = "other_dashboard"  # it holds this datasource id for another dashboard


class ConnectionStore(Protocol):
    def open(self, connection: Connection) -> None:
        """Store a new connection. Repeating changes nothing: an existing row of that id is left as it is."""

    def get(self, connection_id: str) -> Connection | None: ...

    def reserve(self, key: SubscriptionKey, cap: int, slot: str) -> Reservation:
        """Add the key to the connection's set and note the slot it is about to take, in one conditional write.

        Holds when the connection is open, not closing, and either holds the key already or its set is below
        `cap`. Repeating changes nothing.
        """

    def note_slot(self, connection_id: str, slot: str) -> bool:
        """Note a further slot before it is taken. False when the connection is gone or closing."""

    def forget_slots(self, connection_id: str, slots: Iterable[str]) -> None:
        """Remove slots that were noted but not taken. No error when the connection is gone."""

    def remove(self, connection_id: str) -> Connection | None:
        """Delete the row and return what it was; None when it was gone already."""

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Connection]]:
        """One of `segments` disjoint parts of the table, which are all of it, page by page, in no order; from a page's
        `position` on when `after` gives one. For the full revalidation only: together they read the whole table."""

    def close_if_empty(self, connection_id: str) -> bool:
        """Mark `closing` on the condition that the set is empty. True when marked now or before."""


class SubscriptionStore(Protocol):
    def get(self, key: SubscriptionKey) -> Subscription | None: ...

    def put_hidden(self, row: Subscription) -> bool:
        """Write the row hidden over whatever is there, unless that is terminated, or live on the same grant (which is
        to be refreshed: this attempt may yet fail), or this row has a share version and what is there a higher one:
        then False. (A member's row has none; it and a guest's may replace each other.)"""

    def make_visible(self, row: Subscription) -> bool:
        """Show the row, conditional on it being of this attempt and not terminated. True when visible now."""

    def move_expiry(self, row: Subscription, expires_at: int, session_token: str | None = None) -> bool:
        """Move `exp` forward on the very row seen (same attempt, visible, not terminated), and the token kept with it.

        True when the row's `exp` is now `expires_at` or later; False when it is another row, hidden or terminated.
        """

    def claim_termination(self, row: Subscription, mark: TerminationClaim, *, expired_at: int | None = None) -> bool:
        """Mark ended and take it out of the stream index, conditional on the attempt and on no other run's mark that
        still holds.

        With `expired_at` (epoch seconds) also conditional on `exp` being no later, so that a refresh in between wins.
        False when it is another row, was refreshed, or is another run's. Repeating with the same mark is harmless.
        """

    def remove(self, row: Subscription) -> bool:
        """Delete the row, conditional on its attempt and its mark being those seen, and its key from the connection's
        set, in one transaction.

        False when another attempt's row is there, or it was marked meanwhile (nothing changes). A row or connection
        already gone is fine.
        """

    def release_key(self, key: SubscriptionKey) -> None:
        """Take the key out of the connection's set, on the condition that no row of it exists."""

    def remove_all_of(self, connection: Connection) -> None:
        """Delete the rows of a connection whose own row was removed. Repeating is harmless."""

    def of_dashboard(self, dashboard_id: str) -> Iterator[Subscription]:
        """All rows of a dashboard, hidden and cut ones too, all shards."""

    def of_user(self, user_id: str) -> Iterator[Subscription]:
        """*Index.* All rows whose principal is this user, each read again from the table."""

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Subscription]]:
        """Rows of one part of the table, as `ConnectionStore.scan`."""

    def audience(self, stream_key: str) -> Sequence[Subscription]:
        """*Index.* The live rows of a stream."""


@dataclass(frozen=True, slots=True)
class SourceStreams:
    """The streams one allowed topic feeds. `version` moves whenever one is added."""

    version: int
    streams: Sequence[Stream]


class StreamStore(Protocol):
    def touch(self, stream: Stream) -> Stream:
        """Create or touch the stream (`last_requested_at` only moves forward) and return it as stored.

        When it returns, `version_of` the stream's entry has moved if the stream is new, or is the relay's and not
        connected: a message that arrives later finds it, and a worker that holds the relay's streams looks at them.
        Repeating is harmless.
        """

    def note_connected(self, stream: Stream, connected: bool) -> None:
        """Write down whether a stream of the relay is connected, for whoever subscribes next."""

    def release_if_idle(self, stream: Stream) -> bool:
        """Note that it is not connected, unless somebody wanted it after `stream.wanted_at`: then False."""

    def version_of(self, allowed_topic: str | None) -> int:
        """What `of_source` would answer as its version."""

    def of_source(self, allowed_topic: str | None) -> SourceStreams:
        """Streams fed by one allowed topic, or, without one, by the relay, which somebody wanted within a day."""


class LastValueStore(Protocol):
    def get(self, stream_key: str) -> LastValue | None: ...

    def put_if_newer(self, stream_key: str, value: LastValue) -> bool:
        """Store unless a value of equal or higher order is there: then False. A repetition of the very value
        that is stored answers True, so that a lost answer does not lose the message."""


class SessionTokens(Protocol):
    def verify(self, token: str, now: float) -> SessionClaims:
        """Check signature, issuer, audience and expiry. Raises `Unauthenticated`."""

    def sign(self, claims: SessionClaims) -> str: ...
