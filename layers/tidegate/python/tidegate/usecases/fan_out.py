"""Deliver one message of a stream to its subscriptions.

Invariant of this file (invariant 2 of the product): a body leaves only to a row that `allowed` admitted from access
items whose read *started* at most one second ago, and whose token has not expired at that moment. An answer that
cannot be had withholds the data. Every retry asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tidegate.domain import messages
from tidegate.domain.access import DashboardAccess, UserAccess, allowed
from tidegate.domain.errors import CouldNotCheck
from tidegate.domain.messages import ErrorCode, Status
from tidegate.domain.subscriptions import LastValue, Stream, Subscription, SubscriptionKey
from tidegate.ports import (
    AccessStore,
    Clock,
    Delivery,
    LastValueStore,
    Observer,
    Post,
    SecondLooks,
    Sender,
    SubscriptionStore,
)
from tidegate.usecases.end_connection import EndConnection

#: How long an answer of the access table or an audience may be used, seconds from the start of its read.
FRESH_S = 1.0


class FreshAccess:
    """Access items, each used for at most a second from the start of its read."""

    def __init__(self, access: AccessStore, clock: Clock) -> None:
        self._access = access
        self._clock = clock
        self._dashboards: dict[str, tuple[float, DashboardAccess | None]] = {}
        self._users: dict[str, tuple[float, UserAccess | None]] = {}

    def load(self, rows: Iterable[Subscription]) -> None:
        """Read, in one go, what these rows need and is not fresh. Raises `CouldNotCheck`."""
        started = self._clock.monotonic()
        dashboards, users = set(), set()
        for row in rows:
            dashboards.add(row.key.dashboard_id)
            if not row.claim.principal.is_public:
                users.add(row.claim.principal.subject)
        self._dashboards = {one: kept for one, kept in self._dashboards.items() if started - kept[0] < FRESH_S}
        self._users = {one: kept for one, kept in self._users.items() if started - kept[0] < FRESH_S}
        dashboards -= self._dashboards.keys()
        users -= self._users.keys()
        if dashboards or users:
            snapshot = self._access.read(sorted(dashboards), sorted(users))
            self._dashboards |= {one: (started, snapshot.dashboards.get(one)) for one in dashboards}
            self._users |= {one: (started, snapshot.users.get(one)) for one in users}

    def allows(self, row: Subscription) -> bool:
        """Whether the row may be sent data now; reads again what has aged.

        Raises `CouldNotCheck`, also when the answer took so long that it had aged before it was here.
        """
        for last in (False, True):
            now = self._clock.now()
            dashboard = self._dashboards.get(row.key.dashboard_id)
            public = row.claim.principal.is_public
            user = None if public else self._users.get(row.claim.principal.subject)
            # The age is looked at last, so that nothing but the sending comes after it.
            oldest_allowed = self._clock.monotonic() - FRESH_S
            if (
                dashboard is not None
                and dashboard[0] > oldest_allowed
                and (public or (user is not None and user[0] > oldest_allowed))
            ):
                return allowed(row.claim, dashboard[1], user[1] if user else None, now) is None
            if not last:
                self.load([row])
        raise CouldNotCheck("The access items were not read in time", code="access_too_old")


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of one message: viewers per outcome."""

    outcomes: Mapping[Delivery, int]

    @property
    def count(self) -> int:
        return self.outcomes.get(Delivery.DELIVERED, 0)


class FanOut:
    """Deliver messages; keeps audiences and access items for at most a second."""

    def __init__(
        self,
        *,
        subscriptions: SubscriptionStore,
        last_values: LastValueStore,
        access: AccessStore,
        second_looks: SecondLooks,
        sender: Sender,
        end_connection: EndConnection,
        max_message_bytes: int,
        clock: Clock,
        observer: Observer,
        may_send: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may_send` is asked before every send and every retry: a relay that lost its lease sends nothing more."""
        self._may = may_send
        self._subscriptions = subscriptions
        self._last_values = last_values
        self._access = FreshAccess(access, clock)
        self._second_looks = second_looks
        self._sender = sender
        self._end_connection = end_connection
        self._max_bytes = max_message_bytes
        self._clock = clock
        self._observer = observer
        self._audiences: dict[str, tuple[float, Sequence[Subscription]]] = {}

    def deliver(self, stream: Stream, value: LastValue) -> Delivered:
        """Keep the value as the stream's newest and send it to everyone who may have it.

        A message older than the newest is dropped. Raises `CouldNotCheck` when nothing was sent because a store
        did not answer.
        """
        # The shortest frame there can be; each datasource id is checked again on its own frame.
        if len(value.payload.encode("utf-8", "surrogatepass")) > self._max_bytes:
            return self.tell(stream, ErrorCode.MESSAGE_TOO_LARGE, "Realtime payload exceeded message limit")
        if not self._last_values.put_if_newer(stream.stream_key, value):
            self._observer.count("messages_outdated")
            return Delivered({})
        at = value.timestamp_ms / 1000
        delivered = self._send_all(stream, lambda datasource_id: messages.data(datasource_id, value.payload, at))
        self._observer.count("messages_fanned_out")
        return delivered

    def tell(self, stream: Stream, code: ErrorCode, text: str, *, status: bool = False) -> Delivered:
        """Tell the stream's viewers of a fault: of one message, or, with `status`, of the upstream."""
        now = self._clock.now()
        told = self._send_all(
            stream, lambda datasource_id: messages.encode(messages.error(datasource_id, code, text, now))
        )
        if status:
            told = self._send_all(
                stream,
                lambda datasource_id: messages.encode(messages.status(datasource_id, Status.ERROR, now, code, text)),
            )
        return told

    def connected(self, stream: Stream) -> Delivered:
        """Tell the stream's viewers that its upstream is connected."""
        now = self._clock.now()
        return self._send_all(
            stream, lambda datasource_id: messages.encode(messages.status(datasource_id, Status.CONNECTED, now))
        )

    def has_audience(self, stream: Stream) -> bool:
        """*Index.* Whether anybody is subscribed, asked now."""
        return any(self._subscriptions.audience(f"{stream.stream_key}#{shard}") for shard in range(stream.shards))

    def _send_all(self, stream: Stream, frame: Callable[[str], bytes]) -> Delivered:
        rows = [row for shard in range(stream.shards) for row in self._audience(f"{stream.stream_key}#{shard}")]
        if not rows:
            return Delivered({})
        self._access.load(rows)
        bodies = {one: self._fitting(one, frame(one)) for one in {row.key.datasource_id for row in rows}}
        outcomes: dict[Delivery, int] = {}
        gone: set[str] = set()
        unchecked: set[SubscriptionKey] = set()
        posts = (Post(row.key.connection_id, bodies[row.key.datasource_id], row) for row in rows)
        for posted in self._sender.post_many(posts, before_each=lambda post: self._may_send(post, unchecked)):
            outcomes[posted.delivery] = outcomes.get(posted.delivery, 0) + 1
            row = posted.post.tag
            assert isinstance(row, Subscription)
            if posted.delivery is Delivery.GONE:
                gone.add(row.key.connection_id)
            elif posted.delivery in (Delivery.THROTTLED, Delivery.FAILED) or row.key in unchecked:
                self._try_again_later(row, stream)
        self._release(gone)
        for delivery, count in outcomes.items():
            self._observer.count("deliveries", count, outcome=delivery.value)
        return Delivered(outcomes)

    def _audience(self, shard: str) -> Sequence[Subscription]:
        started = self._clock.monotonic()
        kept = self._audiences.get(shard)
        if kept is None or started - kept[0] >= FRESH_S:
            kept = (started, self._subscriptions.audience(shard))
            self._audiences = {
                one: audience for one, audience in self._audiences.items() if started - audience[0] < FRESH_S
            }
            self._audiences[shard] = kept
        return kept[1]

    def _may_send(self, post: Post, unchecked: set[SubscriptionKey]) -> bool:
        assert isinstance(post.tag, Subscription)
        try:
            return self._access.allows(post.tag) and self._may()
        except CouldNotCheck:
            self._observer.count("withheld_unchecked")
            unchecked.add(post.tag.key)
            return False

    def _fitting(self, datasource_id: str, body: bytes) -> bytes:
        if len(body) <= self._max_bytes:
            return body
        text = "Realtime payload exceeded message limit"
        return messages.encode(messages.error(datasource_id, ErrorCode.MESSAGE_TOO_LARGE, text, self._clock.now()))

    def _try_again_later(self, row: Subscription, stream: Stream) -> None:
        """The newest value is always tried again; by then it may be a newer one."""
        try:
            self._second_looks.queue(row.key, row.attempt, stream.stream_key, None)
        except CouldNotCheck:
            self._observer.count("second_looks_lost")

    def _release(self, connections: Collection[str]) -> None:
        """One viewer that is gone never keeps the message from the others, nor does cleaning up after it."""
        for connection_id in connections:
            try:
                self._end_connection.gone(connection_id)
            except CouldNotCheck:
                self._observer.count("viewers_not_released")
