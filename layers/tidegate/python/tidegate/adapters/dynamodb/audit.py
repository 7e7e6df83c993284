"""The audit table: a partition for each month, and indexes by action, actor and target. All are in the order of time.

A counted event is an update of one row. It changes nothing that an index has, so a repetition writes the row and no
index.

Invariant of this file: recording raises no error of Tidegate's, and takes `WRITE_S` at most. An event that could not be
written is counted and logged.
"""

from __future__ import annotations

import json
from time import monotonic

from tidegate import tables
from tidegate.adapters.dynamodb.client import ConditionFailed, DynamoDb, Item
from tidegate.domain.audit import (
    LIFE_S,
    AuditEvent,
    AuditQuery,
    AuditRow,
    as_text,
    bounded,
    cursor_of,
    identity,
    is_counted,
    month_of,
    months,
    place,
    place_ms,
    window_begin,
)
from tidegate.ports.control_plane import AuditLog, Page
from tidegate.ports.runtime import Ids, Observer

#: Most time for recording an event, seconds. It fits into what the longest limiter time leaves of a request.
WRITE_S = 3.0
#: Attribute that rows are found by -> its index.
_INDEXES = {index.partition.name: index.name for index in tables.AUDIT.indexes}


class DynamoAudit(AuditLog):
    """The audit log in DynamoDB."""

    def __init__(self, db: DynamoDb, table: str, ids: Ids, observer: Observer) -> None:
        self._db = db
        self._table = table
        self._ids = ids
        self._observer = observer

    def record(self, event: AuditEvent) -> None:
        try:
            event = bounded(event)
            if is_counted(event):
                self._count(event, monotonic() + WRITE_S)
            else:
                self._put(event, monotonic() + WRITE_S)
        except Exception as error:  # whatever it is, what is recorded has happened and must not fail for it
            self._observer.count("audit_not_written")
            self._observer.fault("audit event not written", error, action=event.action)

    def page(self, query: AuditQuery) -> Page[AuditRow]:
        """One page. A row whose index entry lags behind is on no page yet."""
        # One row more than asked for tells whether there is another page; and `before` itself is among what is read.
        items = self._read(query, query.limit + (1 if query.before is None else 2))
        items = [item for item in items if item["at"] != query.before]
        shown, more = items[: query.limit], len(items) > query.limit
        rows = [row for row in map(_row, shown) if query.wants(row.event)]
        return Page(rows, cursor_of(shown[-1]["at"]) if more else None)

    def _put(self, event: AuditEvent, deadline: float) -> None:
        at = place(event.at_ms, self._ids.new_id())
        item: Item = {"month": month_of(event.at_ms), "at": at, **_fixed(event)}
        self._db.put(self._table, item, deadline=deadline)

    def _count(self, event: AuditEvent, deadline: float) -> None:
        """Count the event in its row. A repetition of the call is recognised while no other event came between."""
        begin, fixed = window_begin(event.at_ms), _fixed(event)
        once = ", ".join(f"#{name} = if_not_exists(#{name}, :{name})" for name in [*fixed, "first_ms"])
        try:
            self._db.update(
                self._table,
                {"month": month_of(begin), "at": place(begin, identity(event))},
                f"SET {once}, #last_ms = :last_ms, #last = :last ADD #count :count",
                "attribute_not_exists(#last) OR #last <> :last",
                {**fixed, "first_ms": event.at_ms, "last_ms": event.at_ms, "last": self._ids.new_id(), "count": 1},
                deadline=deadline,
            )
        except ConditionFailed:
            return  # it has been counted, and the answer was lost

    def _read(self, query: AuditQuery, most: int) -> list[Item]:
        """The newest rows of the query, at most so many."""
        low, high = query.bounds
        if low > high:
            return []
        span = {"low": low, "high": high}
        if query.key is not None:
            name, value = query.key
            condition, values = f"#{name} = :key AND #at BETWEEN :low AND :high", {"key": value, **span}
            keys = self._db.query(self._table, condition, values, index=_INDEXES[name], limit=most, descending=True)
            found = self._db.get_many(self._table, [{"month": key["month"], "at": key["at"]} for key in keys])
            return sorted(found, key=lambda item: str(item["at"]), reverse=True)
        items: list[Item] = []
        for month in months(place_ms(low), place_ms(high)):
            condition, values = "#month = :month AND #at BETWEEN :low AND :high", {"month": month, **span}
            items += self._db.query(self._table, condition, values, limit=most - len(items), descending=True)
            if len(items) == most:
                break
        return items


def _fixed(event: AuditEvent) -> Item:
    """What stays as it is once written. Who is not signed in is in no index."""
    item: Item = {
        "action": event.action,
        "target_type": event.target_type,
        "target_id": event.target_id,
        "metadata": as_text(event.metadata),
        "ttl": event.at_ms // 1000 + LIFE_S,
    }
    return item if event.actor_id is None else item | {"actor_id": event.actor_id}


def _row(item: Item) -> AuditRow:
    at_ms = place_ms(item["at"])
    event = AuditEvent(
        action=item["action"],
        actor_id=item.get("actor_id"),
        target_type=item["target_type"],
        target_id=item["target_id"],
        at_ms=at_ms,
        metadata=json.loads(item["metadata"]),
    )
    return AuditRow(event, item.get("count", 1), item.get("first_ms", at_ms), item.get("last_ms", at_ms))
