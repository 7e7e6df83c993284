"""The audit log never stands in the way of what it records."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.doubles.platform import CountingIds, MemoryObserver
from tidegate.adapters.aws.json_client import AwsError
from tidegate.adapters.dynamodb.audit import DynamoAudit
from tidegate.adapters.dynamodb.client import DynamoDb
from tidegate.errors import Unavailable
from tidegate.ports.control_plane import AuditEvent


class Table:
    """A table that may fail."""

    def __init__(self, *, failure: Exception | None) -> None:
        self.failure = failure
        self.items: list[dict[str, Any]] = []

    def put(self, _table: str, item: dict[str, Any]) -> None:
        if self.failure is not None:
            raise self.failure
        self.items.append(item)


@pytest.mark.parametrize(
    "failure",
    [
        None,
        Unavailable("down"),
        AwsError("dynamodb", "PutItem", "AccessDeniedException", "not allowed", False, {}),
        AwsError("dynamodb", "PutItem", "ResourceNotFoundException", "no table", False, {}),
    ],
    ids=["none", "unavailable", "access denied", "table gone"],
)
def test_whatever_fails_is_counted_and_raises_nothing(failure: Exception | None) -> None:
    event = AuditEvent("dashboard.created", "u", "dashboard", "d", 1_700_000_000_000)
    table, observer = Table(failure=failure), MemoryObserver()
    DynamoAudit(cast(DynamoDb, table), "audit", CountingIds(), observer).record(event)
    assert len(table.items) == (0 if failure else 1)
    assert observer.counts.get(("audit_not_written",), 0) == (1 if failure else 0)
