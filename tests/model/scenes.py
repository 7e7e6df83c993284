"""Viewers who come, refresh, leave and lose their right, beside the passes that end them: what the actors share, and
what must hold of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.doubles.stores import MemoryConnections, MemorySubscriptions
from tests.model.actors import BOTH_DATASOURCES, DASHBOARD, DATASOURCE, HASH, MEMBER, NOW, OWNER, USERS
from tests.model.explorer import Actor, Answer, Call, Scene, State, Violation
from tidegate.domain.access import (
    PUBLIC_SUBJECT,
    AclLevel,
    Claim,
    DashboardAccess,
    Principal,
    UserAccess,
    Visibility,
    allowed,
    guest_version_holds,
    withdraw,
)
from tidegate.domain.subscriptions import Connection, LastValue, Subscription, SubscriptionKey
from tidegate.ports.delivery import Delivery
from tidegate.ports.gateway import AccessSnapshot
from tidegate.usecases.limits.connection_quota import dashboard_cap

#: How long a decision may be used, seconds: the bound of invariant 2.
BOUND_S = 1.0


#: What a decision reads: the dashboard's item, the member's and the owner's.
Access = tuple[DashboardAccess, UserAccess, UserAccess]


@dataclass(frozen=True, slots=True)
class ViewerStores:
    """What the stores hold.

    Attributes:
        rows, connections, access: the tables.
        index: what index reads see, when it lags; None when it does not.
        after: the access items as each revocation left them.
        user, owner, known: the member's access item, the owner's, and the rows there were when the member's changed.
        now: seconds since the start; `read_at` is when an actor last looked at the clock.
        revoked_at: when the access item last changed.
        told: connections that were told that their token has expired.
        ended_at: when the row of each generation that is gone was deleted.
    """

    rows: Mapping[SubscriptionKey, Subscription]
    connections: Mapping[str, Connection]
    access: DashboardAccess
    index: Mapping[SubscriptionKey, Subscription] | None = None
    after: Mapping[str, Access] = field(default_factory=dict)
    user: UserAccess = USERS[MEMBER]
    owner: UserAccess = USERS[OWNER]
    known: frozenset[SubscriptionKey] = frozenset()
    now: float = 0.0
    read_at: Mapping[str, float] = field(default_factory=dict)
    revoked_at: float = 0.0
    told: frozenset[str] = frozenset()
    ended_at: Mapping[str, float] = field(default_factory=dict)


class Rows(MemorySubscriptions):
    """The rows of one connection, beside what the contract has."""

    def of_shard(self, dashboard_id: str, connection: str) -> list[Subscription]:
        return [row for row in self.of_dashboard(dashboard_id) if row.key.connection_id == connection]


class Viewers(Scene[ViewerStores]):
    """One dashboard, shared by link, with one datasource."""

    rows_class: type[Rows] = Rows
    #: The query of a dashboard's rows is answered by the lagging index: a safeguard taken out.
    weak_query = False
    #: A place is given back whatever subscribed meanwhile: a safeguard taken out.
    weak_places = False

    def __init__(
        self,
        actors: Sequence[Actor],
        *,
        connections: Sequence[str] = ("c",),
        live: Mapping[str, int | None] | None = None,
        revocations: Sequence[Callable[[Access], Access]] = (),
        faults: int = 0,
        lagging: bool = False,
        ticks: int = 0,
        spared: bool = False,
        ends: int = -1,
        lives_s: int = 200,
        datasources: Sequence[str] = (DATASOURCE,),
    ) -> None:
        """
        Args:
            live: connections that are subscribed in the beginning, each with its share version (None: the member).
            spared: no revocation concerns this datasource, so nobody may be ended.
            ends: guests up to this share version are ended by the first revocation, whatever `allowed` says.
            datasources: of the dashboard. All have the same intent.
            lives_s: how long the tokens of those in `live` still hold, seconds. 0: they have just expired.
        """
        self.actors = tuple(actors)
        self.faults = faults
        self._connections = connections
        self._live = dict(live or {})
        self._revocations = revocations
        self._lagging = lagging
        self._ticks = ticks
        self._spared = spared
        self._ends = ends
        self._lives_s = lives_s
        self._datasources = datasources

    def start(self) -> ViewerStores:
        rows = {}
        for connection, version in self._live.items():
            principal = Principal(MEMBER, None, 1) if version is None else Principal(PUBLIC_SUBJECT, version)
            claim = Claim(DASHBOARD, DATASOURCE, principal, HASH, int(NOW) + self._lives_s)
            key = SubscriptionKey(DASHBOARD, connection, DATASOURCE)
            rows[key] = Subscription(key, f"first-{connection}", claim, "stream", visible=True)
        connections = {
            connection_id: Connection(
                connection_id,
                "ip",
                int(NOW),
                subscriptions={DATASOURCE: DASHBOARD} if connection_id in self._live else {},
                slots=frozenset({f"{dashboard_cap(DASHBOARD)}#0"} if connection_id in self._live else ()),
            )
            for connection_id in self._connections
        }
        access = DashboardAccess(
            DASHBOARD, 1, Visibility.LINK, OWNER, {MEMBER: AclLevel.VIEWER}, dict.fromkeys(self._datasources, HASH)
        )
        return ViewerStores(rows, connections, access, index=dict(rows) if self._lagging else None)

    def key(self, stores: ViewerStores) -> Hashable:
        return (
            _rows_key(stores.rows),
            None if stores.index is None else _rows_key(stores.index),
            tuple(
                sorted(
                    (connection_id, bool(row.closing), *row.subscriptions, *sorted(row.slots))
                    for connection_id, row in stores.connections.items()
                )
            ),
            stores.access.share_version,
            stores.access.revision,
            tuple(sorted(stores.access.intents.items())),
            len(stores.access.acl),
            stores.user.active,
            stores.owner.active,
            stores.known,
            stores.now,
            stores.revoked_at,
            stores.told,
            tuple(sorted(stores.read_at.items())),
            tuple(sorted(stores.ended_at.items())),
        )

    def environment(self, stores: ViewerStores) -> Iterator[tuple[str, ViewerStores]]:
        if stores.index is not None and stores.index != stores.rows:
            yield "the index catches up", replace(stores, index=dict(stores.rows))
        if stores.now < 0.6 * self._ticks:
            yield "time passes", replace(stores, now=round(stores.now + 0.6, 1))

    # --- what calls do --------------------------------------------------------------------------------------

    def perform(self, stores: ViewerStores, actor: str, call: Call) -> tuple[ViewerStores, Answer, str | None]:
        match call.store:
            case "access" | "tokens" | "last values":
                return stores, ("got", _found(stores, call.store)), None
            case "clock":
                return replace(stores, read_at={**stores.read_at, actor: stores.now}), ("got", stores.now), None
            case "caps":
                return self._give_back(stores, *call.args), ("got", None), None
            case "queue":
                # Seconds later the index shows what was there before the change; of what came after, it need not.
                seen = {key: row for key, row in stores.rows.items() if key in stores.known}
                return replace(stores, index=seen | dict(stores.index or {})), ("got", None), None
            case "control":
                return self._revoke(stores, call.args[0])
            case "sender":
                if call.method == "post":
                    stores = self._sent(stores, actor, *call.args)
                return stores, ("got", Delivery.DELIVERED if call.method == "post" else None), None
        return self._table(stores, call)

    def _table(self, stores: ViewerStores, call: Call) -> tuple[ViewerStores, Answer, str | None]:
        connections = MemoryConnections()
        connections.rows = dict(stores.connections)
        rows = self.rows_class(connections)
        rows.rows = dict(stores.rows)
        if stores.index is not None:
            rows._seen_by_index = dict(stores.index)
        if call.method == "of_shard" and self.weak_query and stores.index is not None:
            rows.rows = dict(stores.index)
            return stores, ("got", rows.of_shard(*call.args)), None
        store: Any = rows if call.store == "subscriptions" else connections
        answer = getattr(store, call.method)(*call.args, **dict(call.options))
        if call.method == "claim_termination" and answer:
            self._terminating(stores, call.args[0])
        if isinstance(answer, Iterator):
            answer = list(answer)
        kept = {row.generation for row in rows.rows.values()}
        ended = {row.generation: stores.now for row in stores.rows.values() if row.generation not in kept}
        ended_at = {**ended, **stores.ended_at} if self._ticks else {}
        return replace(stores, rows=rows.rows, connections=connections.rows, ended_at=ended_at), ("got", answer), None

    def _give_back(self, stores: ViewerStores, seen: Connection, slots: Sequence[str]) -> ViewerStores:
        """The transaction that frees places: it fails when the connection's keys are not those that were seen."""
        there = stores.connections.get(seen.connection_id)
        if there is None or (there.subscriptions != seen.subscriptions and not self.weak_places):
            return stores
        kept = replace(there, slots=there.slots - frozenset(slots))
        return replace(stores, connections={**stores.connections, seen.connection_id: kept})

    def _revoke(self, stores: ViewerStores, number: int) -> tuple[ViewerStores, Answer, str | None]:
        access, user, owner = changed = self._revocations[number](_access(stores))
        event = f"revocation {number}"
        changes: dict[str, Any] = {"after": {**stores.after, event: changed}, "revoked_at": stores.now}
        if user != stores.user:
            changes["known"] = frozenset(stores.rows)
        return replace(stores, access=access, user=user, owner=owner, **changes), ("got", None), event

    # --- what must hold -------------------------------------------------------------------------------------

    def _terminating(self, stores: ViewerStores, row: Subscription) -> None:
        there = stores.rows.get(row.key)
        if there is None or there.generation != row.generation or there.termination:
            return
        if self._spared or not _refused(there, _access(stores)):
            raise Violation("a valid viewer is cut")

    def _sent(
        self, stores: ViewerStores, actor: str, connection_id: str, body: bytes, row: Subscription | None
    ) -> ViewerStores:
        frame = json.loads(body)
        if frame["type"] == "data":
            assert row is not None
            if _refused(row, _access(stores)) and stores.read_at[actor] - stores.revoked_at > BOUND_S:
                raise Violation("data is sent more than a second after the right was lost")
            if stores.read_at[actor] - stores.ended_at.get(row.generation, stores.now) > BOUND_S:
                raise Violation("data is sent more than a second after its viewer has unsubscribed")
        elif frame["type"] == "document":
            self._document_sent(stores, stores.read_at[actor], connection_id, frame["revision"])
        elif frame["type"] == "error" and not frame["retryable"]:
            there = stores.rows.get(SubscriptionKey(DASHBOARD, connection_id, frame["datasourceId"]))
            if there is not None and there.live and not _refused(there, _access(stores)):
                raise Violation("a viewer whose subscription is valid is told that it was revoked")
        elif frame["type"] == "error" and frame["reason"] == "expired":
            if connection_id in stores.told:
                raise Violation("a viewer is told twice that the token has expired")
            return replace(stores, told=stores.told | {connection_id})
        return stores

    def _document_sent(self, stores: ViewerStores, read_at: float, connection_id: str, revision: int) -> None:
        """Nobody leaves in these scenes, so a row that is not there any longer was ended."""
        if read_at - stores.revoked_at <= BOUND_S:
            return
        row = stores.rows.get(SubscriptionKey(DASHBOARD, connection_id, DATASOURCE))
        if row is None or not row.live or _refused(row, _access(stores)):
            raise Violation("a saved document is told more than a second after the right was lost")
        if revision < stores.access.revision:
            raise Violation("a revision is told more than a second after a newer one was saved")

    def check(self, state: State[ViewerStores]) -> None:
        for event, access in state.stores.after.items():
            if f"pass over {event}" not in state.happened or state.outcomes[f"pass over {event}"] != "done":
                continue
            for row in state.stores.rows.values():
                if row.live and 0 <= row.version <= self._ends and row.key.datasource_id == DATASOURCE:
                    raise Violation("a guest of the withdrawn datasource is visible after its pass")
                # Nobody is given a right back here, so what an event took stays taken; later versions are not its.
                if row.live and _refused(row, access) and _refused(row, _access(state.stores)):
                    raise Violation(f"invariant 1: a row that {event} made inadmissible is visible after its pass")

    def check_end(self, state: State[ViewerStores]) -> None:
        self._check_keys(state)
        self._check_expired(state)
        self._check_acked(state)

    def _check_keys(self, state: State[ViewerStores]) -> None:
        """Rows and the connections' sets of keys tell the same."""
        stores = state.stores
        for key, row in stores.rows.items():
            held = stores.connections.get(key.connection_id)
            if row.live and (held is None or key.datasource_id not in held.subscriptions):
                raise Violation("a live row has no key in its connection")
            if row.live and held is not None and not held.slots:
                raise Violation("a live row has no place in its dashboard's quota")
        if state.faults == self.faults:
            for connection_id, connection in stores.connections.items():
                for datasource_id in connection.subscriptions:
                    if SubscriptionKey(DASHBOARD, connection_id, datasource_id) not in stores.rows:
                        raise Violation("a connection's set holds a key without a row")

    def _check_expired(self, state: State[ViewerStores]) -> None:
        """What has expired was told and ended, unless a run could not go on: then the next one finds it."""
        runs = [outcome for actor, outcome in state.outcomes.items() if actor.startswith("expired")]
        if not runs or set(runs) != {"done"} or state.faults != self.faults:
            return
        if any(row.claim.expires_at <= NOW for row in state.stores.rows.values()):
            raise Violation("a subscription whose token has expired is left")

    def _check_acked(self, state: State[ViewerStores]) -> None:
        """Whoever was acked, did not leave and is still allowed has a live row."""
        stores = state.stores
        left = {actor.name.partition(" ")[2] for actor in self.actors if actor.name.startswith(("leave", "unsub"))}
        for actor, outcome in state.outcomes.items():
            connection_id = actor.split(" ")[1] if actor.startswith("subscribe") else ""
            if not outcome.startswith("acked") or connection_id in left:
                continue
            version = int(outcome.split()[1])
            acked = outcome.split()[2:] or [DATASOURCE]
            held = guest_version_holds(stores.access, version, DATASOURCE)
            if version != -1 and not (held and stores.owner.active):
                continue
            if version == -1 and (MEMBER not in stores.access.acl or not stores.user.active):
                continue
            if not all(stores.access.intents[datasource_id] == HASH for datasource_id in acked):
                continue
            rows = [stores.rows.get(SubscriptionKey(DASHBOARD, connection_id, each)) for each in acked]
            if not all(there is not None and there.live for there in rows):
                raise Violation(f"{actor} was acked, is still allowed, and has no live row")


def _found(stores: ViewerStores, store: str) -> object:
    """What reading a store gives."""
    match store:
        case "access":
            return AccessSnapshot({DASHBOARD: stores.access}, {MEMBER: stores.user, OWNER: stores.owner})
        case "tokens":
            return stores.access.share_version
    return [LastValue("1", 0, "")]


def _access(stores: ViewerStores) -> Access:
    return stores.access, stores.user, stores.owner


def _refused(row: Subscription, access: Access) -> bool:
    dashboard, user, owner = access
    return allowed(row.claim, dashboard, None if row.claim.principal.is_public else user, owner, NOW) is not None


def _rows_key(rows: Mapping[SubscriptionKey, Subscription]) -> Hashable:
    return tuple(
        sorted(
            (
                key.connection_id,
                key.datasource_id,
                row.generation,
                row.visible,
                row.termination.by if row.termination else "",
                row.version,
                row.claim.expires_at,
            )
            for key, row in rows.items()
        )
    )


def rotate(access: Access) -> Access:
    dashboard, user, owner = access
    return replace(dashboard, share_version=dashboard.share_version + 1), user, owner


def withdraw_here(access: Access) -> Access:
    """The public use of a profile of this datasource is withdrawn."""
    return _withdraw(access, DATASOURCE)


def withdraw_elsewhere(access: Access) -> Access:
    """The public use of a profile of another datasource is withdrawn."""
    return _withdraw(access, "another")


def _withdraw(access: Access, datasource_id: str) -> Access:
    dashboard, user, owner = access
    version, withdrawal = dashboard.share_version + 1, withdraw(dashboard, [datasource_id])
    return replace(dashboard, share_version=version, withdrawal=withdrawal), user, owner


def change_intent(access: Access) -> Access:
    """The second datasource is changed: it reads from another source."""
    dashboard, user, owner = access
    return replace(dashboard, intents={**dashboard.intents, BOTH_DATASOURCES[1]: "changed"}), user, owner


def save(access: Access) -> Access:
    """The document is saved. Nobody loses anything by it."""
    dashboard, user, owner = access
    return replace(dashboard, revision=dashboard.revision + 1), user, owner


def remove_member(access: Access) -> Access:
    dashboard, user, owner = access
    return replace(dashboard, acl={}), user, owner


def deactivate(access: Access) -> Access:
    dashboard, user, owner = access
    return dashboard, replace(user, active=False, session_version=user.session_version + 1), owner


def deactivate_owner(access: Access) -> Access:
    """The guests' right ends with the owner's account, and the member's does not."""
    dashboard, user, owner = access
    return dashboard, user, replace(owner, active=False, session_version=owner.session_version + 1)


def rotate_and_remove(access: Access) -> Access:
    """Both in one revocation."""
    return remove_member(rotate(access))
