"""Upstreams that the dashboards of an owner hold, in the limiters table. One item for each owner.

Invariant of this file: each decision is one conditional write on one item. The map never has more names than the limit,
but for those that were kept without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from tidegate.adapters.dynamodb.client import ConditionFailed, DynamoDb, Item, KeyFlooded
from tidegate.adapters.dynamodb.limits import in_time
from tidegate.domain.upstreams import ended, free_at, refused_until
from tidegate.errors import Unavailable
from tidegate.ports.limits import HoldReader, UpstreamHolds

#: How long an item is kept after the hold that was written last has ended, seconds. No token lives longer than an hour.
ITEM_LIFE_S = 86_400
#: How often a hold is tried while others change the same item so that its condition fails.
_ATTEMPTS = 8


class DynamoUpstreamHolds(UpstreamHolds, HoldReader):
    """Holds of owners."""

    def __init__(self, db: DynamoDb, table: str, namespace: str) -> None:
        self._db = db
        self._table = table
        self._namespace = namespace

    def hold(self, owner: str, name: str, until: int, now: int, limit: int | None, deadline: float) -> int | None:
        for _ in range(_ATTEMPTS):
            in_time(deadline)
            try:
                self._write(owner, name, until, limit, deadline)
                return None
            except ConditionFailed as failed:
                held = _held(failed.item)
            except KeyFlooded:
                return now + 1
            if held is None:
                if self._begin(owner, name, until, deadline):
                    return None
            elif held.get(name, 0) >= until:
                return None
            elif limit is not None and name not in held and len(held) >= limit:
                over = ended(held, now)
                if not over:
                    return free_at(held, limit)
                self._forget(owner, over, deadline)
        raise Unavailable("The holds of an owner are being changed", code="store_busy")

    def refused(self, owner: str, name: str, now: int, limit: int, deadline: float) -> int | None:
        in_time(deadline)
        return refused_until(_held(self._db.get(self._table, self._key(owner), deadline)) or {}, name, now, limit)

    def _write(self, owner: str, name: str, until: int, limit: int | None, deadline: float) -> None:
        values: Item = {"until": until, "ttl": until + ITEM_LIFE_S}
        new = "attribute_not_exists(#streams.#stream)"
        if limit is not None:
            new, values = f"{new} AND size(#streams) < :limit", values | {"limit": limit}
        item = self._db.update(
            self._table,
            self._key(owner),
            "SET #streams.#stream = :until, #ttl = :ttl",
            f"attribute_exists(#streams) AND (#streams.#stream < :until OR ({new}))",
            values,
            {"stream": name},
            returning=True,
            deadline=deadline,
        )
        _check(item, name, until)

    def _forget(self, owner: str, over: Mapping[str, int], deadline: float) -> None:
        """Remove holds that have ended, unless one of them was renewed meanwhile."""
        names = {f"stream{number}": name for number, name in enumerate(over)}
        values = {f"until{number}": until for number, until in enumerate(over.values())}
        numbers = range(len(over))
        with suppress(ConditionFailed):
            self._db.update(
                self._table,
                self._key(owner),
                "REMOVE " + ", ".join(f"#streams.#stream{number}" for number in numbers),
                " AND ".join(f"#streams.#stream{number} = :until{number}" for number in numbers),
                values,
                names,
                deadline=deadline,
            )

    def _begin(self, owner: str, name: str, until: int, deadline: float) -> bool:
        """The first hold of an owner. False when there is one meanwhile."""
        try:
            item = self._db.update(
                self._table,
                self._key(owner),
                "SET #streams = :first, #ttl = :ttl",
                "attribute_not_exists(#streams)",
                {"first": {name: until}, "ttl": until + ITEM_LIFE_S},
                returning=True,
                deadline=deadline,
            )
        except ConditionFailed:
            return False
        _check(item, name, until)
        return True

    def _key(self, owner: str) -> dict[str, str]:
        return {"key": f"upstreams#{self._namespace}#{owner}"}


def _held(item: Item | None) -> Mapping[str, int] | None:
    """The holds of an item; None when there are none. Raises `Unavailable` when they cannot be read."""
    if item is None or "streams" not in item:
        return None
    held = item["streams"]
    if not isinstance(held, dict) or not all(type(until) is int for until in held.values()):
        raise Unavailable("The limiter's answer cannot be read", code="store_malformed")
    return held


def _check(item: Item, name: str, until: int) -> None:
    """Raises `Unavailable` unless the answer says that the stream is held."""
    held = _held(item)
    if held is None or held.get(name) != until:
        raise Unavailable("The limiter's answer cannot be read", code="store_malformed")
