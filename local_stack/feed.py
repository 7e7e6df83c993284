"""The feed of revocation events, for checks of what happens when an event is not there any more."""

from __future__ import annotations

from typing import Any


def newest_event(tables: Any, table: str) -> dict[str, Any]:
    """The item of the newest event. `tables` is a client of DynamoDB, `table` the deployed name of the table."""
    found = tables.query(
        TableName=table,
        KeyConditionExpression="feed = :feed",
        ExpressionAttributeValues={":feed": {"S": "feed"}},
        ScanIndexForward=False,
        Limit=1,
    )
    (item,) = found["Items"]
    return dict(item)


def delete_event(tables: Any, table: str, item: dict[str, Any]) -> None:
    """Delete an event, as DynamoDB does after its retention."""
    tables.delete_item(TableName=table, Key={"feed": item["feed"], "event_id": item["event_id"]})
