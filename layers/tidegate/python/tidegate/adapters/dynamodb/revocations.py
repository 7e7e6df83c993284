"""The revocations table: events in the partition `feed`, and the newest id as item 0 of the partition `head`.

Invariant of this file: ids are integers without gaps, because the transaction that writes event n+1 moves the head
from n to n+1 under a condition. So a reader at n knows that every event up to n is there. Revocations are rare, so
writing them one after another costs nothing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from secrets import token_hex
from time import sleep
from typing import Any

from tidegate.adapters.dynamodb.client import (
    ConditionFailed,
    DynamoDb,
    Item,
    TransactionFailed,
    decode_item,
    put_action,
    update_action,
)
from tidegate.domain.revocations import FeedPage, Revocation, RevocationEvent, RevocationReason
from tidegate.domain.switches import SETTLING_S
from tidegate.errors import Unavailable
from tidegate.ports.remote_api import RemoteCursors
from tidegate.ports.revocation import (
    CursorStore,
    FullRevalidationRuns,
    RevalidationRun,
    RevocationFeed,
    RevocationState,
)
from tidegate.tables import REVOCATION_EVENTS

_FEED, _HEAD = REVOCATION_EVENTS, {"feed": "head", "event_id": 0}
_FULL = {"feed": "full", "event_id": 0}
_CURSOR = {"feed": "cursor", "event_id": 0}
_ATTEMPTS = 12


class DynamoRevocations(RevocationFeed, CursorStore, FullRevalidationRuns):
    """The feed, our cursor in it, and the runs of full revalidations. Stores whose changes revoke write with it."""

    def __init__(self, db: DynamoDb, table: str, retention_s: int) -> None:
        self._db = db
        self._table = table
        self._retention_s = retention_s

    def write_with(self, actions: Sequence[dict[str, Any]], revocation: Revocation | None, now_ms: int) -> int | None:
        """Carry out the actions and, in the same transaction, record the event. `now_ms` is epoch milliseconds.

        Returns the event's id; None when there is no revocation to record.

        Raises:
            TransactionFailed: with positions of `actions` only.
            Unavailable: other revocations were written first again and again.
        """
        if revocation is None:
            self._db.transact(actions, token=token_hex(16))
            return None
        for attempt in range(1, _ATTEMPTS + 1):
            head = self._head()
            event = RevocationEvent(head + 1, revocation, now_ms)
            try:
                self._db.transact([*actions, *self._record(event, head)], token=token_hex(16))
                return event.event_id
            except TransactionFailed as failure:
                own = frozenset(position for position in failure.failed if position < len(actions))
                if own:
                    raise TransactionFailed(own) from failure
                sleep(random.uniform(0, 0.01 * attempt))  # another revocation was first; take the next id
        raise Unavailable("The revocation feed is busy", code="store_busy")

    def read(self, after: int, limit: int, now: float) -> FeedPage:
        """Events past their retention are not returned, whether or not DynamoDB has deleted them already."""
        head = self._head()
        cutoff_ms = int((now - self._retention_s) * 1000)
        oldest = self._oldest(cutoff_ms, head)
        condition = "#feed = :feed AND #event_id > :after"
        values = {"feed": _FEED, "after": max(after, oldest - 1)}
        events = [_event(item) for item in self._db.query(self._table, condition, values, limit=limit)]
        return FeedPage(tuple(event for event in events if event.event_id <= head), head, oldest)

    def cursor(self) -> int | None:
        item = self._db.get(self._table, _CURSOR)
        return int(item["position"]) if item else None

    def move_cursor(self, old: int | None, new: int) -> bool:
        condition = "attribute_not_exists(#position)" if old is None else "#position = :old"
        values: Item = {"new": new} | ({} if old is None else {"old": old})
        try:
            self._db.update(self._table, _CURSOR, "SET #position = :new", condition, values)
        except ConditionFailed:
            return False
        return True

    def begin(self, owner: str, now: int, interval_s: int, life_s: int, switches: str = "") -> RevalidationRun | None:
        """Attributes of the item: `owner` and `until` say who works on the run. `began`, `progress` and `open` are the
        run itself. `ended` and `connections` are of the last one that ended. `demanded` asks for a run before it is
        due. `switches` are those that the run began with. Until `settling`, epoch seconds, functions may still have
        others."""
        free = "(attribute_not_exists(#until) OR #until < :now OR #owner = :owner)"
        lease = {"now": now, "owner": owner, "until": now + life_s}
        try:
            item = self._db.update(
                self._table,
                _FULL,
                "SET #owner = :owner, #until = :until",
                f"attribute_exists(#open) AND {free}",
                lease,
                returning=True,
            )
            return RevalidationRun(owner, item["began"], item["progress"])
        except ConditionFailed:
            pass
        values = lease | {"none": {}, "yes": True, "switches": switches}
        begun = (
            "#owner = :owner, #until = :until, #began = :now, #progress = :none, #open = :yes, #switches = :switches"
        )
        closed = f"attribute_not_exists(#open) AND {free}"
        asked = "#began <= :due OR attribute_exists(#demanded) OR #settling >= :now"
        due = f"(attribute_not_exists(#began) OR {asked})"
        changed = "attribute_exists(#switches) AND #switches <> :switches"
        for update, condition, more in (
            (f"SET {begun}, #settling = :settling REMOVE #demanded", changed, {"settling": now + SETTLING_S}),
            (f"SET {begun} REMOVE #demanded", due, {"due": now - interval_s}),
        ):
            try:
                self._db.update(self._table, _FULL, update, f"{closed} AND {condition}", values | more)
            except ConditionFailed:
                continue
            return RevalidationRun(owner, now, {})
        return None

    def note(self, run: RevalidationRun, step: str, position: str) -> bool:
        return self._of(run, "SET #progress.#step = :position", {"position": position}, {"step": step})

    def pause(self, run: RevalidationRun) -> None:
        self._of(run, "REMOVE #until")

    def end(self, run: RevalidationRun, ended: int = 0, connections: int | None = None) -> None:
        if connections is None:
            self._of(run, "REMOVE #until, #open, #progress")
            return
        counted = {"ended": ended, "connections": connections}
        self._of(run, "SET #ended = :ended, #connections = :connections REMOVE #until, #open, #progress", counted)

    def state(self, deadline: float) -> RevocationState:
        """How far our reader is in the feed, and what is known of full revalidations.

        `deadline` is in monotonic seconds. The three items are not of the same moment.
        """
        # The cursor first: else it may seem to be beyond the head.
        cursor, head, full = (self._db.get(self._table, key, deadline) or {} for key in (_CURSOR, _HEAD, _FULL))
        applied, newest = int(cursor.get("position", 0)), int(head.get("head", 0))
        waiting = None
        if newest > applied:
            waiting = self._db.get(self._table, {"feed": _FEED, "event_id": applied + 1}, deadline)
        return RevocationState(
            newest=newest,
            applied=applied,
            waiting_since_ms=None if waiting is None else int(waiting["revoked_at_ms"]),
            began=full.get("began"),
            open="open" in full,
            demanded="demanded" in full,
            ended=full.get("ended"),
            connections=full.get("connections"),
        )

    def demand(self, now: int) -> None:
        self._db.update(self._table, _FULL, "SET #demanded = :now", values={"now": now})

    def _of(
        self, run: RevalidationRun, update: str, values: Item | None = None, names: Mapping[str, str] | None = None
    ) -> bool:
        try:
            self._db.update(self._table, _FULL, update, "#owner = :owner", {"owner": run.owner} | (values or {}), names)
        except ConditionFailed:
            return False
        return True

    def _oldest(self, cutoff_ms: int, head: int) -> int:
        for item in self._db.query(self._table, "#feed = :feed", {"feed": _FEED}):
            if item["revoked_at_ms"] >= cutoff_ms:
                return int(item["event_id"])
        return head + 1

    def _head(self) -> int:
        item = self._db.get(self._table, _HEAD)
        return int(item["head"]) if item else 0

    def _record(self, event: RevocationEvent, head: int) -> list[dict[str, Any]]:
        was = "#head = :was" if head else "attribute_not_exists(#head)"
        values: Item = {"next": event.event_id} | ({"was": head} if head else {})
        revocation = event.revocation
        item: Item = {
            "feed": _FEED,
            "event_id": event.event_id,
            "reason": revocation.reason.value,
            "revoked_at_ms": event.revoked_at_ms,
            "ttl": event.revoked_at_ms // 1000 + self._retention_s + 3600,
        }
        optional = {
            "dashboard_id": revocation.dashboard_id,
            "share_version": revocation.share_version,
            "user_id": revocation.user_id,
        }
        item |= {name: value for name, value in optional.items() if value is not None}
        return [
            update_action(self._table, _HEAD, "SET #head = :next", was, values),
            put_action(self._table, item, "attribute_not_exists(#event_id)"),
        ]


def read_stream_record(record: Mapping[str, Any]) -> RevocationEvent:
    """The event of a record of the table's stream. The record is an insertion with its new image.

    Raises:
        ValueError: it is not a record of an event of this table.
    """
    try:
        return _event(decode_item(record["dynamodb"]["NewImage"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a record of the revocations table: {type(error).__name__}") from error


class DynamoRemoteCursor(RemoteCursors):
    """Our cursor in a remote API's feed. Each API has its own, so that a new one is read from its beginning."""

    def __init__(self, db: DynamoDb, table: str, api: str) -> None:
        self._db = db
        self._table = table
        self._key: Item = {"feed": f"remote#{api}", "event_id": 0}

    def cursor(self) -> str | None:
        item = self._db.get(self._table, self._key)
        return str(item["cursor"]) if item else None

    def move_cursor(self, old: str | None, new: str) -> bool:
        condition = "attribute_not_exists(#cursor)" if old is None else "#cursor = :old"
        values: Item = {"new": new} | ({} if old is None else {"old": old})
        try:
            self._db.update(self._table, self._key, "SET #cursor = :new", condition, values)
        except ConditionFailed:
            return False
        return True


def _event(item: Item) -> RevocationEvent:
    return RevocationEvent(
        event_id=item["event_id"],
        revocation=Revocation(
            reason=RevocationReason.of(item["reason"]),
            dashboard_id=item.get("dashboard_id"),
            share_version=item.get("share_version"),
            user_id=item.get("user_id"),
        ),
        revoked_at_ms=item["revoked_at_ms"],
    )
