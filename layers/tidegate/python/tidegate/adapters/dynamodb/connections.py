"""The connections table.

Invariant of this file: a row's `subscriptions` map (datasource id -> dashboard id) is its set of subscription keys.
Only `reserve` and `reserve_all` add to it: while there is room, and the row exists and is not closing. They count what
they add in the map `begun` (window -> count), in the same write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tidegate.adapters.dynamodb.client import ConditionFailed, DynamoDb, Item, update_action
from tidegate.domain.budgets import ConnectionRoom
from tidegate.domain.subscriptions import Connection, SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.gateway import ConnectionStore, Reservation
from tidegate.ports.runtime import ScanPage

#: How long a row is kept, seconds. A connection lives two hours at most. If its `$disconnect` was missed, the row is
#: gone soon after that all the same.
ROW_LIFE_S = 4 * 3600

#: How often a reservation is tried while others change the same key.
_RESERVE_ATTEMPTS = 8

#: Keys of one write at most. An expression may be 4 KB.
_RESERVED_TOGETHER = 50

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
            "begun": {},
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

    def reserve(self, key: SubscriptionKey, seen: Connection, room: ConnectionRoom, slot: str) -> Reservation:
        now: Connection | None = seen
        for _ in range(_RESERVE_ATTEMPTS):
            try:
                if now is not None and now.subscriptions.get(key.datasource_id) == key.dashboard_id:
                    self._reserve_again(key, slot)
                else:
                    self._reserve_new(key, room, room.over(now.begun if now else {}), slot)
            except ConditionFailed as failed:
                now = _connection(failed.item) if failed.item else None
                refused = _refusal(key, now, room)
                if refused is not None:
                    return refused
            else:
                return Reservation.RESERVED
        raise Unavailable("The connection is being changed", code="store_busy")

    def _reserve_new(self, key: SubscriptionKey, room: ConnectionRoom, over: list[int], slot: str) -> None:
        limits = {"at_once": room.at_once, "in_window": room.in_window}
        names = {"datasource": key.datasource_id, "window": str(room.window)}
        names |= {f"window{number}": str(window) for number, window in enumerate(over)}
        forget = " REMOVE " + ", ".join(f"#begun.#window{number}" for number in range(len(over))) if over else ""
        self._db.update(
            self._table,
            {"connection_id": key.connection_id},
            "SET #subscriptions.#datasource = :dashboard, #begun.#window = if_not_exists(#begun.#window, :none) + :one "
            f"ADD #slots :slot{forget}",
            f"{_OPEN} AND attribute_not_exists(#subscriptions.#datasource) AND size(#subscriptions) < :at_once "
            "AND (attribute_not_exists(#begun.#window) OR #begun.#window < :in_window)",
            {"dashboard": key.dashboard_id, "slot": {slot}, "none": 0, "one": 1} | limits,
            names,
        )

    def reserve_all(self, keys: Sequence[SubscriptionKey], room: ConnectionRoom, slot: str) -> bool:
        # A window that nothing was counted in yet has no attribute to compare.
        if len(keys) > min(_RESERVED_TOGETHER, room.in_window):
            return False
        left = {"at_once": room.at_once - len(keys), "in_window": room.in_window - len(keys)}
        names = {f"datasource{number}": key.datasource_id for number, key in enumerate(keys)}
        added = ", ".join(f"#subscriptions.#{name} = :dashboard" for name in names)
        new = " AND ".join(f"attribute_not_exists(#subscriptions.#{name})" for name in names)
        try:
            self._db.update(
                self._table,
                {"connection_id": keys[0].connection_id},
                f"SET {added}, #begun.#window = if_not_exists(#begun.#window, :none) + :count ADD #slots :slot",
                f"{_OPEN} AND {new} AND size(#subscriptions) <= :at_once "
                "AND (attribute_not_exists(#begun.#window) OR #begun.#window <= :in_window)",
                {"dashboard": keys[0].dashboard_id, "slot": {slot}, "none": 0, "count": len(keys)} | left,
                names | {"window": str(room.window)},
            )
        except ConditionFailed:
            return False
        return True

    def _reserve_again(self, key: SubscriptionKey, slot: str) -> None:
        """Note the slot for a key that is there."""
        self._db.update(
            self._table,
            {"connection_id": key.connection_id},
            "ADD #slots :slot",
            f"{_OPEN} AND #subscriptions.#datasource = :dashboard",
            {"dashboard": key.dashboard_id, "slot": {slot}},
            {"datasource": key.datasource_id},
        )

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

    def has_any(self) -> bool:
        return any(items for items, _ in self._db.scan(self._table, 0, 1, limit=1))

    def close_if_empty(self, connection_id: str, *, never_subscribed: bool = False) -> bool:
        unused = " AND size(#begun) = :none" if never_subscribed else ""
        try:
            self._db.update(
                self._table,
                {"connection_id": connection_id},
                "SET #closing = :yes",
                f"attribute_exists(#connection_id) AND size(#subscriptions) = :none{unused}",
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


def forget_slots_action(table: str, seen: Connection, slots: Iterable[str]) -> dict[str, Any]:
    """The action that forgets slots which are given back. It fails when the set of keys is not the one that was seen.

    So nobody has reserved a key meanwhile and counts on a slot.
    """
    return update_action(
        table,
        {"connection_id": seen.connection_id},
        "DELETE #slots :slots",
        "#subscriptions = :seen",
        {"slots": frozenset(slots), "seen": dict(seen.subscriptions)},
    )


def _refusal(key: SubscriptionKey, now: Connection | None, room: ConnectionRoom) -> Reservation | None:
    """Why the connection, as it was when the condition failed, gets no new key. None when it may be tried again."""
    if now is None or now.closing:
        return Reservation.GONE
    held = now.subscriptions.get(key.datasource_id)
    if held is not None:
        return None if held == key.dashboard_id else Reservation.OTHER_DASHBOARD
    if not room.may_hold(len(now.subscriptions)):
        return Reservation.FULL
    return None if room.may_begin(now.begun) else Reservation.TOO_OFTEN


def _connection(item: Item) -> Connection:
    return Connection(
        connection_id=item["connection_id"],
        ip=item["ip"],
        opened_at=item["opened_at"],
        batch=item["batch"],
        subscriptions=item["subscriptions"],
        slots=item.get("slots", frozenset()),
        begun={int(window): count for window, count in item["begun"].items()},
        closing=item.get("closing", False),
    )
