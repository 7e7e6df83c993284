"""The gateway's stores in memory, for tests and for exploring: the same contracts as the DynamoDB ones.

Each method is one critical section, as each DynamoDB call is one conditional write. `lag` freezes what index reads
see, which neither moto nor an emulator does.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import RLock
from typing import TypeVar

from tidegate.domain.access import DashboardAccess, UserAccess, owner_that_counts, remote_access_item
from tidegate.domain.budgets import ConnectionRoom
from tidegate.domain.crowds import AUDIENCE_SHARDS, COUNTED_S, Audience, too_many
from tidegate.domain.history import Point, merged
from tidegate.domain.subscriptions import (
    MOST_TOPICS,
    Connection,
    Fault,
    LastValue,
    Stream,
    Subscription,
    SubscriptionKey,
    TerminationClaim,
    same_authorization,
)
from tidegate.domain.switches import SETTLING_S
from tidegate.domain.upstreams import ended, free_at, refused_until
from tidegate.errors import Unavailable
from tidegate.ports.gateway import (
    CARRIES_MS,
    SETTLE_S,
    WAITS_MS,
    AccessSnapshot,
    AccessStore,
    Admission,
    ConnectionStore,
    LastValueStore,
    Reservation,
    SomeSubscriptions,
    SourceStreams,
    StreamStore,
    SubscriptionStore,
    Verdict,
)
from tidegate.ports.history import Group, HistoryStore, Series
from tidegate.ports.limits import CapReader, CapStore, HoldReader, UpstreamHolds
from tidegate.ports.remote_api import RevokedVersions
from tidegate.ports.revocation import FullRevalidationRuns, RevalidationRun
from tidegate.ports.runtime import ScanPage

T = TypeVar("T")


class MemoryAccess(AccessStore):
    """Tests put items straight into the maps."""

    def __init__(self) -> None:
        self.dashboards: dict[str, DashboardAccess] = {}
        self.users: dict[str, UserAccess] = {}
        self.intents: dict[tuple[str, str], Mapping[str, object]] = {}
        self.reads = 0

    def read(self, dashboard_ids: Iterable[str], user_ids: Iterable[str]) -> AccessSnapshot:
        self.reads += 1
        found = {
            identifier: self.dashboards[identifier] for identifier in dashboard_ids if identifier in self.dashboards
        }
        wanted = {*user_ids, *(owner_that_counts(dashboard) for dashboard in found.values())}
        return AccessSnapshot(found, {key: user for key, user in self.users.items() if key in wanted})

    def intent(self, dashboard_id: str, datasource_id: str) -> Mapping[str, object] | None:
        return self.intents.get((dashboard_id, datasource_id))

    def intents_of(self, dashboard_id: str) -> Mapping[str, Mapping[str, object]]:
        return {
            datasource: intent for (dashboard, datasource), intent in self.intents.items() if dashboard == dashboard_id
        }


#: Small, so that tests see more than one page.
_PAGE = 3


def _scan(items: Mapping[str, T], segment: int, segments: int, after: str | None) -> Iterator[ScanPage[T]]:
    """Parallel scan over named items: pages in order of the names, which are the positions."""
    names = sorted(name for name in list(items) if zlib.crc32(name.encode()) % segments == segment)
    names = [name for name in names if after is None or name > after]
    for start in range(0, len(names), _PAGE):
        page = names[start : start + _PAGE]
        last = start + _PAGE >= len(names)
        yield ScanPage([items[name] for name in page if name in items], None if last else page[-1])
    if not names:
        yield ScanPage([], None)


class MemoryRemoteAccess(AccessStore, RevokedVersions):
    """Access items of remote dashboards in a dict."""

    def __init__(self) -> None:
        self._lock = RLock()
        self.revoked_below: dict[str, int] = {}

    def read(self, dashboard_ids: Iterable[str], user_ids: Iterable[str]) -> AccessSnapshot:
        return AccessSnapshot(
            {
                identifier: remote_access_item(identifier, self.revoked_below.get(identifier, 0))
                for identifier in dashboard_ids
            },
            {},
        )

    def intent(self, dashboard_id: str, datasource_id: str) -> Mapping[str, object] | None:
        return None

    def intents_of(self, dashboard_id: str) -> Mapping[str, Mapping[str, object]]:
        return {}

    def raise_to(self, dashboard_id: str, version: int) -> None:
        with self._lock:
            self.revoked_below[dashboard_id] = max(version, self.revoked_below.get(dashboard_id, 0))


class MemoryConnections(ConnectionStore):
    """Connections in a dict."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.rows: dict[str, Connection] = {}

    def open(self, connection: Connection) -> None:
        with self.lock:
            self.rows.setdefault(connection.connection_id, replace(connection, subscriptions={}))

    def get(self, connection_id: str) -> Connection | None:
        return self.rows.get(connection_id)

    def reserve(self, key: SubscriptionKey, seen: Connection, room: ConnectionRoom, slot: str) -> Reservation:
        with self.lock:
            row = self.rows.get(key.connection_id)
            if row is None or row.closing:
                return Reservation.GONE
            held = row.subscriptions.get(key.datasource_id)
            if held is not None and held != key.dashboard_id:
                return Reservation.OTHER_DASHBOARD
            if held is None:
                if not room.may_hold(len(row.subscriptions)):
                    return Reservation.FULL
                if not room.may_begin(row.begun):
                    return Reservation.TOO_OFTEN
                held_now = {**row.subscriptions, key.datasource_id: key.dashboard_id}
                row = replace(row, subscriptions=held_now, begun=room.counted(row.begun))
            self.rows[key.connection_id] = replace(row, slots=row.slots | {slot})
            return Reservation.RESERVED

    def reserve_all(self, keys: Sequence[SubscriptionKey], room: ConnectionRoom, slot: str) -> bool:
        with self.lock:
            row = self.rows.get(keys[0].connection_id)
            if row is None or row.closing or any(key.datasource_id in row.subscriptions for key in keys):
                return False
            if len(row.subscriptions) + len(keys) > room.at_once:
                return False
            begun = {**row.begun, room.window: row.begun.get(room.window, 0) + len(keys)}
            if begun[room.window] > room.in_window:
                return False
            held = {**row.subscriptions, **{key.datasource_id: key.dashboard_id for key in keys}}
            self.rows[keys[0].connection_id] = replace(row, subscriptions=held, begun=begun, slots=row.slots | {slot})
            return True

    def note_slot(self, connection_id: str, slot: str) -> bool:
        with self.lock:
            row = self.rows.get(connection_id)
            if row is None or row.closing:
                return False
            self.rows[connection_id] = replace(row, slots=row.slots | {slot})
            return True

    def has_any(self) -> bool:
        return bool(self.rows)

    def forget_slots(self, connection_id: str, slots: Iterable[str]) -> None:
        with self.lock:
            row = self.rows.get(connection_id)
            if row is not None:
                self.rows[connection_id] = replace(row, slots=row.slots - frozenset(slots))

    def remove(self, connection_id: str) -> Connection | None:
        with self.lock:
            return self.rows.pop(connection_id, None)

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Connection]]:
        return _scan(self.rows, segment, segments, after)

    def close_if_empty(self, connection_id: str, *, never_subscribed: bool = False) -> bool:
        with self.lock:
            row = self.rows.get(connection_id)
            if row is None or row.subscriptions or (never_subscribed and row.begun):
                return False
            self.rows[connection_id] = replace(row, closing=True)
            return True

    def drop_key(self, key: SubscriptionKey) -> None:
        """Part of the transactions of `MemorySubscriptions`."""
        row = self.rows.get(key.connection_id)
        if row is not None:
            kept = {
                datasource_id: dashboard
                for datasource_id, dashboard in row.subscriptions.items()
                if datasource_id != key.datasource_id
            }
            self.rows[key.connection_id] = replace(row, subscriptions=kept)


class MemorySubscriptions(SubscriptionStore):
    """While `lag()` holds, index reads see the rows of that moment."""

    def __init__(self, connections: MemoryConnections) -> None:
        self._connections = connections
        self._lock = connections.lock
        self.rows: dict[SubscriptionKey, Subscription] = {}
        self.shards: dict[SubscriptionKey, int] = {}
        self.marked_until: dict[str, int] = {}
        self._seen_by_index: dict[SubscriptionKey, Subscription] | None = None

    def lag(self) -> None:
        self._seen_by_index = dict(self.rows)

    def catch_up(self) -> None:
        self._seen_by_index = None

    def get(self, key: SubscriptionKey) -> Subscription | None:
        return self.rows.get(key)

    def get_all(self, keys: Sequence[SubscriptionKey]) -> Mapping[SubscriptionKey, Subscription]:
        return {key: self.rows[key] for key in keys if key in self.rows}

    def put_hidden(self, row: Subscription) -> bool:
        with self._lock:
            there = self.rows.get(row.key)
            versioned = row.claim.principal.share_version is not None
            if there is not None and (there.termination or (versioned and there.version > row.version)):
                return False
            if there is not None and there.live and same_authorization(there.claim, row.claim):
                return False
            self.rows[row.key] = replace(row, visible=False, termination=None)
            return True

    def make_visible(self, row: Subscription, shard: int = 0) -> bool:
        with self._lock:
            self.shards[row.key] = shard
            there = self._own(row)
            if there is None or there.termination:
                return False
            self.rows[row.key] = replace(there, visible=True)
            return True

    def move_expiry(self, row: Subscription, expires_at: int, session_token: str | None = None) -> bool:
        with self._lock:
            there = self._own(row)
            if there is None or not there.live:
                return False
            if there.claim.expires_at < expires_at:
                claim = replace(there.claim, expires_at=expires_at)
                self.rows[row.key] = replace(there, claim=claim, session_token=session_token or there.session_token)
            return True

    def claim_termination(self, row: Subscription, claim: TerminationClaim, *, expired_at: int | None = None) -> bool:
        with self._lock:
            there = self._own(row)
            if there is None or (expired_at is not None and there.claim.expires_at > expired_at):
                return False
            if there.termination is not None and there.termination.holds_against(claim):
                return False
            self.rows[row.key] = replace(there, termination=claim)
            return True

    def remove(self, row: Subscription) -> bool:
        with self._lock:
            there = self._own(row)
            if row.key in self.rows and (there is None or _marked_by(there) != _marked_by(row)):
                return False
            self.rows.pop(row.key, None)
            self._connections.drop_key(row.key)
            return True

    def release_key(self, key: SubscriptionKey) -> None:
        with self._lock:
            if key not in self.rows:
                self._connections.drop_key(key)

    def remove_all_of(self, connection: Connection) -> None:
        with self._lock:
            for datasource_id, dashboard_id in connection.subscriptions.items():
                self.rows.pop(SubscriptionKey(dashboard_id, connection.connection_id, datasource_id), None)

    def of_dashboard(self, dashboard_id: str, after: str = "") -> Iterator[Subscription]:
        found = [row for row in list(self.rows.values()) if row.key.dashboard_id == dashboard_id]
        found.sort(key=lambda row: row.key.connection_id)
        return iter([row for row in found if row.key.connection_id > after])

    def some_of_dashboard(self, dashboard_id: str, most: int) -> SomeSubscriptions:
        rows = list(self.of_dashboard(dashboard_id))
        return SomeSubscriptions(rows[:most], len(rows) > most)

    def of_user(self, user_id: str) -> Iterator[Subscription]:
        index = self.rows if self._seen_by_index is None else self._seen_by_index
        keys = [key for key, row in index.items() if row.claim.principal.subject == user_id]
        return iter([self.rows[key] for key in keys if key in self.rows])

    def expired(self, now: float) -> Iterator[Sequence[Subscription]]:
        index = self.rows if self._seen_by_index is None else self._seen_by_index
        found = [row for row in index.values() if row.claim.expires_at <= now]
        found.sort(key=lambda row: row.claim.expires_at)
        for start in range(0, len(found), _PAGE):
            group = [row.key for row in found[start : start + _PAGE]]
            yield [self.rows[key] for key in group if key in self.rows]

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Subscription]]:
        names = {f"{key.dashboard_id}#{key.connection_id}#{key.datasource_id}": row for key, row in self.rows.items()}
        return _scan(names, segment, segments, after)

    def mark_crowd(self, stream_key: str, until: int) -> None:
        self.marked_until[stream_key] = until

    def audience(self, stream_key: str, *, or_first_shard: bool = False) -> Audience:
        first = self._shard(stream_key, 0)
        if stream_key not in self.marked_until:
            return Audience(first)
        if or_first_shard and too_many(len(first)):
            return Audience(first, whole=False)
        return Audience([row for shard in range(AUDIENCE_SHARDS) for row in self._shard(stream_key, shard)])

    def audience_shard(self, stream_key: str, shard: int) -> Audience:
        return Audience(self._shard(stream_key, shard))

    def _shard(self, stream_key: str, shard: int) -> list[Subscription]:
        index = self.rows if self._seen_by_index is None else self._seen_by_index
        of_stream = [row for row in index.values() if row.live and row.stream_key == stream_key]
        return [row for row in of_stream if self.shards.get(row.key, 0) == shard]

    def _own(self, row: Subscription) -> Subscription | None:
        there = self.rows.get(row.key)
        return there if there is not None and there.generation == row.generation else None


def _marked_by(row: Subscription) -> str | None:
    return row.termination.by if row.termination else None


class MemoryStreams(StreamStore):
    """Streams in a dict."""

    def __init__(self) -> None:
        self.rows: dict[str, Stream] = {}
        self.versions: dict[str | None, int] = {}
        self._counted_from: dict[str, int] = {}
        self.queries = self.asked = 0

    def touch(self, stream: Stream) -> Stream:
        there, now = self.rows.get(stream.stream_key), stream.last_requested_at
        if there is None:
            self.rows[stream.stream_key] = replace(stream, subscribes=1)
            self._counted_from[stream.stream_key] = now
        elif there.last_requested_at <= now:
            anew = self._counted_from.get(stream.stream_key, 0) <= now - COUNTED_S
            if anew:
                self._counted_from[stream.stream_key] = now
            subscribes = 1 if anew else there.subscribes + 1
            self.rows[stream.stream_key] = replace(there, last_requested_at=now, subscribes=subscribes)
        kept = self._keep(stream, there)
        if kept or there is None or (stream.allowed_topic is None and not there.connected):
            self.versions[stream.allowed_topic] = self.versions.get(stream.allowed_topic, 0) + 1
        return self.rows[stream.stream_key]

    def _keep(self, stream: Stream, there: Stream | None) -> bool:
        """Note the history that is asked for. True when it is another one than before."""
        asked, known = stream.history, None if there is None else there.history
        if asked is None:
            return False
        lasts = known is not None and known.until > stream.last_requested_at
        wanted = known.along_with(asked) if known is not None and lasts else asked
        self.rows[stream.stream_key] = replace(self.rows[stream.stream_key], history=wanted)
        return known is None or not lasts or not known.covers(asked)

    def note_crowd(self, stream: Stream, until: int) -> None:
        if (there := self.rows.get(stream.stream_key)) is not None:
            self.rows[stream.stream_key] = replace(there, crowd_until=until)

    def relayed(self, stream_key: str) -> Stream | None:
        there = self.rows.get(stream_key)
        return there if there is not None and there.relayed else None

    def note_status(
        self, stream: Stream, connected: bool, fault: Fault | None = None, *, at: int | None = None
    ) -> bool:
        there = self.rows.get(stream.stream_key)
        if there is None or (there.connected, there.fault) == (connected, fault):
            return False
        self.rows[stream.stream_key] = replace(
            there,
            connected=connected,
            connected_at=at if connected and at is not None else there.connected_at,
            fault=fault,
            status_number=there.status_number + 1,
        )
        return True

    def release_if_idle(self, stream: Stream) -> bool:
        there = self.rows.get(stream.stream_key)
        if there is None or there.last_requested_at != stream.last_requested_at:
            return False
        self.rows[stream.stream_key] = replace(
            there, connected=False, fault=None, status_number=there.status_number + 1
        )
        return True

    def version_of(self, allowed_topic: str | None) -> int:
        self.asked += 1
        return self.versions.get(allowed_topic, 0)

    def of_source(self, allowed_topic: str | None) -> SourceStreams:
        self.queries += 1
        return SourceStreams(
            self.version_of(allowed_topic),
            [stream for stream in self.rows.values() if stream.allowed_topic == allowed_topic],
        )


class MemoryHistory(HistoryStore):
    """Points in a dict: (series, time of the item) -> what it holds. `fails` raises, `calls` counts what is asked."""

    def __init__(self) -> None:
        self.items: dict[tuple[Series, int], tuple[Point, ...]] = {}
        self.calls = 0
        self.fails = False

    def _asked(self) -> None:
        self.calls += 1
        if self.fails:
            raise Unavailable("no store")

    def add(self, series: Series, point: Point, expires_at: int) -> None:
        self._asked()
        there = self.items.get((series, point.start_ms))
        self.items[series, point.start_ms] = (point if there is None else merged(there[0], point),)

    def write(self, groups: Sequence[Group]) -> None:
        self._asked()
        for group in groups:
            self.items[group.series, group.first_ms] = tuple(group.points)

    def read(self, series: Series, from_ms: int, to_ms: int, *, consistent: bool = False) -> Iterator[Point]:
        self._asked()
        for start_ms in sorted((at for of, at in self.items if of == series and from_ms <= at <= to_ms), reverse=True):
            yield from reversed(self.items[series, start_ms])


class MemoryLastValues(LastValueStore):
    """Last values in a dict. Those of a stream without topics are under its key, others under its key and topic."""

    def __init__(self) -> None:
        self.rows: dict[str | tuple[str, str], LastValue] = {}
        self.settling_until: dict[str | tuple[str, str], float] = {}
        self.next_ms: dict[str | tuple[str, str], int] = {}
        self.waits_until_ms: dict[str | tuple[str, str], int] = {}
        #: what was noted for shards of a crowd, and until when their senders are relied upon
        self.noted: dict[tuple[str, str | None, int], int] = {}
        self.parts_until: dict[tuple[str, str | None, int], float] = {}
        self.carriers: dict[str | tuple[str, str], tuple[str, int]] = {}

    def get(self, stream_key: str, topic: str | None = None, shard: int | None = None) -> LastValue | None:
        there = self.rows.get(_value_key(stream_key, topic))
        if there is None or shard is None:
            return there
        return replace(there, overtaken=self.noted.get((stream_key, topic, shard), 0))

    def newest(self, stream_key: str) -> Sequence[LastValue]:
        return self._of(stream_key)[:MOST_TOPICS]

    def put_if_newer(self, stream_key: str, value: LastValue) -> bool:
        key = _value_key(stream_key, value.topic)
        there = self.rows.get(key)
        if there is not None and there.order > value.order:
            return False
        self.rows[key] = replace(value, overtaken=there.overtaken if there else 0)
        return True

    def admit(self, stream_key: str, value: LastValue, now_ms: int, interval_ms: int) -> Admission:
        key = _value_key(stream_key, value.topic)
        there = self.rows.get(key)
        repeated = there is not None and (there.order, there.payload) == (value.order, value.payload)
        if not self.put_if_newer(stream_key, value):
            return Admission(Verdict.OUTDATED)
        next_ms = self.next_ms.get(key, now_ms)
        if next_ms <= now_ms:
            self.next_ms[key] = now_ms + interval_ms
            self.waits_until_ms.pop(key, None)
            return Admission(Verdict.SEND)
        if repeated:
            return Admission(Verdict.SEND)
        if self.waits_until_ms.get(key, 0) > now_ms:
            return Admission(Verdict.LEAVE)
        self.waits_until_ms[key] = next_ms + WAITS_MS
        return Admission(Verdict.WAIT, next_ms)

    def claim(
        self, stream_key: str, topic: str | None, waiting: Admission, now_ms: int, interval_ms: int
    ) -> LastValue | None:
        key = _value_key(stream_key, topic)
        if self.waits_until_ms.get(key) != waiting.until_ms + WAITS_MS:
            return None
        del self.waits_until_ms[key]
        self.next_ms[key] = now_ms + interval_ms
        return self.rows.get(key)

    def carry(self, stream_key: str, topic: str | None, carrier: str, now_ms: int) -> LastValue | None:
        key = _value_key(stream_key, topic)
        other, until = self.carriers.get(key, (carrier, 0))
        if key not in self.rows or (other != carrier and until > now_ms):
            return None
        until = now_ms + CARRIES_MS
        self.carriers[key] = carrier, until
        self.next_ms[key] = self.waits_until_ms[key] = until
        self.settling_until[key] = until // 1000 + 1
        return self.rows[key]

    def end_carrying(
        self, stream_key: str, topic: str | None, carrier: str, sent: LastValue, now_ms: int, interval_ms: int
    ) -> bool:
        key = _value_key(stream_key, topic)
        there = self.rows.get(key)
        if there is None or self._carrier(key) != carrier:
            return False
        if (there, there.overtaken) != (sent, sent.overtaken):
            return False
        self.rows[key] = replace(there, overtaken=0)
        self._carried(key, now_ms + interval_ms)
        return True

    def hand_over(self, stream_key: str, topic: str | None, carrier: str, now_ms: int) -> LastValue | None:
        key = _value_key(stream_key, topic)
        if self._carrier(key) != carrier:
            return None
        self._carried(key, now_ms)
        return self.rows.get(key)

    def _carrier(self, key: str | tuple[str, str]) -> str | None:
        return self.carriers.get(key, (None, 0))[0]

    def _carried(self, key: str | tuple[str, str], next_ms: int) -> None:
        del self.carriers[key]
        self.next_ms[key] = next_ms
        self.waits_until_ms.pop(key, None)
        self.settling_until.pop(key, None)

    def trim(self, stream_key: str) -> int:
        stalest = self._of(stream_key)[MOST_TOPICS:]
        for value in stalest:
            del self.rows[_value_key(stream_key, value.topic)]
        return len(stalest)

    def note_overtaken(self, stream_key: str, now: float, topic: str | None = None, shard: int | None = None) -> bool:
        key = _value_key(stream_key, topic)
        if shard is not None:
            return key not in self.rows or self._note_part((stream_key, topic, shard), now)
        there = self.rows.get(key)
        if there is None:
            return True
        self.rows[key] = replace(there, overtaken=there.overtaken + 1)
        if self.settling_until.get(key, now) > now:
            return False
        self.settling_until[key] = int(now) + SETTLE_S
        return True

    def go_on(self, stream_key: str, now: float, topic: str | None, shard: int) -> LastValue | None:
        if _value_key(stream_key, topic) in self.rows:
            self.parts_until[stream_key, topic, shard] = int(now) + SETTLE_S
        return self.get(stream_key, topic, shard)

    def _note_part(self, part: tuple[str, str | None, int], now: float) -> bool:
        self.noted[part] = self.noted.get(part, 0) + 1
        if self.parts_until.get(part, now) > now:
            return False
        self.parts_until[part] = int(now) + SETTLE_S
        return True

    def note_settled(
        self, stream_key: str, sent: LastValue | None, topic: str | None = None, shard: int | None = None
    ) -> bool:
        key = _value_key(stream_key, topic)
        if shard is not None:
            newest = self.get(stream_key, topic, shard)
            if sent is not None and (newest != sent or newest.overtaken not in (0, sent.overtaken)):
                return False
            self.noted.pop((stream_key, topic, shard), None)
            self.parts_until.pop((stream_key, topic, shard), None)
            return key in self.rows
        there = self.rows.get(key)
        if there is None or (sent is not None and (there, there.overtaken) != (sent, sent.overtaken)):
            return False
        self.rows[key] = replace(there, overtaken=0)
        self.settling_until.pop(key, None)
        return True

    def _of(self, stream_key: str) -> Sequence[LastValue]:
        keys = [key for key in self.rows if key == stream_key or key[0] == stream_key]
        return sorted((self.rows[key] for key in keys), key=lambda value: value.order, reverse=True)


def _value_key(stream_key: str, topic: str | None) -> str | tuple[str, str]:
    return stream_key if topic is None else (stream_key, topic)


class MemoryUpstreamHolds(UpstreamHolds, HoldReader):
    """Holds in dicts: owner -> stream -> epoch second."""

    def __init__(self) -> None:
        self._lock = RLock()
        self.held: dict[str, dict[str, int]] = {}
        self.writes = 0

    def hold(self, owner: str, name: str, until: int, now: int, limit: int | None, deadline: float) -> int | None:
        with self._lock:
            self.writes += 1
            held = self.held.setdefault(owner, {})
            while name not in held and limit is not None and len(held) >= limit:
                over = ended(held, now)
                if not over:
                    return free_at(held, limit)
                for each in over:
                    del held[each]
            held[name] = max(until, held.get(name, 0))
            return None

    def refused(self, owner: str, name: str, now: int, limit: int, deadline: float) -> int | None:
        with self._lock:
            return refused_until(self.held.get(owner, {}), name, now, limit)


class MemoryCaps(CapStore, CapReader):
    """Caps in a dict."""

    def __init__(self, connections: MemoryConnections) -> None:
        self._connections = connections
        self._lock = connections.lock
        self.holders: dict[tuple[str, int], set[str]] = {}

    def take(self, cap: str, shard: int, limit: int, holder: str, deadline: float | None = None) -> bool:
        with self._lock:
            holders = self.holders.setdefault((cap, shard), set())
            if holder not in holders and len(holders) >= limit:
                return False
            holders.add(holder)
            return True

    def held(self, cap: str, shard: int, deadline: float) -> int:
        with self._lock:
            return len(self.holders.get((cap, shard), ()))

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[tuple[str, int, str]]]:
        with self._lock:
            taken = [(cap, shard, holder) for (cap, shard), holders in self.holders.items() for holder in holders]
        return _scan({"#".join(map(str, slot)): slot for slot in taken}, segment, segments, after)

    def release(self, cap: str, shard: int, holder: str, deadline: float | None = None) -> None:
        with self._lock:
            self.holders.get((cap, shard), set()).discard(holder)

    def give_back(self, seen: Connection, slots: Collection[tuple[str, int]]) -> bool:
        with self._lock:
            row = self._connections.rows.get(seen.connection_id)
            if row is None or row.subscriptions != seen.subscriptions:
                return False
            self._connections.forget_slots(seen.connection_id, [f"{cap}#{shard}" for cap, shard in slots])
            for cap, shard in slots:
                self.release(cap, shard, seen.connection_id)
            return True


class MemoryFullRevalidationRuns(FullRevalidationRuns):
    """The one run in memory."""

    def __init__(self) -> None:
        self._lock = RLock()
        self.owner = ""
        self.until: int | None = None
        self.began: int | None = None
        self.progress: dict[str, str] | None = None
        self.demanded = False
        self.switches = ""
        self.settling = 0

    def begin(self, owner: str, now: int, interval_s: int, life_s: int, switches: str = "") -> RevalidationRun | None:
        with self._lock:
            if self.until is not None and self.until >= now and self.owner != owner:
                return None
            if self.progress is None:
                changed = self.began is not None and self.switches != switches
                if changed:
                    self.settling = now + SETTLING_S
                asked = self.demanded or self.settling >= now
                if self.began is not None and self.began > now - interval_s and not asked:
                    return None
                self.began, self.progress, self.demanded, self.switches = now, {}, False, switches
            assert self.began is not None
            self.owner, self.until = owner, now + life_s
            return RevalidationRun(owner, self.began, dict(self.progress))

    def note(self, run: RevalidationRun, step: str, position: str) -> bool:
        with self._lock:
            if self.owner != run.owner or self.progress is None:
                return False
            self.progress[step] = position
            return True

    def pause(self, run: RevalidationRun) -> None:
        with self._lock:
            if self.owner == run.owner:
                self.until = None

    def end(self, run: RevalidationRun, ended: int = 0, connections: int | None = None) -> None:
        with self._lock:
            if self.owner == run.owner:
                self.until, self.progress = None, None

    def demand(self, now: int) -> None:
        self.demanded = True
