"""The audit log never stands in the way of what it records."""

from __future__ import annotations

from typing import Any, cast

from tests.doubles.platform import CountingIds, MemoryObserver
from tidegate.adapters.dynamodb.audit import DynamoAudit
from tidegate.adapters.dynamodb.client import DynamoDb
from tidegate.errors import Unavailable
from tidegate.ports.control_plane import AuditEvent


class Table:
    """A table that may be down."""

    def __init__(self, *, down: bool) -> None:
        self.down = down
        self.items: list[dict[str, Any]] = []

    def put(self, _table: str, item: dict[str, Any]) -> None:
        if self.down:
            raise Unavailable("down")
        self.items.append(item)


def test_a_table_that_is_down_is_counted_and_raises_nothing() -> None:
    event = AuditEvent("dashboard.created", "u", "dashboard", "d", 1_700_000_000_000)
    for down in (False, True):
        table, observer = Table(down=down), MemoryObserver()
        DynamoAudit(cast(DynamoDb, table), "audit", CountingIds(), observer).record(event)
        assert len(table.items) == (0 if down else 1)
        assert observer.counts.get(("audit_not_written",), 0) == (1 if down else 0)
