"""The subscriptions table.

Invariants of this file: a row has the index attribute `audience` exactly while it is visible and its termination is
not claimed. It has the index attribute `expiry_shard` until it is deleted, claimed or not. So an ending that a dead run
left undone is found again. Every later write of a subscribe is conditional on the generation that it wrote.

The value of `audience` is the stream's key, followed by the number of the shard where that is not 0: see
`domain.crowds`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from tidegate.adapters.dynamodb.client import (
    ConditionFailed,
    DynamoDb,
    Item,
    TransactionFailed,
    check_action,
    delete_action,
)
from tidegate.adapters.dynamodb.connections import drop_key_action
from tidegate.domain.access import Claim, Principal
from tidegate.domain.crowds import AUDIENCE_SHARDS, Audience, too_many
from tidegate.domain.subscriptions import (
    TERMINATION_CLAIM_S,
    Connection,
    Subscription,
    SubscriptionKey,
    TerminationClaim,
)
from tidegate.ports.gateway import SomeSubscriptions, SubscriptionStore
from tidegate.ports.runtime import ScanPage

#: Key shards of a dashboard's rows. The number is fixed, because a row's place is computed from its key alone.
KEY_SHARDS = 8
#: Shards of the index by expiry. Every subscribe writes the index once and every refresh twice, and a partition of an
#: index takes a thousand writes a second. So all subscribes together may be 8,000 a second. A run reads every shard, so
#: more shards cost more while nothing expires.
EXPIRY_SHARDS = 8
#: Rows of one shard in a group of `expired`. All shards together give what is terminated at a time.
_EXPIRED = 125
#: How long a row is kept after its token has expired, seconds. That is longer than a connection lives. Then the row
#: goes by itself, if nothing else has deleted it.
ROW_LIFE_S = 3 * 3600

#: Sort key of the mark of a crowd, and the start of its partition key. No connection's id is like this.
_MARK = "!crowd"
#: The character after `#`, which ends the connection's id in a sort key. No id of a connection has either, or one that
#: comes before them.
_NEXT = "$"

_OWN = "#generation = :generation"
_LIVE = f"{_OWN} AND #visible = :yes AND attribute_not_exists(#terminated_by)"


class DynamoSubscriptions(SubscriptionStore):
    """Rows of subscriptions. A row and its key in the connections table are deleted together."""

    def __init__(self, db: DynamoDb, table: str, connections_table: str) -> None:
        self._db = db
        self._table = table
        self._connections = connections_table

    def get(self, key: SubscriptionKey) -> Subscription | None:
        item = self._db.get(self._table, _key(key))
        return _row(item) if item else None

    def get_all(self, keys: Sequence[SubscriptionKey]) -> Mapping[SubscriptionKey, Subscription]:
        rows = map(_row, self._db.get_many(self._table, [_key(key) for key in keys]))
        return {row.key: row for row in rows}

    def put_hidden(self, row: Subscription) -> bool:
        equal, values = _live_on(row.claim)
        free = f"attribute_not_exists(#terminated_by) AND NOT ({equal})"
        if row.claim.principal.share_version is not None:
            free, values = f"{free} AND #version <= :version", values | {"version": row.version}
        try:
            self._db.put(self._table, _item(row), f"attribute_not_exists(#row) OR ({free})", values)
        except ConditionFailed:
            return False
        return True

    def make_visible(self, row: Subscription, shard: int = 0) -> bool:
        try:
            self._db.update(
                self._table,
                _key(row.key),
                "SET #visible = :yes, #audience = :stream",
                f"{_OWN} AND attribute_not_exists(#terminated_by)",
                {"generation": row.generation, "yes": True, "stream": _audience(row.stream_key, shard)},
            )
        except ConditionFailed:
            return False
        return True

    def move_expiry(self, row: Subscription, expires_at: int, session_token: str | None = None) -> bool:
        update = "SET #exp = :exp, #ttl = :ttl"
        values: Item = {"generation": row.generation, "yes": True, "exp": expires_at, "ttl": expires_at + ROW_LIFE_S}
        if session_token is not None:
            update, values = f"{update}, #session_token = :token", values | {"token": session_token}
        try:
            self._db.update(self._table, _key(row.key), update, f"{_LIVE} AND #exp < :exp", values)
        except ConditionFailed as failed:
            stored = _row(failed.item) if failed.item else self.get(row.key)
            return (
                stored is not None
                and stored.generation == row.generation
                and stored.live
                and stored.claim.expires_at >= expires_at
            )
        return True

    def claim_termination(self, row: Subscription, claim: TerminationClaim, *, expired_at: int | None = None) -> bool:
        condition = (
            f"{_OWN} AND (attribute_not_exists(#terminated_by) OR #terminated_by = :by OR #terminated_at <= :lapsed)"
        )
        values = {
            "generation": row.generation,
            "by": claim.by,
            "at": claim.at,
            "lapsed": claim.at - TERMINATION_CLAIM_S,
        }
        if expired_at is not None:
            condition, values = f"{condition} AND #exp <= :now", values | {"now": expired_at}
        update = "SET #terminated_by = :by, #terminated_at = :at REMOVE #audience"
        try:
            self._db.update(self._table, _key(row.key), update, condition, values)
        except ConditionFailed:
            return False
        return True

    def remove(self, row: Subscription) -> bool:
        seen = "attribute_not_exists(#terminated_by)" if row.termination is None else "#terminated_by = :by"
        own = f"attribute_not_exists(#row) OR (#generation = :generation AND {seen})"
        values = {"generation": row.generation} | ({} if row.termination is None else {"by": row.termination.by})
        try:
            self._db.transact(
                [
                    delete_action(self._table, _key(row.key), own, values),
                    drop_key_action(self._connections, row.key),
                ]
            )
        except TransactionFailed as failure:
            if 0 in failure.failed:
                return False
            try:  # the connection is gone, and the key with it
                self._db.delete(self._table, _key(row.key), own, values)
            except ConditionFailed:
                return False
        return True

    def release_key(self, key: SubscriptionKey) -> None:
        try:
            self._db.transact(
                [
                    check_action(self._table, _key(key), "attribute_not_exists(#row)"),
                    drop_key_action(self._connections, key),
                ]
            )
        except TransactionFailed:
            return  # the row of another subscribe needs the key, or the connection is gone

    def remove_all_of(self, connection: Connection) -> None:
        keys = [
            _key(SubscriptionKey(dashboard_id, connection.connection_id, datasource_id))
            for datasource_id, dashboard_id in connection.subscriptions.items()
        ]
        self._db.delete_many(self._table, keys)

    def of_dashboard(self, dashboard_id: str, after: str = "") -> Iterator[Subscription]:
        begin = _key_shard(after) if after else 0
        for shard in range(begin, KEY_SHARDS):
            condition, values = "#dashboard_shard = :partition", {"partition": f"{dashboard_id}#{shard}"}
            if after and shard == begin:
                condition, values = f"{condition} AND #row >= :next", values | {"next": after + _NEXT}
            for item in self._db.query(self._table, condition, values):
                yield _row(item)

    def some_of_dashboard(self, dashboard_id: str, most: int) -> SomeSubscriptions:
        """Every shard has the same part of `most`. Connections spread over them evenly, by a hash."""
        rows, more, part = list[Subscription](), False, max(1, most // KEY_SHARDS)
        for shard in range(KEY_SHARDS):
            values = {"partition": f"{dashboard_id}#{shard}"}
            condition = "#dashboard_shard = :partition"
            found = list(self._db.query(self._table, condition, values, limit=part + 1, consistent=False))
            more = more or len(found) > part
            rows += map(_row, found[:part])
        return SomeSubscriptions(rows, more)

    def of_user(self, user_id: str) -> Iterator[Subscription]:
        found = self._db.query(self._table, "#principal = :user", {"user": user_id}, index="by_principal")
        keys = [{"dashboard_shard": item["dashboard_shard"], "row": item["row"]} for item in found]
        for item in self._db.get_many(self._table, keys):
            yield _row(item)

    def expired(self, now: float) -> Iterator[Sequence[Subscription]]:
        # Every shard in turn, so that many rows in one do not keep those of another waiting.
        shards = [
            self._db.query(
                self._table,
                "#expiry_shard = :shard AND #exp <= :now",
                {"shard": shard, "now": int(now)},
                index="by_expiry",
            )
            for shard in range(EXPIRY_SHARDS)
        ]
        while found := [item for shard in shards for item in islice(shard, _EXPIRED)]:
            keys = [{"dashboard_shard": item["dashboard_shard"], "row": item["row"]} for item in found]
            yield [_row(item) for item in self._db.get_many(self._table, keys)]

    def count_live(self, shard: int, now: float, deadline: float) -> tuple[int, bool]:
        """How many of one of the `EXPIRY_SHARDS` have a token that has not expired, and whether there are more.

        *Index.* One page is read. `now` is in epoch seconds, `deadline` in monotonic seconds.
        """
        live, values = "#expiry_shard = :shard AND #exp > :now", {"shard": shard, "now": int(now)}
        return self._db.count(self._table, live, values, index="by_expiry", pages=1, deadline=deadline)

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Subscription]]:
        for items, position in self._db.scan(self._table, segment, segments, after):
            yield ScanPage([_row(item) for item in items if item["row"] != _MARK], position)

    def mark_crowd(self, stream_key: str, until: int) -> None:
        key = {"dashboard_shard": f"{_MARK}{stream_key}", "row": _MARK}
        values = {"stream": stream_key, "ttl": until}
        self._db.update(self._table, key, "SET #audience = :stream, #ttl = :ttl", values=values)

    def audience(self, stream_key: str, *, or_first_shard: bool = False) -> Audience:
        rows, marked = self._shard(stream_key, 0)
        if not marked:
            return Audience(rows)
        if or_first_shard and too_many(len(rows)):
            return Audience(rows, whole=False)
        for shard in range(1, AUDIENCE_SHARDS):
            rows += self._shard(stream_key, shard)[0]
        return Audience(rows)

    def audience_shard(self, stream_key: str, shard: int) -> Audience:
        return Audience(self._shard(stream_key, shard)[0])

    def _shard(self, stream_key: str, shard: int) -> tuple[list[Subscription], bool]:
        """The live rows of a shard, and whether it has the mark of a crowd."""
        key = _audience(stream_key, shard)
        rows, marked = [], False
        for item in self._db.query(self._table, "#audience = :stream", {"stream": key}, index="by_stream"):
            if item["row"] == _MARK:
                marked = True
                continue
            row = _row(item)
            if row.live:
                rows.append(row)
        return rows, marked


def _audience(stream_key: str, shard: int) -> str:
    """Value of the index attribute. A stream's key is a hash, so no other key begins like this."""
    return f"{stream_key}#{shard}" if shard else stream_key


def _expiry_shard(key: SubscriptionKey) -> int:
    return zlib.crc32(f"{key.connection_id}#{key.datasource_id}".encode()) % EXPIRY_SHARDS


def _key_shard(connection_id: str) -> int:
    return zlib.crc32(connection_id.encode()) % KEY_SHARDS


def _key(key: SubscriptionKey) -> dict[str, str]:
    return {
        "dashboard_shard": f"{key.dashboard_id}#{_key_shard(key.connection_id)}",
        "row": f"{key.connection_id}#{key.datasource_id}",
    }


def _live_on(claim: Claim) -> tuple[str, Item]:
    """The condition that a row is visible and has the same authorization (see `same_authorization`), and its values."""
    parts = ["#visible = :yes", "#subject = :subject", "#intent_hash = :intent_hash"]
    values: Item = {"yes": True, "subject": claim.principal.subject, "intent_hash": claim.intent_hash}
    for name in ("share_version", "session_version"):
        version = getattr(claim.principal, name)
        if version is None:
            parts.append(f"attribute_not_exists(#{name})")
        else:
            parts.append(f"#{name} = :{name}")
            values[name] = version
    return " AND ".join(parts), values


def _item(row: Subscription) -> Item:
    claim = row.claim
    item: Item = {
        **_key(row.key),
        "generation": row.generation,
        "subject": claim.principal.subject,
        "version": row.version,
        "intent_hash": claim.intent_hash,
        "exp": claim.expires_at,
        "expiry_shard": _expiry_shard(row.key),
        "stream_key": row.stream_key,
        "visible": False,
        "batch": row.batch,
        "protocol": row.protocol,
        "ttl": claim.expires_at + ROW_LIFE_S,
    }
    if claim.principal.share_version is not None:
        item["share_version"] = claim.principal.share_version
    if claim.principal.session_version is not None:
        item["session_version"] = claim.principal.session_version
    if row.session_token is not None:
        item["session_token"] = row.session_token
    if not claim.principal.is_public:
        item["principal"] = claim.principal.subject
    return item


def _row(item: Item) -> Subscription:
    connection_id, _, datasource_id = item["row"].partition("#")
    dashboard_id = item["dashboard_shard"].rpartition("#")[0]
    return Subscription(
        key=SubscriptionKey(dashboard_id, connection_id, datasource_id),
        generation=item["generation"],
        claim=Claim(
            dashboard_id=dashboard_id,
            datasource_id=datasource_id,
            principal=Principal(item["subject"], item.get("share_version"), item.get("session_version")),
            intent_hash=item["intent_hash"],
            expires_at=item["exp"],
        ),
        stream_key=item["stream_key"],
        visible=item["visible"],
        termination=TerminationClaim(item["terminated_by"], item["terminated_at"]) if "terminated_by" in item else None,
        batch=item["batch"],
        protocol=item["protocol"],
        session_token=item.get("session_token"),
    )
