"""The limiters table: counters of fixed windows, and sets of holders.

Invariant of this file: each decision is one conditional write on one item, so it is exact under any concurrency.

A key that is flooded until DynamoDB throttles it alone is refused, for that moment. Throttling for any other reason
says nothing about the key: the store is unavailable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from time import monotonic

from tidegate.adapters.dynamodb.client import ConditionFailed, DynamoDb, KeyFlooded, TransactionFailed, update_action
from tidegate.adapters.dynamodb.connections import forget_slots_action
from tidegate.domain.limits import FLOODED, RateDecision, decide_rate, window_of
from tidegate.domain.subscriptions import Connection
from tidegate.errors import Unavailable
from tidegate.ports.limits import CapReader, CapStore, RateCounter, RateReader
from tidegate.ports.runtime import ScanPage

_RATE, _CAP = "rate#", "cap#"
_UNREADABLE = "The limiter's answer cannot be read"


class DynamoRates(RateCounter, RateReader):
    """Rates, one item for each key and window."""

    def __init__(self, db: DynamoDb, table: str) -> None:
        self._db = db
        self._table = table

    def count(
        self, key: str, limit: int, now_ms: int, window_ms: int, request_id: str, deadline: float
    ) -> RateDecision:
        refused = decide_rate(limit + 1, limit, now_ms, window_ms)
        window = window_of(now_ms, window_ms)
        in_time(deadline)
        try:
            item = self._db.update(
                self._table,
                _window_key(key, now_ms, window_ms),
                "SET #last = :request, #ttl = :ttl ADD #count :one",
                "attribute_not_exists(#count) OR (#count < :limit AND #last <> :request)",
                {
                    "request": request_id,
                    # Kept for one more window, so that a person who reads the table later still sees why.
                    "ttl": (window + 2) * window_ms // 1000,
                    "one": 1,
                    "limit": limit,
                },
                returning=True,
                deadline=deadline,
            )
        except ConditionFailed as failed:
            if failed.item and failed.item.get("last") == request_id:
                return decide_rate(number(failed.item.get("count")), limit, now_ms, window_ms)
            return refused
        except KeyFlooded:
            return FLOODED
        return decide_rate(number(item.get("count")), limit, now_ms, window_ms)

    def spent(self, key: str, now_ms: int, window_ms: int, deadline: float) -> int:
        in_time(deadline)
        item = self._db.get(self._table, _window_key(key, now_ms, window_ms), deadline)
        return 0 if item is None else number(item.get("count"))


class DynamoCaps(CapStore, CapReader):
    """Caps, one item for each counter shard."""

    def __init__(self, db: DynamoDb, table: str, namespace: str, connections_table: str) -> None:
        self._db = db
        self._table = table
        self._namespace = namespace
        self._connections = connections_table

    def take(self, cap: str, shard: int, limit: int, holder: str, deadline: float | None = None) -> bool:
        if deadline is not None:
            in_time(deadline)
        if limit < 1:
            return False
        try:
            item = self._db.update(
                self._table,
                self._key(cap, shard),
                "ADD #holders :holders",
                "attribute_not_exists(#holders) OR contains(#holders, :holder) OR size(#holders) < :limit",
                {"holders": {holder}, "holder": holder, "limit": limit},
                returning=True,
                deadline=deadline,
            )
        except (ConditionFailed, KeyFlooded):
            return False
        holders = item.get("holders")
        if not isinstance(holders, frozenset) or holder not in holders:
            raise Unavailable(_UNREADABLE, code="store_malformed")
        return True

    def held(self, cap: str, shard: int, deadline: float) -> int:
        in_time(deadline)
        holders = (self._db.get(self._table, self._key(cap, shard), deadline) or {}).get("holders", frozenset())
        if not isinstance(holders, frozenset):
            raise Unavailable(_UNREADABLE, code="store_malformed")
        return len(holders)

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[tuple[str, int, str]]]:
        start = f"{_CAP}{self._namespace}#"
        for items, position in self._db.scan(self._table, segment, segments, after):
            taken = []
            for item in items:
                if item["key"].startswith(start):
                    cap, _, shard = item["key"].removeprefix(start).rpartition("#")
                    taken += [(cap, int(shard), holder) for holder in item.get("holders", ())]
            yield ScanPage(taken, position)

    def release(self, cap: str, shard: int, holder: str, deadline: float | None = None) -> None:
        if deadline is not None:
            in_time(deadline)
        self._db.update(
            self._table,
            self._key(cap, shard),
            "DELETE #holders :holders",
            values={"holders": {holder}},
            deadline=deadline,
        )

    def give_back(self, seen: Connection, slots: Collection[tuple[str, int]]) -> bool:
        names = [f"{cap}#{shard}" for cap, shard in slots]
        freed = [
            update_action(
                self._table, self._key(cap, shard), "DELETE #holders :holders", values={"holders": {seen.connection_id}}
            )
            for cap, shard in slots
        ]
        try:
            self._db.transact([forget_slots_action(self._connections, seen, names), *freed])
        except TransactionFailed:
            return False
        return True

    def _key(self, cap: str, shard: int) -> dict[str, str]:
        return {"key": f"{_CAP}{self._namespace}#{cap}#{shard}"}


def _window_key(key: str, now_ms: int, window_ms: int) -> dict[str, str]:
    return {"key": f"{_RATE}{key}#{window_ms}#{window_of(now_ms, window_ms)}"}


def number(value: object) -> int:
    """The number. Raises `Unavailable` when the stored value is none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unavailable(_UNREADABLE, code="store_malformed")
    return value


def in_time(deadline: float) -> None:
    """Raises `Unavailable` when the deadline, monotonic seconds, is over."""
    if monotonic() >= deadline:
        raise Unavailable("The limiter did not answer in time", code="limiter_timeout")
