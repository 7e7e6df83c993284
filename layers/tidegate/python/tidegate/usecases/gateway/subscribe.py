"""Subscribe one datasource on one connection, or refresh its token.

Messages of one connection may be handled at the same time, twice, and out of order. A revalidation may run at the same
time. The order of the steps keeps invariant 1 (a revoked viewer is never left subscribed):

    hold the upstream -> reserve the key -> take the slot -> put the row hidden -> verify -> make visible

A row that is put before a revalidation queries the rows is seen by it. A row that is put later is verified after the
change. Every subscribe gives its row a new generation. Every write is conditional on the generation, so two subscribes
never act on each other's rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.domain.access import Refusal
from tidegate.domain.budgets import ConnectionRoom, address_part, new_subscriptions
from tidegate.domain.limits import (
    PUBLIC_SUBSCRIBE_IP_SCOPE,
    PUBLIC_SUBSCRIBE_SHARE_SCOPE,
    gateway_key,
    window_left_ms,
    window_of,
)
from tidegate.domain.subscriptions import Connection, Stream, Subscription, SubscriptionKey, same_authorization
from tidegate.domain.switches import REALTIME_OFF
from tidegate.domain.tokens import SessionClaims
from tidegate.errors import Denied, Disabled, LimitReached, NotFound, TidegateError, Unauthenticated, Unavailable
from tidegate.ports.gateway import ConnectionStore, Reservation, SessionTokens, StreamStore, SubscriptionStore
from tidegate.ports.runtime import Clock, Ids, Observer
from tidegate.usecases.gateway.authorizer import Authorization, Authorizer
from tidegate.usecases.limits.connection_quota import ConnectionQuota, dashboard_cap, home_slot
from tidegate.usecases.limits.deadline import LimiterDeadline
from tidegate.usecases.limits.rate_limits import RateLimits
from tidegate.usecases.limits.upstream_quota import UpstreamQuota

#: How often a subscribe is tried before it is refused. It starts over when it lost its row to another subscribe, or met
#: a row that is being terminated.
ROUNDS = 4


class Busy(Unavailable):
    """Other subscribes of the same key kept winning, or the viewer was not yet notified of the row's termination."""

    code = "subscription_busy"


@dataclass(frozen=True, slots=True)
class SubscribePolicy:
    """Settings of subscribing.

    Attributes:
        enabled: whether realtime is switched on.
        subscriptions_per_connection: the most at the same time. `domain.budgets` derives how many may begin in a
            minute.
        connections_per_dashboard: the most that hold a subscription of it at the same time.
        rate_per_ip: new subscriptions with public tokens of an address in a minute. A refresh is none.
        rate_per_share_version: connections of a dashboard and share version that begin to watch it in a minute, with
            public tokens that name no viewer. Who is named was counted when the first token was minted.
    """

    subscriptions_per_connection: int
    connections_per_dashboard: int
    rate_per_ip: int
    rate_per_share_version: int
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The outcome of a subscribe.

    Attributes:
        row: the live row.
        stream: its stream as stored.
        refreshed: whether the row was there before. A refresh sends no status and no value.
        checked_at: when the read of access items that admitted the row began, monotonic seconds.
    """

    row: Subscription
    stream: Stream
    refreshed: bool
    checked_at: float


class Subscribe:
    """The use case behind `subscribe`."""

    def __init__(
        self,
        *,
        policy: SubscribePolicy,
        tokens: SessionTokens,
        rates: RateLimits,
        authorizer: Authorizer,
        quota: ConnectionQuota,
        upstreams: UpstreamQuota,
        connections: ConnectionStore,
        subscriptions: SubscriptionStore,
        streams: StreamStore,
        clock: Clock,
        ids: Ids,
        observer: Observer,
    ) -> None:
        self._policy = policy
        self._tokens = tokens
        self._rates = rates
        self._authorizer = authorizer
        self._quota = quota
        self._upstreams = upstreams
        self._connections = connections
        self._subscriptions = subscriptions
        self._streams = streams
        self._clock = clock
        self._ids = ids
        self._observer = observer

    def __call__(self, connection_id: str, dashboard_id: str, datasource_id: str, token: str) -> Subscribed:
        """Subscribe or refresh.

        Raises:
            TidegateError: the refusal. It does not change a subscription that is already there.
        """
        if not self._policy.enabled:
            raise Disabled(REALTIME_OFF)
        claims = self._tokens.verify(token, self._clock.now())
        if (claims.dashboard_id, claims.datasource_id) != (dashboard_id, datasource_id):
            raise Denied("Datasource identifiers do not match token claims")
        connection = self._open_connection(connection_id)
        deadline = self._rates.deadline()
        if claims.principal.is_public and datasource_id not in connection.subscriptions:
            self._limit(claims, connection, deadline)
        checked_at = self._clock.monotonic()
        authorization = self._authorizer(claims, token, self._clock.now())
        key = SubscriptionKey(dashboard_id, connection_id, datasource_id)
        for _ in range(ROUNDS):
            if connection.subscriptions.get(datasource_id, dashboard_id) != dashboard_id:
                raise Denied("Datasource token dashboard mismatch")
            done = self._round(key, connection, authorization, checked_at, deadline)
            if done is not None:
                self._observer.count("subscribes", refreshed=str(done.refreshed).lower())
                return done
            connection = self._open_connection(connection_id)
        raise Busy("Subscription update already in progress")

    def _limit(self, claims: SessionClaims, connection: Connection, deadline: LimiterDeadline) -> None:
        """Count a new subscription of a public viewer. A refresh is bounded by its own connection alone."""

        def consume(scope: str, key: str, limit: int, whose: str) -> None:
            refusal = f"Too many public realtime subscribe requests {whose}: at most {limit} in a minute"
            self._rates.consume(scope, key, limit, deadline=deadline, refusal=refusal)

        consume(PUBLIC_SUBSCRIBE_IP_SCOPE, connection.ip, self._policy.rate_per_ip, "from this address")
        if claims.viewer_id is not None or claims.dashboard_id in connection.subscriptions.values():
            return
        shared, limit = f"{claims.dashboard_id}:{claims.principal.share_version}", self._policy.rate_per_share_version
        here = "for this dashboard from this address"
        consume(PUBLIC_SUBSCRIBE_IP_SCOPE, f"{connection.ip}|{shared}", address_part(limit), here)
        consume(PUBLIC_SUBSCRIBE_SHARE_SCOPE, gateway_key(shared), limit, "for this dashboard")

    def _open_connection(self, connection_id: str) -> Connection:
        connection = self._connections.get(connection_id)
        if connection is None or connection.closing:
            raise Unauthenticated("The connection is closed", code="connection_closed")
        return connection

    def _round(
        self,
        key: SubscriptionKey,
        connection: Connection,
        authorization: Authorization,
        checked_at: float,
        deadline: LimiterDeadline,
    ) -> Subscribed | None:
        """One try. None when another subscribe or a termination interfered: start over."""
        there = self._subscriptions.get(key)
        if there is not None and there.termination:
            return None
        if there is not None and there.live and same_authorization(there.claim, authorization.claim):
            # When its token has ended, its place may be taken by now.
            self._hold(authorization, deadline, goes_on=there.claim.expires_at > self._clock.now())
            moved = self._subscriptions.move_expiry(there, authorization.claim.expires_at, authorization.session_token)
            return Subscribed(there, authorization.stream, True, checked_at) if moved else None
        self._hold(authorization, deadline, goes_on=False)
        slot = self._admit(key, connection, deadline)
        stream = self._streams.touch(authorization.stream)
        row = Subscription(
            key=key,
            generation=self._ids.new_id(),
            claim=authorization.claim,
            stream_key=stream.stream_key,
            batch=connection.batch,
            protocol=stream.protocol,
            session_token=authorization.session_token,
        )
        if not self._subscriptions.put_hidden(row):
            return None
        checked_at = self._clock.monotonic()
        if self._verified(row, slot, deadline) and self._subscriptions.make_visible(row):
            return Subscribed(row, stream, False, checked_at)
        return None

    def _hold(self, authorization: Authorization, deadline: LimiterDeadline, *, goes_on: bool) -> None:
        """Hold the upstream for the dashboard's owner, before the row lives that needs it.

        `goes_on`: a subscription that lives needs it, so it is not refused.
        """
        stream, owner_id = authorization.stream, authorization.owner_id
        if stream.relayed and owner_id is not None:
            hold = self._upstreams.keep if goes_on else self._upstreams.take
            hold(owner_id, stream.stream_key, authorization.claim.expires_at, deadline)

    def _admit(self, key: SubscriptionKey, connection: Connection, deadline: LimiterDeadline) -> str | None:
        """Reserve the key and take a slot of the dashboard, or neither.

        Returns the slot; None when the limiter's store is down and its failure mode is fail-open.
        """
        cap, limit = dashboard_cap(key.dashboard_id), self._policy.connections_per_dashboard
        noted = {slot for slot in connection.slots if slot.rpartition("#")[0] == cap}
        noted = noted or {home_slot(cap, key.connection_id, limit)}
        self._reserve(key, connection, min(noted))

        def note(slot: str) -> bool:
            noted.add(slot)
            return self._connections.note_slot(key.connection_id, slot)

        try:
            slot = self._quota.take(
                cap,
                key.connection_id,
                limit,
                refusal=f"Realtime dashboard connection limit reached: at most {limit} connections",
                noted=frozenset(noted),
                note=note,
                deadline=deadline,
            )
        except TidegateError:
            self._subscriptions.release_key(key)
            raise
        if slot is not None:
            # Other slots were full. If they stayed noted, the next subscribe could take one of them in addition.
            self._connections.forget_slots(key.connection_id, noted - {slot})
        return slot

    def _reserve(self, key: SubscriptionKey, connection: Connection, slot: str) -> None:
        """Reserve the key, or raise the refusal."""
        at_once, now_ms = self._policy.subscriptions_per_connection, int(self._clock.now() * 1000)
        room = ConnectionRoom(at_once, window_of(now_ms), new_subscriptions(at_once))
        match self._connections.reserve(key, connection, room, slot):
            case Reservation.GONE:
                raise Unauthenticated("The connection is closed", code="connection_closed")
            case Reservation.FULL:
                refusal = f"Realtime subscription limit reached for this connection: at most {room.at_once}"
                raise LimitReached(f"{refusal}, so unsubscribe from another datasource first", code="cap_reached")
            case Reservation.TOO_OFTEN:
                refusal = f"Too many new subscriptions on this connection: at most {room.in_window} in a minute"
                raise LimitReached(refusal, code="new_subscriptions", retry_after_ms=window_left_ms(now_ms))
            case Reservation.OTHER_DASHBOARD:
                raise Denied("Datasource token dashboard mismatch")
            case Reservation.RESERVED:
                pass

    def _verified(self, row: Subscription, slot: str | None, deadline: LimiterDeadline) -> bool:
        """Read everything again, strongly consistent, now that the row is put. If it does not hold, take the row back.

        Returns:
            True when it holds. False when another subscribe or unsubscribe removed the key in between: start over.

        Raises:
            Denied, NotFound, Unauthenticated: the right or the datasource is lost, or the connection is closed.
            Unavailable: a store did not answer.
        """
        try:
            refusal = self._authorizer.recheck(row.claim, self._clock.now())
            connection = self._connections.get(row.key.connection_id)
        except Unavailable:
            self._take_back(row)
            raise
        if connection is None or connection.closing:
            self._take_back(row)
            if connection is None and slot is not None:
                # The connection was removed, and its slots may have been freed before this one was taken.
                self._quota.free([slot], row.key.connection_id, deadline)
            raise Unauthenticated("The connection is closed", code="connection_closed")
        if refusal is not None:
            self._take_back(row)
            if refusal is Refusal.REVOKED:
                raise Denied("Dashboard access denied")
            if refusal is Refusal.REMOVED:
                raise NotFound("Datasource not found")
            raise Unauthenticated("Datasource session token is no longer valid", code=f"token_{refusal.value}")
        if connection.subscriptions.get(row.key.datasource_id) != row.key.dashboard_id:
            self._take_back(row)
            return False
        return True

    def _take_back(self, row: Subscription) -> None:
        try:
            self._subscriptions.remove(row)
        except Unavailable:
            # The row stays hidden, so nothing is sent for it. The full revalidation removes it.
            self._observer.count("rows_not_taken_back")
