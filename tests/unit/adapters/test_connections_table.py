"""What reserving a subscription asks of the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.adapters.dynamodb.client import DynamoDb, encode_item
from tidegate.adapters.dynamodb.connections import DynamoConnections
from tidegate.domain.budgets import ConnectionRoom
from tidegate.domain.subscriptions import Connection, SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.gateway import Reservation

KEY = SubscriptionKey("d", "c", "s")
EMPTY = Connection("c", "ip", 0, begun={7: 3})
HOLDS = Connection("c", "ip", 0, subscriptions={"s": "d"}, begun={7: 3})


class Table:
    """Answers each request with what is given next: nothing, or the row for which the condition failed."""

    def __init__(self, *rows: Connection | None) -> None:
        self._rows = list(rows)
        self.conditions: list[str] = []

    def call(self, operation: str, request: Mapping[str, Any], **_options: Any) -> dict[str, Any]:
        assert operation == "UpdateItem"
        self.conditions.append(request["ConditionExpression"])
        row = self._rows.pop(0)
        if row is None:
            return {}
        begun = {str(window): count for window, count in row.begun.items()}
        item = {"connection_id": "c", "ip": "ip", "opened_at": 0, "batch": False, "begun": begun}
        body = {"Item": encode_item(item | {"subscriptions": dict(row.subscriptions)})}
        raise AwsError("DynamoDB", operation, "ConditionalCheckFailedException", "", False, body, status=400)


def reserved(table: Table, seen: Connection) -> Reservation:
    return DynamoConnections(DynamoDb(cast(JsonClient, table)), "t").reserve(KEY, seen, ConnectionRoom(5, 7, 4), "slot")


@pytest.mark.parametrize("seen", [EMPTY, HOLDS, Connection("c", "ip", 0, begun={1: 4, 2: 4})])
def test_one_request_reserves_and_counts(seen: Connection) -> None:
    table = Table(None)
    assert reserved(table, seen) is Reservation.RESERVED
    assert len(table.conditions) == 1


def test_the_row_that_failed_tells_why_without_a_read() -> None:
    for row, why in (
        (Connection("c", "ip", 0, begun={7: 4}), Reservation.TOO_OFTEN),
        (Connection("c", "ip", 0, subscriptions={"s": "other"}), Reservation.OTHER_DASHBOARD),
        (Connection("c", "ip", 0, subscriptions=dict.fromkeys("abcde", "d")), Reservation.FULL),
    ):
        table = Table(row)
        assert reserved(table, EMPTY) is why and len(table.conditions) == 1


def test_what_was_read_decides_nothing() -> None:
    """The key came or went in between: it is asked again by the row as it is."""
    for seen, now in ((EMPTY, HOLDS), (HOLDS, EMPTY)):
        table = Table(now, None)
        assert reserved(table, seen) is Reservation.RESERVED
        assert len(table.conditions) == 2


def test_a_key_that_keeps_changing_is_given_up() -> None:
    with pytest.raises(Unavailable) as gave_up:
        reserved(Table(*[HOLDS, EMPTY] * 4), EMPTY)
    assert gave_up.value.code == "store_busy"
