"""The connections table.

Invariant of this file: a row's `subscriptions` map (datasource id -> dashboard id) is its set of subscription keys.
Only `reserve` adds to it: up to the cap, and while the row exists and is not closing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tidegate.adapters.dynamodb.client import ConditionFailed, DynamoDb, Item, update_action
from tidegate.domain.subscriptions import Connection, SubscriptionKey
from tidegate.ports.gateway import ConnectionStore, Reservation
from tidegate.ports.runtime import ScanPage

#: How long a row is kept, seconds. A connection lives two hours at most. If its `$disconnect` was missed, the row is
#: gone soon after that all the same.
ROW_LIFE_S = 4 * 3600

_OPEN = "attribute_exists(#connection_id) AND attribute_not_exists(#closing)"


class DynamoConnections(ConnectionStore):
    """One row for each open WebSocket."""

    def __init__(self, db: DynamoDb, table: str) -> None:
        self._db = db
        self._table = table

    def open(self, connection: Connection) -> None:
        item: Item = {
            "connection_id": connection.connection_id,
            "ip": connection.ip,
            "opened_at": connection.opened_at,
            "batch": connection.batch,
            "subscriptions": {},
            "ttl": connection.opened_at + ROW_LIFE_S,
        }
        if connection.slots:
            item["slots"] = connection.slots
        try:
            self._db.put(self._table, item, "attribute_not_exists(#connection_id)")
        except ConditionFailed:
            return  # a repetition: the row may already have subscriptions, so it is left as it is

    def get(self, connection_id: str) -> Connection | None:
        item = self._db.get(self._table, {"connection_id": connection_id})
        return _connection(item) if item else None

    def reserve(self, key: SubscriptionKey, cap: int, slot: str) -> Reservation:
        try:
            self._db.update(
                self._table,
                {"connection_id": key.connection_id},
                "SET #subscriptions.#datasource = :dashboard ADD #slots :slot",
                f"{_OPEN} AND (#subscriptions.#datasource = :dashboard OR "
                "(attribute_not_exists(#subscriptions.#datasource) AND size(#subscriptions) < :cap))",
                {"dashboard": key.dashboard_id, "slot": {slot}, "cap": cap},
                {"datasource": key.datasource_id},
            )
        except ConditionFailed:
            # The row as it is now tells which part of the condition failed. If it has changed since, only the wording
            # of the refusal is wrong.
            connection = self.get(key.connection_id)
            if connection is None or connection.closing:
                return Reservation.GONE
            other = connection.subscriptions.get(key.datasource_id)
            return Reservation.OTHER_DASHBOARD if other not in (None, key.dashboard_id) else Reservation.FULL
        return Reservation.RESERVED

    def note_slot(self, connection_id: str, slot: str) -> bool:
        try:
            self._db.update(self._table, {"connection_id": connection_id}, "ADD #slots :slot", _OPEN, {"slot": {slot}})
        except ConditionFailed:
            return False
        return True

    def forget_slots(self, connection_id: str, slots: Iterable[str]) -> None:
        names = frozenset(slots)
        if not names:
            return
        try:
            self._db.update(
                self._table,
                {"connection_id": connection_id},
                "DELETE #slots :slots",
                "attribute_exists(#connection_id)",
                {"slots": names},
            )
        except ConditionFailed:
            return

    def remove(self, connection_id: str) -> Connection | None:
        item = self._db.delete(self._table, {"connection_id": connection_id})
        return _connection(item) if item else None

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Connection]]:
        for items, position in self._db.scan(self._table, segment, segments, after):
            yield ScanPage([_connection(item) for item in items], position)

    def close_if_empty(self, connection_id: str) -> bool:
        try:
            self._db.update(
                self._table,
                {"connection_id": connection_id},
                "SET #closing = :yes",
                "attribute_exists(#connection_id) AND size(#subscriptions) = :none",
                {"yes": True, "none": 0},
            )
        except ConditionFailed:
            return False
        return True


def drop_key_action(table: str, key: SubscriptionKey) -> dict[str, Any]:
    """The action that removes a subscription's key from its connection. It fails when the connection is gone."""
    return update_action(
        table,
        {"connection_id": key.connection_id},
        "REMOVE #subscriptions.#datasource",
        "attribute_exists(#connection_id)",
        names={"datasource": key.datasource_id},
    )


def _connection(item: Item) -> Connection:
    return Connection(
        connection_id=item["connection_id"],
        ip=item["ip"],
        opened_at=item["opened_at"],
        batch=item["batch"],
        subscriptions=item["subscriptions"],
        slots=item.get("slots", frozenset()),
        closing=item.get("closing", False),
    )
