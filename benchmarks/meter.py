"""What is asked of AWS: calls, and the request units that DynamoDB bills for them.

No emulator says what a request costs, so it is computed from the request and the answer. A read unit is for 4 KB,
strongly consistent, half a unit otherwise. A write unit is for 1 KB, and two in a transaction. Writes of indexes are
not counted. Each item that is written is taken to be smaller than 1 KB: a request does not show how large it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from tidegate.adapters.aws.json_client import JsonClient

_READ_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked.

    Attributes:
        calls: of DynamoDB.
        reads, writes: request units.
        others: calls of other services that speak JSON: queues and secrets.
    """

    calls: int = 0
    reads: float = 0.0
    writes: float = 0.0
    others: int = 0

    @property
    def of_dynamodb(self) -> tuple[int, float, float]:
        """Calls, read units and write units."""
        return self.calls, self.reads, self.writes

    def __add__(self, other: Asked) -> Asked:
        return Asked(
            self.calls + other.calls,
            self.reads + other.reads,
            self.writes + other.writes,
            self.others + other.others,
        )


@dataclass(slots=True)
class Meter:
    """Counts what this process asks, from any thread."""

    _asked: Asked = Asked()
    _lock: Lock = field(default_factory=Lock)

    def taken(self) -> Asked:
        """What was asked since this was last called."""
        with self._lock:
            asked, self._asked = self._asked, Asked()
        return asked

    def _note(self, asked: Asked) -> None:
        with self._lock:
            self._asked += asked


@contextmanager
def metered(table: str | None = None) -> Iterator[Meter]:
    """Count while the block runs. With `table`, the name of one, only what is asked of it."""
    meter, call = Meter(), JsonClient.call

    def counted(client: JsonClient, operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        try:
            answer = call(client, operation, payload, **options)
        finally:  # a write whose condition fails is billed too
            if table is None or _names(payload, table):
                meter._note(cost(operation, payload, answer))
        return answer

    JsonClient.call = counted  # type: ignore[method-assign, assignment] # nothing but counted
    try:
        yield meter
    finally:
        JsonClient.call = call  # type: ignore[method-assign]


def _names(payload: Mapping[str, Any], table: str) -> bool:
    """Whether a call is for a table. A transaction is for no single one."""
    return payload.get("TableName") == table or table in payload.get("RequestItems", {})


def cost(operation: str, payload: Mapping[str, Any], answer: Mapping[str, Any]) -> Asked:
    """What one call is billed. `answer` is empty when it failed."""
    whole = 1.0 if payload.get("ConsistentRead") else 0.5
    match operation:
        case "GetItem":
            return Asked(1, reads=_blocks(size(answer.get("Item", {}))) * whole)
        case "Query" | "Scan":
            return Asked(1, reads=_blocks(sum(map(size, answer.get("Items", [])))) * whole)
        case "BatchGetItem":
            reads = 0.0
            for table, asked in payload["RequestItems"].items():
                found = answer.get("Responses", {}).get(table, [])
                absent = len(asked["Keys"]) - len(found)
                each = 1.0 if asked.get("ConsistentRead") else 0.5
                reads += (sum(_blocks(size(item)) for item in found) + absent) * each
            return Asked(1, reads=reads)
        case "PutItem" | "UpdateItem" | "DeleteItem":
            return Asked(1, writes=1)
        case "BatchWriteItem":
            return Asked(1, writes=sum(map(len, payload["RequestItems"].values())))
        case "TransactWriteItems":
            return Asked(1, writes=2 * len(payload["TransactItems"]))
    return Asked(others=1)


def size(item: Mapping[str, Any]) -> int:
    """Bytes of an item in DynamoDB's typed JSON, about as DynamoDB counts them: names and values, in UTF-8."""
    return sum(len(name.encode()) + _bytes(value) for name, value in item.items())


def _bytes(typed: Mapping[str, Any]) -> int:
    ((kind, value),) = typed.items()
    match kind:
        case "S":
            return len(value.encode("utf-8", "surrogatepass"))
        case "N":
            return len(value) // 2 + 1
        case "M":
            return 3 + size(value) + len(value)
        case "L":
            return 3 + sum(_bytes(each) + 1 for each in value)
        case "SS":
            return sum(len(each.encode()) for each in value)
    return 1


def _blocks(bytes_read: int) -> int:
    return max(1, math.ceil(bytes_read / _READ_BYTES))
