"""What the gateway needs: access items, connections, subscriptions, streams and session tokens.

Conventions: see `ports.runtime`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tidegate.domain.access import owner_that_counts

if TYPE_CHECKING:
    from tidegate.domain.access import DashboardAccess, UserAccess
    from tidegate.domain.budgets import ConnectionRoom
    from tidegate.domain.crowds import Audience
    from tidegate.domain.subscriptions import (
        Connection,
        Fault,
        LastValue,
        Stream,
        Subscription,
        SubscriptionKey,
        TerminationClaim,
    )
    from tidegate.ports.runtime import ScanPage


class AccessSnapshot(NamedTuple):
    """Access items that were read together. Ids without an item are absent from the maps.

    `users` also has the owner of every dashboard that guests are shown: see `owner_that_counts`.
    """

    dashboards: Mapping[str, DashboardAccess]
    users: Mapping[str, UserAccess]

    def owner_of(self, dashboard_id: str) -> UserAccess | None:
        """The access item of the owner, where guests of the dashboard depend on it."""
        dashboard = self.dashboards.get(dashboard_id)
        owner_id = owner_that_counts(dashboard) if dashboard else None
        return self.users.get(owner_id) if owner_id else None


class AccessStore(Protocol):
    """Reads access items and intents."""

    def read(self, dashboard_ids: Iterable[str], user_ids: Iterable[str]) -> AccessSnapshot:
        """Read access items, strongly consistent, in as few calls as the store allows.

        Owners are known only once the dashboards are read. Those that count take one more call.
        """

    def intent(self, dashboard_id: str, datasource_id: str) -> Mapping[str, object] | None:
        """The canonical intent stored for a datasource (see `domain.intents`); None when there is none."""

    def intents_of(self, dashboard_id: str) -> Mapping[str, Mapping[str, object]]:
        """Datasource id -> `intent` of all datasources, in one read."""


class Reservation(StrEnum):
    """Outcome of `ConnectionStore.reserve`."""

    RESERVED = "reserved"
    GONE = "gone"  # no such connection, or it is closing
    FULL = "full"  # the connection has as many keys as it may have
    TOO_OFTEN = "too_often"  # the connection has begun as many subscriptions in this window as it may begin
    OTHER_DASHBOARD = "other_dashboard"  # the connection has this datasource id for another dashboard


class ConnectionStore(Protocol):
    def open(self, connection: Connection) -> None:
        """Store a new connection. Repeating changes nothing: an existing row with that id is left as it is."""

    def get(self, connection_id: str) -> Connection | None: ...

    def reserve(self, key: SubscriptionKey, seen: Connection, room: ConnectionRoom, slot: str) -> Reservation:
        """Add the key to the connection's set, count it, and note the slot that will be taken next, in one conditional
        write.

        Args:
            seen: the connection as it was read last. It decides nothing, and only saves a request.
            room: how many keys the connection may have, and how many it may add in the window.

        The condition: the connection is open and not closing, and it has the key already or has room for one more. A
        key that it has already is not counted. So repeating changes nothing.
        """

    def reserve_all(self, keys: Sequence[SubscriptionKey], room: ConnectionRoom, slot: str) -> bool:
        """Add several new keys of one connection and dashboard, count them, and note the slot, in one write.

        The condition: as for `reserve`, for every key, none of which the connection has. Otherwise nothing is written
        and the answer is False: `reserve` tells of each key why. A lost answer may hide that it was written.
        """

    def note_slot(self, connection_id: str, slot: str) -> bool:
        """Note another slot before it is taken. False when the connection is gone or closing."""

    def forget_slots(self, connection_id: str, slots: Iterable[str]) -> None:
        """Remove slots that were noted and not taken. No error when the connection is gone."""

    def remove(self, connection_id: str) -> Connection | None:
        """Delete the row and return it; None when it was gone already."""

    def has_any(self) -> bool:
        """Whether there is a row. Strongly consistent, at the price of one read."""

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Connection]]:
        """Read one of `segments` disjoint parts of the table, page by page, in no order.

        The parts together are the whole table, so this is for the full revalidation only. `after` is the `position`
        of a page: reading goes on behind it.
        """

    def close_if_empty(self, connection_id: str, *, never_subscribed: bool = False) -> bool:
        """Set `closing`, on the condition that the set of keys is empty. True when it is set, now or before.

        `never_subscribed`: on the further condition that no subscription ever began on it.
        """


class SomeSubscriptions(NamedTuple):
    """Rows that were read, and whether there are more than were read."""

    rows: Sequence[Subscription]
    more: bool


class SubscriptionStore(Protocol):
    def get(self, key: SubscriptionKey) -> Subscription | None: ...

    def get_all(self, keys: Sequence[SubscriptionKey]) -> Mapping[SubscriptionKey, Subscription]:
        """The rows that exist of these keys, which all differ, strongly consistent, in one read."""

    def put_hidden(self, row: Subscription) -> bool:
        """Write the row hidden, over the row that is stored under its key, if any.

        False, with nothing written, when the stored row

        - has a termination claim;
        - or is live with the same authorization: it is to be refreshed instead, because this subscribe may still fail;
        - or has a higher share version than this row. A member's row has no share version, so a member's row and a
          guest's may replace each other.
        """

    def make_visible(self, row: Subscription, shard: int = 0) -> bool:
        """Show the row in this shard of its stream's audience, if the stored one has its generation and no termination
        claim. True when it is visible now."""

    def move_expiry(self, row: Subscription, expires_at: int, session_token: str | None = None) -> bool:
        """Move the row's expiry forward (epoch seconds), and replace the token that is kept with it.

        The condition: the stored row is of the same generation, visible, and has no termination claim; otherwise False.
        True when the row expires at `expires_at` or later now.
        """

    def claim_termination(self, row: Subscription, claim: TerminationClaim, *, expired_at: int | None = None) -> bool:
        """Claim the termination of the row, and take the row out of the stream index.

        The condition: the stored row is of the same generation, and no other run has a claim on it that still holds.
        With `expired_at` (epoch seconds) the row must also expire no later than that, so a refresh in between wins.

        False when the row is of another generation, was refreshed, or is claimed by another run. Repeating with the
        same claim is harmless.
        """

    def remove(self, row: Subscription) -> bool:
        """Delete the row, and take its key out of the connection's set, in one transaction.

        The condition: the stored row has the same generation and the same termination claim as `row`. Otherwise nothing
        changes and the answer is False. A row or connection that is already gone is no error.
        """

    def release_key(self, key: SubscriptionKey) -> None:
        """Take the key out of the connection's set, on the condition that no row of the key exists."""

    def remove_all_of(self, connection: Connection) -> None:
        """Delete the subscriptions of a connection whose own row was removed. Repeating is harmless."""

    def of_dashboard(self, dashboard_id: str, after: str = "") -> Iterator[Subscription]:
        """All rows of a dashboard over all key shards, also hidden rows and rows with a termination claim.

        The rows of a connection come together, and connections always in the same order. `after` is the id of one:
        those up to it are left out.
        """

    def some_of_dashboard(self, dashboard_id: str, most: int) -> SomeSubscriptions:
        """`most` rows of a dashboard at most, also hidden rows and rows with a termination claim.

        It may lag, and is for showing how many there are. It ends no later than `most` rows take to read, whatever the
        dashboard has.
        """

    def of_user(self, user_id: str) -> Iterator[Subscription]:
        """*Index.* All rows whose principal is this user. Each is read again from the table."""

    def expired(self, now: float) -> Iterator[Sequence[Subscription]]:
        """*Index.* The rows whose token has expired at `now` and that are not deleted yet, in groups, oldest first.

        Each is read again from the table. So a row that was refreshed may be among them, with its new expiry. A group
        may be empty. The cost grows with the rows that are found, and not with those that are there.
        """

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Subscription]]:
        """Rows of one part of the table, as `ConnectionStore.scan`."""

    def mark_crowd(self, stream_key: str, until: int) -> None:
        """Mark that the stream's audience has more than one shard. `until`: epoch seconds. Repeating is harmless."""

    def audience(self, stream_key: str, *, or_first_shard: bool = False) -> Audience:
        """*Index.* The live rows of a stream.

        Args:
            or_first_shard: read no more than shard 0 when there are too many (see `domain.crowds`).
        """

    def audience_shard(self, stream_key: str, shard: int) -> Audience:
        """*Index.* The live rows of a stream in one shard of its audience."""


class SourceStreams(NamedTuple):
    """The streams of one source: an allowed topic, or the relay. `version` changes whenever a stream is added."""

    version: int
    streams: Sequence[Stream]


class StreamStore(Protocol):
    def touch(self, stream: Stream) -> Stream:
        """Create the stream, or move its `last_requested_at` forward, and return it as stored. Repeating is harmless.

        Each call counts as a subscribe. The count begins anew after `COUNTED_S`. One that is repeated may count twice.

        The version of the stream's source (see `version_of`) changes when the stream is new, or when it is a stream of
        the relay that is not connected. It has changed when this returns. So a message that arrives later finds the
        stream, and the relay worker reads its list of streams again.
        """

    def note_crowd(self, stream: Stream, until: int) -> None:
        """Note until when the audience is marked as that of a crowd. No error when the stream is gone."""

    def relayed(self, stream_key: str) -> Stream | None:
        """A stream of the relay, strongly consistent. None when there is none: an IoT rule feeds it, or it is gone."""

    def note_status(
        self, stream: Stream, connected: bool, fault: Fault | None = None, *, at: int | None = None
    ) -> bool:
        """Store the status of a stream of the relay: connected, or not, and then why. The next subscriber is told so.

        `at`: since when it is connected, epoch seconds; None is not known.

        True when it is another one than the stored. Then `status_number` grows.
        """

    def release_if_idle(self, stream: Stream) -> bool:
        """Store that it is not connected, without a fault.

        False and no change if requested since `stream.last_requested_at`.
        """

    def version_of(self, allowed_topic: str | None) -> int:
        """The version that `of_source` would return."""

    def of_source(self, allowed_topic: str | None) -> SourceStreams:
        """Streams of one allowed topic, or of the relay when it is None, that were requested within the last day."""


#: How long a sender that settles a stream is relied upon, seconds. It sends at most three values to all viewers.
SETTLE_S = 15


#: How long somebody who waits to send the newest value is relied upon, milliseconds. The wait itself is a second at
#: most, the interval of one value a second.
WAITS_MS = 5_000


#: How long a call that carries a topic is relied upon after it last said so, milliseconds. It says so five times a
#: second, or once in each interval of a topic if that is longer. Meanwhile newer values of the topic are left to it.
CARRIES_MS = 3_000


class Verdict(StrEnum):
    """What becomes of a value that was to be stored and sent."""

    OUTDATED = "outdated"  # a newer one is stored, and this one is not
    SEND = "send"  # now
    WAIT = "wait"  # until the interval is over, then send the newest
    LEAVE = "leave"  # somebody waits, and will send it or a newer one


class Admission(NamedTuple):
    """Answer of `LastValueStore.admit`. `until_ms`: when whoever waits may send; 0 for other verdicts."""

    verdict: Verdict
    until_ms: int = 0


class LastValueStore(Protocol):
    """Last values: one for each stream, or for each topic of a stream that has many. `topic` is None for the former."""

    def get(self, stream_key: str, topic: str | None = None, shard: int | None = None) -> LastValue | None:
        """The newest value, with what was noted about it for the sender of this shard of a crowd.

        None stands for the sender of the whole audience.
        """

    def newest(self, stream_key: str) -> Sequence[LastValue]:
        """All last values of a stream, strongly consistent, the newest first, at most `MOST_TOPICS`."""

    def put_if_newer(self, stream_key: str, value: LastValue) -> bool:
        """Store the value, unless a value of higher order is stored: then False.

        Repeating with the value that is stored returns True, so a lost answer does not lose the message. What was noted
        about the last value stays.
        """

    def admit(self, stream_key: str, value: LastValue, now_ms: int, interval_ms: int) -> Admission:
        """Store the value as `put_if_newer` does, and say whether it may be sent now.

        Two values of a topic are sent at least `interval_ms` apart. Of those that come earlier, the first waits for
        the others: whoever waits then sends the newest. Somebody who waits longer than `WAITS_MS` no longer counts.

        Args:
            now_ms: epoch milliseconds.
        """

    def claim(
        self, stream_key: str, topic: str | None, waiting: Admission, now_ms: int, interval_ms: int
    ) -> LastValue | None:
        """The newest value, for the one who has waited: it is to be sent now, and what comes after this waits anew.

        None when somebody else has taken over.
        """

    def carry(self, stream_key: str, topic: str | None, carrier: str, now_ms: int) -> LastValue | None:
        """Begin to carry a topic, or go on, in one write: for `CARRIES_MS`, newer values are left to the caller, and so
        is what others note as overtaken. Repeating is harmless.

        Args:
            carrier: an id of the caller's own.
            now_ms: epoch milliseconds.

        Returns:
            The newest value, with what was noted. None when somebody else carries the topic, or there is no value.
        """

    def end_carrying(
        self, stream_key: str, topic: str | None, carrier: str, sent: LastValue, now_ms: int, interval_ms: int
    ) -> bool:
        """End carrying, on the condition that `sent` is still the newest value, and that nothing was noted since it was
        read. The next value may be sent `interval_ms` later. False when that is not so, or the caller does not carry.
        """

    def hand_over(self, stream_key: str, topic: str | None, carrier: str, now_ms: int) -> LastValue | None:
        """End carrying without a condition: whoever stores the next value sends it. Returns as `carry`."""

    def trim(self, stream_key: str) -> int:
        """Delete the stalest values of a stream that has more than `MOST_TOPICS`. Returns how many.

        One that is replaced meanwhile stays.
        """

    def note_overtaken(self, stream_key: str, now: float, topic: str | None = None, shard: int | None = None) -> bool:
        """Note that an older value may have been sent after a newer one. `now`: epoch seconds.

        With a `shard`: note that there is a value for it. Each shard of a crowd has notes and a sender of its own.

        True when the caller has to settle: send the newest value, and ask `note_settled`. False when another sender
        does already, and will see the note. A sender that began to settle more than `SETTLE_S` ago no longer counts.
        """

    def go_on(self, stream_key: str, now: float, topic: str | None, shard: int) -> LastValue | None:
        """Say that the sender of a shard goes on, so that it is relied upon for `SETTLE_S` more. `now`: epoch seconds.

        Returns the newest value, with what was noted for the shard. None when there is no value any more.
        """

    def note_settled(
        self, stream_key: str, sent: LastValue | None, topic: str | None = None, shard: int | None = None
    ) -> bool:
        """End settling, on the condition that `sent` is still the newest value and that nothing was noted since it was
        read. False when that is not so: read again, and send again. With None there is no condition.

        Of a shard it is as good that there is no note any more: another sender has settled it, after sending the same
        value, or is succeeded by one who sends it. Otherwise two senders might undo each other's settling for ever.
        """
