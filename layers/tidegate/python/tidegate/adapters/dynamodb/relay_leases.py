"""The relay's leases, in the streams table: its partition `lease` has a row for each relay partition.

Invariant of this file: a change of owner and the new fence are one write. Its condition is that the lease is still the
one that was seen, or that it is free or the claimer's own.
"""

from __future__ import annotations

from tidegate.adapters.dynamodb.client import ConditionFailed, DynamoDb, Item
from tidegate.domain.relay import CLAIM_AFTER_S, LEASE_S, Lease
from tidegate.ports.relay import RelayLeases
from tidegate.tables import RELAY_LEASES

_OWN = "#owner = :owner AND #fence = :fence"


class DynamoRelayLeases(RelayLeases):
    """Leases in the streams table. Times are stored as whole milliseconds."""

    def __init__(self, db: DynamoDb, table: str) -> None:
        self._db = db
        self._table = table

    def claim(self, partition: int, owner: str, now: float) -> Lease | None:
        # When an answer is lost, the owner claims again with the same id, and succeeds.
        free = "attribute_not_exists(#until) OR #until < :free OR #owner = :owner"
        values = {"owner": owner, "until": _ms(now + LEASE_S), "free": _ms(now - CLAIM_AFTER_S), "one": 1}
        update = "SET #owner = :owner, #until = :until REMOVE #successor, #leaving ADD #fence :one"
        return self._update(partition, update, free, values)

    def renew(self, lease: Lease, now: float) -> Lease | None:
        return self._update(lease.partition, "SET #until = :until", _OWN, _own(lease) | {"until": _ms(now + LEASE_S)})

    def release(self, lease: Lease) -> None:
        self._update(lease.partition, "REMOVE #until, #successor, #leaving", _OWN, _own(lease))

    def offer(self, partition: int, successor: str) -> Lease | None:
        first = "attribute_exists(#until) AND (attribute_not_exists(#successor) OR #successor = :successor)"
        return self._update(partition, "SET #successor = :successor", first, {"successor": successor})

    def ask_successor(self, lease: Lease) -> Lease | None:
        return self._update(lease.partition, "SET #leaving = :owner", _OWN, _own(lease))

    def hand_over(self, lease: Lease, now: float) -> bool:
        values = _own(lease) | {"next": lease.successor, "until": _ms(now + LEASE_S), "one": 1}
        update = "SET #owner = :next, #until = :until REMOVE #successor, #leaving ADD #fence :one"
        return self._update(lease.partition, update, f"{_OWN} AND #successor = :next", values) is not None

    def current(self, partition: int, deadline: float | None = None) -> Lease | None:
        item = self._db.get(self._table, _key(partition), deadline)
        return _lease(partition, item) if item and "until" in item else None

    def _update(self, partition: int, update: str, condition: str, values: Item) -> Lease | None:
        try:
            item = self._db.update(self._table, _key(partition), update, condition, values, returning=True)
        except ConditionFailed:
            return None
        return _lease(partition, item)


def _key(partition: int) -> dict[str, str]:
    return {"source": RELAY_LEASES, "stream_key": str(partition)}


def _own(lease: Lease) -> Item:
    return {"owner": lease.owner, "fence": lease.fence}


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _lease(partition: int, item: Item) -> Lease:
    # Workers of older releases do not take the note away. So it holds for the owner that made it.
    leaving = item.get("leaving") == item["owner"]
    until = item.get("until", 0) / 1000
    return Lease(partition, item["owner"], item["fence"], until, item.get("successor", ""), leaving)
