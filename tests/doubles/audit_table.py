"""A table in memory, as far as the audit log uses one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tidegate.adapters.dynamodb.client import ConditionFailed

Item = dict[str, Any]
_KEY = re.compile(r"#(\w+) = :(\w+) AND #at BETWEEN :low AND :high")


class MemoryTable:
    """Stands in for `DynamoDb`.

    Attributes:
        read: how many items each query has given.
        deadlines: of the writes.
    """

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.items: dict[tuple[str, str], Item] = {}
        self.read: list[int] = []
        self.deadlines: list[float | None] = []

    def put(self, _table: str, item: Item, *, deadline: float | None = None) -> None:
        self._write(deadline)
        self.items[item["month"], item["at"]] = dict(item)

    def update(
        self,
        _table: str,
        key: Item,
        update: str,
        condition: str,
        values: Mapping[str, Any],
        *,
        deadline: float | None = None,
    ) -> None:
        self._write(deadline)
        item = self.items.get((key["month"], key["at"]), dict(key))
        assert condition == "attribute_not_exists(#last) OR #last <> :last"
        if item.get("last") == values["last"]:
            raise ConditionFailed(item)
        sets, _, added = update.removeprefix("SET ").partition(" ADD ")
        for name in re.findall(r"#(\w+) = if_not_exists\(", sets):
            item.setdefault(name, values[name])
        for name in re.findall(r"#(\w+) = :", sets):
            item[name] = values[name]
        ((name, by),) = re.findall(r"#(\w+) :(\w+)", added)
        item[name] = item.get(name, 0) + values[by]
        self.items[key["month"], key["at"]] = item

    def query(
        self,
        _table: str,
        condition: str,
        values: Mapping[str, Any],
        *,
        index: str | None = None,
        limit: int,
        descending: bool,
    ) -> Iterator[Item]:
        found = _KEY.fullmatch(condition)
        assert found and descending and limit > 0 and values["low"] <= values["high"]
        name, value = found[1], values[found[2]]
        assert index == {"month": None, "action": "by_action", "actor_id": "by_actor", "target_id": "by_target"}[name]
        hits = [item for item in self.items.values() if item.get(name) == value]
        hits = [item for item in hits if values["low"] <= item["at"] <= values["high"]]
        hits = sorted(hits, key=lambda item: str(item["at"]), reverse=True)[:limit]
        self.read.append(len(hits))
        keys = ("month", "at", name)
        yield from hits if index is None else ({key: item[key] for key in keys} for item in hits)

    def get_many(self, _table: str, keys: Iterable[Item]) -> list[Item]:
        wanted = [(key["month"], key["at"]) for key in keys]
        return [self.items[key] for key in sorted(wanted) if key in self.items]

    def _write(self, deadline: float | None) -> None:
        self.deadlines.append(deadline)
        if self.failure is not None:
            raise self.failure
