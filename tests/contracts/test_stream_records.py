"""What the push function is handed is what the store of revocations wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.deployment import aws
from tidegate import tables
from tidegate.adapters.dynamodb.revocations import DynamoRevocations, read_stream_record
from tidegate.domain.revocations import Revocation, RevocationReason
from tidegate.providers.control_plane import ControlPlaneProviders

WRITTEN = [
    Revocation(RevocationReason.SHARE_TOKEN_ROTATED, "dash-1", 7),
    Revocation(RevocationReason.ACL_REMOVED, "dash-1", 7, "user-1"),
    Revocation(RevocationReason.PASSWORD_RESET, user_id="user-2"),
]


def test_a_record_reads_as_the_event_that_was_written(deployed: Mapping[str, str], moto_url: str) -> None:
    control_plane = ControlPlaneProviders(deployed)
    store = DynamoRevocations(control_plane.db, control_plane.table(tables.REVOCATIONS), retention_s=3600)
    now_ms = int(control_plane.clock.now() * 1000)
    for revocation in WRITTEN:
        store.write_with([], revocation, now_ms)
    items: list[dict[str, Any]] = aws(moto_url, "dynamodb").query(
        TableName=control_plane.table(tables.REVOCATIONS),
        KeyConditionExpression="feed = :events",
        ExpressionAttributeValues={":events": {"S": tables.REVOCATION_EVENTS}},
    )["Items"]
    read = [read_stream_record({"eventName": "INSERT", "dynamodb": {"NewImage": item}}) for item in items]
    assert read == list(store.read(0, 10, control_plane.clock.now()).events)
    assert [event.revocation for event in read] == WRITTEN


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"dynamodb": {}},
        {"dynamodb": {"NewImage": {}}},
        {"dynamodb": {"NewImage": {"reason": {"X": "y"}}}},
        {"dynamodb": 1},
    ],
)
def test_what_is_no_record_of_ours_is_said_to_be_none(record: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError):
        read_stream_record(record)
