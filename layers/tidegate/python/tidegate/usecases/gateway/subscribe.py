"""Subscribe one datasource or several on one connection, or refresh their token.

Messages of one connection may be handled at the same time, twice, and out of order. A revalidation may run at the same
time. The order of the steps keeps invariant 1 (a revoked viewer is never left subscribed):

    hold the upstream -> wake the schedule -> reserve the key -> take the slot -> put the row hidden -> verify
    -> make visible

A row that is put before a revalidation queries the rows is seen by it. A row that is put later is verified after the
change. Every subscribe gives its row a new generation. Every write is conditional on the generation, so two subscribes
never act on each other's rows.

Several datasources take the same steps together: one check, one reservation, one slot, and one verification after all
rows are put. A datasource that meets another subscribe, or a termination, goes on alone with the steps of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from tidegate.domain.access import Refusal
from tidegate.domain.budgets import ConnectionRoom, address_part, new_subscriptions
from tidegate.domain.crowds import mark_until, shard_of
from tidegate.domain.limits import (
    PUBLIC_SUBSCRIBE_IP_SCOPE,
    PUBLIC_SUBSCRIBE_SHARE_SCOPE,
    Cap,
    Rate,
    gateway_key,
    window_left_ms,
    window_of,
)
from tidegate.domain.subscriptions import Connection, Stream, Subscription, SubscriptionKey, same_authorization
from tidegate.domain.switches import REALTIME_OFF
from tidegate.domain.tokens import SessionClaims
from tidegate.errors import (
    Denied,
    Disabled,
    InvalidInput,
    LimitReached,
    NotFound,
    TidegateError,
    Unauthenticated,
    Unavailable,
)
from tidegate.ports.gateway import ConnectionStore, Reservation, StreamStore, SubscriptionStore
from tidegate.ports.runtime import Clock, Ids, Observer
from tidegate.ports.tokens import SessionTokens
from tidegate.usecases.gateway.authorizer import Authorization, Authorizer
from tidegate.usecases.limits.connection_quota import ConnectionQuota, dashboard_cap, home_slot
from tidegate.usecases.limits.deadline import LimiterDeadline
from tidegate.usecases.limits.rate_limits import RateLimits
from tidegate.usecases.limits.upstream_quota import UpstreamQuota

if TYPE_CHECKING:
    from tidegate.domain.history import History

#: How often a subscribe is tried before it is refused. It starts over when it lost its row to another subscribe, or met
#: a row that is being terminated.
ROUNDS = 4


class TooManyDatasources(InvalidInput):
    """A `subscribe` names more datasources than a connection may have subscriptions."""

    code = "too_many_datasources"


class Busy(Unavailable):
    """Other subscribes of the same key kept winning, or the viewer was not yet notified of the row's termination."""

    code = "subscription_busy"


class SubscribePolicy(NamedTuple):
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

    def rates(self, claims: SessionClaims, ip: str, *, watching: bool) -> Iterator[Rate]:
        """What a new subscription counts in, in this order. Nothing for a signed-in viewer.

        Args:
            ip: what is stored of the address.
            watching: whether the connection watches the dashboard already.
        """
        if not claims.principal.is_public:
            return

        def rate(scope: str, key: str, limit: int, whose: str) -> Rate:
            refusal = f"Too many public realtime subscribe requests {whose}: at most {limit} in a minute"
            return Rate(scope, key, limit, refusal)

        yield rate(PUBLIC_SUBSCRIBE_IP_SCOPE, ip, self.rate_per_ip, "from this address")
        if claims.viewer_id is not None or watching:
            return
        shared, limit = f"{claims.dashboard_id}:{claims.principal.share_version}", self.rate_per_share_version
        here = "for this dashboard from this address"
        yield rate(PUBLIC_SUBSCRIBE_IP_SCOPE, f"{ip}|{shared}", address_part(limit), here)
        yield rate(PUBLIC_SUBSCRIBE_SHARE_SCOPE, gateway_key(shared), limit, "for this dashboard")

    def cap(self, dashboard_id: str) -> Cap:
        """How many connections may watch the dashboard."""
        limit = self.connections_per_dashboard
        refusal = f"Realtime dashboard connection limit reached: at most {limit} connections"
        return Cap(dashboard_cap(dashboard_id), limit, refusal)


class Subscribed(NamedTuple):
    """The outcome of a subscribe.

    Attributes:
        row: the live row.
        stream: its stream as stored.
        refreshed: whether the row was there before. A refresh sends no status and no value.
        checked_at: when the read of access items that admitted the row began, monotonic seconds.
        history: what the datasource asks for; None for none.
    """

    row: Subscription
    stream: Stream
    refreshed: bool
    checked_at: float
    history: History | None = None


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
        wake_schedule: Callable[[], None],
        clock: Clock,
        ids: Ids,
        observer: Observer,
    ) -> None:
        """`wake_schedule`: sees to it that what expires or is revoked will be looked for; raises `Unavailable`."""
        self._policy = policy
        self._tokens = tokens
        self._rates = rates
        self._authorizer = authorizer
        self._quota = quota
        self._upstreams = upstreams
        self._connections = connections
        self._subscriptions = subscriptions
        self._streams = streams
        self._wake_schedule = wake_schedule
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
        claims = self._tokens.verify(token, self._clock.now()).of_datasource(dashboard_id, datasource_id)
        connection = self._open_connection(connection_id)
        deadline = self._rates.deadline()
        if datasource_id not in connection.subscriptions:
            self._limit(claims, connection, deadline)
        checked_at = self._clock.monotonic()
        authorization = self._authorizer(claims, token, self._clock.now())
        key = SubscriptionKey(dashboard_id, connection_id, datasource_id)
        return self._alone(key, connection, authorization, checked_at, deadline)

    def several(
        self, connection_id: str, dashboard_id: str, datasource_ids: Sequence[str], token: str
    ) -> Mapping[str, Subscribed | Exception]:
        """Subscribe or refresh several datasources of a dashboard. None of them refuses another.

        Args:
            datasource_ids: they all differ.

        Returns:
            For each datasource, in order, its outcome, or why it is refused.

        Raises:
            TooManyDatasources: nothing was done.
            TidegateError: all are refused for the same reason. It does not change what is there.
        """
        if not self._policy.enabled:
            raise Disabled(REALTIME_OFF)
        most = self._policy.subscriptions_per_connection
        if len(datasource_ids) > most:
            raise TooManyDatasources(f"subscribe names {len(datasource_ids)} datasources: at most {most} at once")
        claims = self._tokens.verify(token, self._clock.now())
        connection = self._open_connection(connection_id)
        deadline = self._rates.deadline()
        outcomes: dict[str, Subscribed | Exception] = {}
        asked: dict[SubscriptionKey, SessionClaims] = {}
        for datasource_id in datasource_ids:
            key = SubscriptionKey(dashboard_id, connection_id, datasource_id)
            with _answered(outcomes, key):
                narrowed = claims.of_datasource(dashboard_id, datasource_id)
                _same_dashboard(connection, key)
                asked[key] = narrowed
        if any(key.datasource_id not in connection.subscriptions for key in asked):
            self._limit(claims, connection, deadline)
        checked_at = self._clock.monotonic()
        authorizations = self._authorizer.of_all(list(asked.values()), token, self._clock.now()) if asked else ()
        answers = list(zip(asked, authorizations, strict=True))
        outcomes |= {key.datasource_id: answer for key, answer in answers if isinstance(answer, TidegateError)}
        admitted = {key: answer for key, answer in answers if isinstance(answer, Authorization)}
        if admitted:
            outcomes |= self._together(admitted, connection, checked_at, deadline)
        for key, authorization in admitted.items():
            if key.datasource_id not in outcomes:
                with _answered(outcomes, key):
                    connection = self._open_connection(connection_id)
                    alone = self._alone(key, connection, authorization, checked_at, deadline)
                    outcomes[key.datasource_id] = alone
        return {datasource_id: outcomes[datasource_id] for datasource_id in datasource_ids}

    def _alone(
        self,
        key: SubscriptionKey,
        connection: Connection,
        authorization: Authorization,
        checked_at: float,
        deadline: LimiterDeadline,
    ) -> Subscribed:
        for _ in range(ROUNDS):
            _same_dashboard(connection, key)
            done = self._round(key, connection, authorization, checked_at, deadline)
            if done is not None:
                self._observer.count("subscribes", refreshed=str(done.refreshed).lower())
                return done
            connection = self._open_connection(key.connection_id)
        raise Busy("Subscription update already in progress")

    def _limit(self, claims: SessionClaims, connection: Connection, deadline: LimiterDeadline) -> None:
        """Count a new subscription of a public viewer. A refresh is bounded by its own connection alone."""
        watching = claims.dashboard_id in connection.subscriptions.values()
        for rate in self._policy.rates(claims, connection.ip, watching=watching):
            self._rates.consume(rate.scope, rate.key, rate.limit, refusal=rate.refusal, deadline=deadline)

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
            return self._refresh(there, authorization, checked_at, deadline)
        self._hold(authorization, deadline, goes_on=False)
        slot = self._admit([key], connection, deadline)
        put = self._put(key, connection, authorization)
        if put is None:
            return None
        row, stream = put
        checked_at = self._clock.monotonic()
        verified = self._verified([row], slot, deadline)[0]
        if isinstance(verified, TidegateError):
            raise verified
        if verified and self._show(row, stream):
            return Subscribed(row, stream, False, checked_at, authorization.stream.history)
        return None

    def _together(
        self,
        admitted: Mapping[SubscriptionKey, Authorization],
        connection: Connection,
        checked_at: float,
        deadline: LimiterDeadline,
    ) -> dict[str, Subscribed | Exception]:
        """One try for all. What is not in the answer met another subscribe or a termination, or did not fit: it starts
        over alone."""
        there, outcomes = self._subscriptions.get_all(list(admitted)), dict[str, Subscribed | Exception]()
        new: list[SubscriptionKey] = []
        for key, authorization in admitted.items():
            row = there.get(key)
            if row is not None and row.live and same_authorization(row.claim, authorization.claim):
                with _answered(outcomes, key):
                    outcomes |= _outcome(key, self._refresh(row, authorization, checked_at, deadline))
            elif row is None and key.datasource_id not in connection.subscriptions:
                with _answered(outcomes, key):
                    self._hold(authorization, deadline, goes_on=False)
                    new.append(key)
        if new:
            outcomes |= self._begun(new, admitted, connection, deadline)
        for done in outcomes.values():
            if isinstance(done, Subscribed):
                self._observer.count("subscribes", refreshed=str(done.refreshed).lower())
        return outcomes

    def _begun(
        self,
        keys: Sequence[SubscriptionKey],
        admitted: Mapping[SubscriptionKey, Authorization],
        connection: Connection,
        deadline: LimiterDeadline,
    ) -> dict[str, Subscribed | Exception]:
        """Begin new subscriptions. What is not in the answer starts over alone."""
        try:
            slot = self._admit(keys, connection, deadline)
        except _OneByOne:
            return {}
        except TidegateError as refusal:
            return {key.datasource_id: refusal for key in keys}
        outcomes: dict[str, Subscribed | Exception] = {}
        put: list[tuple[Subscription, Stream]] = []
        for key in keys:
            with _answered(outcomes, key):
                made = self._put(key, connection, admitted[key])
                put += [made] if made is not None else []
        if not put:
            return outcomes
        # Read only now that all rows are put. A revalidation after any later change finds them.
        checked_at = self._clock.monotonic()
        verified = self._verified([row for row, _ in put], slot, deadline)
        for (row, stream), holds in zip(put, verified, strict=True):
            if isinstance(holds, TidegateError):
                outcomes[row.key.datasource_id] = holds
                continue
            with _answered(outcomes, row.key):
                if holds and self._show(row, stream):
                    asked = admitted[row.key].stream.history
                    outcomes[row.key.datasource_id] = Subscribed(row, stream, False, checked_at, asked)
        return outcomes

    def _refresh(
        self, there: Subscription, authorization: Authorization, checked_at: float, deadline: LimiterDeadline
    ) -> Subscribed | None:
        # When its token has ended, its place may be taken by now.
        self._hold(authorization, deadline, goes_on=there.claim.expires_at > self._clock.now())
        moved = self._subscriptions.move_expiry(there, authorization.claim.expires_at, authorization.session_token)
        return Subscribed(there, authorization.stream, True, checked_at) if moved else None

    def _put(
        self, key: SubscriptionKey, connection: Connection, authorization: Authorization
    ) -> tuple[Subscription, Stream] | None:
        """Register the stream and put the row hidden. None when another subscribe or a termination interfered."""
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
        return (row, stream) if self._subscriptions.put_hidden(row) else None

    def _show(self, row: Subscription, stream: Stream) -> bool:
        """Make the row visible, in the shard of the stream's audience that it belongs to."""
        shard = shard_of(stream, row.key.connection_id)
        if shard and (until := mark_until(stream, self._clock.now())):
            # The mark comes first: readers look for other shards only where it is.
            self._subscriptions.mark_crowd(stream.stream_key, until)
            self._streams.note_crowd(stream, until)
        return self._subscriptions.make_visible(row, shard)

    def _hold(self, authorization: Authorization, deadline: LimiterDeadline, *, goes_on: bool) -> None:
        """Hold the upstream for the dashboard's owner, before the row lives that needs it.

        `goes_on`: a subscription that lives needs it, so it is not refused.
        """
        stream, owner_id = authorization.stream, authorization.owner_id
        if stream.relayed and owner_id is not None:
            hold = self._upstreams.keep if goes_on else self._upstreams.take
            hold(owner_id, stream.stream_key, authorization.claim.expires_at, deadline)

    def _admit(self, keys: Sequence[SubscriptionKey], connection: Connection, deadline: LimiterDeadline) -> str | None:
        """Reserve the keys and take a slot of the dashboard, or neither.

        Returns the slot; None when the limiter's store is down and its failure mode is fail-open. Raises `_OneByOne`
        when several keys cannot be reserved together.
        """
        self._wake_schedule()
        key = keys[0]
        cap = self._policy.cap(key.dashboard_id)
        noted = {slot for slot in connection.slots if slot.rpartition("#")[0] == cap.name}
        noted = noted or {home_slot(cap.name, key.connection_id, cap.limit)}
        self._reserve(keys, connection, min(noted))

        def note(slot: str) -> bool:
            noted.add(slot)
            return self._connections.note_slot(key.connection_id, slot)

        try:
            slot = self._quota.take(
                cap.name,
                key.connection_id,
                cap.limit,
                refusal=cap.refusal,
                noted=frozenset(noted),
                note=note,
                deadline=deadline,
            )
        except TidegateError:
            for reserved in keys:
                self._subscriptions.release_key(reserved)
            raise
        if slot is not None:
            # Other slots were full. If they stayed noted, the next subscribe could take one of them in addition.
            self._connections.forget_slots(key.connection_id, noted - {slot})
        return slot

    def _reserve(self, keys: Sequence[SubscriptionKey], connection: Connection, slot: str) -> None:
        """Reserve the keys, or raise the refusal."""
        at_once, now_ms = self._policy.subscriptions_per_connection, int(self._clock.now() * 1000)
        room = ConnectionRoom(at_once, window_of(now_ms), new_subscriptions(at_once))
        if len(keys) > 1:
            if not self._connections.reserve_all(keys, room, slot):
                raise _OneByOne
            return
        match self._connections.reserve(keys[0], connection, room, slot):
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

    def _verified(
        self, rows: Sequence[Subscription], slot: str | None, deadline: LimiterDeadline
    ) -> Sequence[bool | TidegateError]:
        """Read everything again, strongly consistent, now that the rows are put. Take back the rows that do not hold.

        Returns:
            For each row, True when it holds. False when another subscribe or unsubscribe removed the key in between:
            start over. Otherwise the refusal:

            - Denied, NotFound, Unauthenticated: the right or the datasource is lost, or the connection is closed.
            - Unavailable: a store did not answer.
        """
        connection_id = rows[0].key.connection_id
        try:
            refusals = self._authorizer.recheck([row.claim for row in rows], self._clock.now())
            connection = self._connections.get(connection_id)
        except Unavailable as error:
            return [self._taken_back(row, error) for row in rows]
        if connection is None or connection.closing:
            closed = [
                self._taken_back(row, Unauthenticated("The connection is closed", code="connection_closed"))
                for row in rows
            ]
            if connection is None and slot is not None:
                # The connection was removed, and its slots may have been freed before this one was taken.
                self._quota.free([slot], connection_id, deadline)
            return closed
        return [
            self._holds(row, refusal, connection.subscriptions.get(row.key.datasource_id))
            for row, refusal in zip(rows, refusals, strict=True)
        ]

    def _holds(self, row: Subscription, refusal: Refusal | None, held_for: str | None) -> bool | TidegateError:
        """`held_for`: the dashboard that the connection has the datasource for."""
        if refusal is Refusal.REVOKED:
            return self._taken_back(row, Denied("Dashboard access denied"))
        if refusal is Refusal.REMOVED:
            return self._taken_back(row, NotFound("Datasource not found"))
        if refusal is not None:
            code = f"token_{refusal.value}"
            return self._taken_back(row, Unauthenticated("Datasource session token is no longer valid", code=code))
        if held_for != row.key.dashboard_id:
            self._take_back(row)
            return False
        return True

    def _taken_back(self, row: Subscription, refusal: TidegateError) -> TidegateError:
        self._take_back(row)
        return refusal

    def _take_back(self, row: Subscription) -> None:
        try:
            self._subscriptions.remove(row)
        except Unavailable:
            # The row stays hidden, so nothing is sent for it. The full revalidation removes it.
            self._observer.count("rows_not_taken_back")


class _OneByOne(Exception):
    """Several keys cannot be reserved together."""


@contextmanager
def _answered(outcomes: dict[str, Subscribed | Exception], key: SubscriptionKey) -> Iterator[None]:
    """Whatever goes wrong with one datasource is its outcome, and refuses no other. The caller answers it."""
    try:
        yield
    except Exception as error:
        outcomes[key.datasource_id] = error


def _outcome(key: SubscriptionKey, done: Subscribed | None) -> Mapping[str, Subscribed | Exception]:
    return {} if done is None else {key.datasource_id: done}


def _same_dashboard(connection: Connection, key: SubscriptionKey) -> None:
    """Raises `Denied` when the connection has the datasource id for another dashboard."""
    if connection.subscriptions.get(key.datasource_id, key.dashboard_id) != key.dashboard_id:
        raise Denied("Datasource token dashboard mismatch")
