"""What a call of AWS is counted as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.meter import Asked, cost, metered, size
from tidegate.adapters.aws.json_client import AwsError, JsonClient

SMALL: Mapping[str, Any] = {"key": {"S": "k"}}
LARGE: Mapping[str, Any] = {"key": {"S": "k" * 5000}}


@pytest.mark.parametrize(
    ("operation", "payload", "answer", "asked"),
    [
        ("GetItem", {"ConsistentRead": True}, {"Item": SMALL}, Asked(1, reads=1)),
        ("GetItem", {}, {"Item": SMALL}, Asked(1, reads=0.5)),
        ("GetItem", {"ConsistentRead": True}, {"Item": LARGE}, Asked(1, reads=2)),
        ("GetItem", {"ConsistentRead": True}, {}, Asked(1, reads=1)),
        ("Query", {}, {"Items": [SMALL] * 100}, Asked(1, reads=0.5)),
        ("Query", {}, {"Items": [LARGE] * 100}, Asked(1, reads=61.5)),
        (
            "BatchGetItem",
            {"RequestItems": {"t": {"Keys": [SMALL, LARGE, SMALL], "ConsistentRead": True}}},
            {"Responses": {"t": [SMALL, LARGE]}},
            Asked(1, reads=4),
        ),
        ("UpdateItem", {}, {}, Asked(1, writes=1)),
        ("BatchWriteItem", {"RequestItems": {"t": [SMALL] * 3}}, {}, Asked(1, writes=3)),
        ("TransactWriteItems", {"TransactItems": [SMALL] * 3}, {}, Asked(1, writes=6)),
        ("SendMessageBatch", {}, {}, Asked(others=1)),
    ],
)
def test_what_a_call_is_billed(
    operation: str, payload: Mapping[str, Any], answer: Mapping[str, Any], asked: Asked
) -> None:
    assert cost(operation, payload, answer) == asked


def test_the_size_of_an_item_is_of_its_names_and_values() -> None:
    item = {"a": {"S": "\u00e9"}, "bc": {"N": "123"}, "d": {"BOOL": True}, "e": {"NULL": True}}
    assert size(item) == 1 + 2 + 2 + 2 + 1 + 1 + 1 + 1
    assert size({"m": {"M": {"n": {"S": "x"}}}, "l": {"L": [{"S": "y"}]}, "s": {"SS": ["z", "zz"]}}) == 7 + 6 + 4


def test_a_call_that_failed_is_counted_and_nothing_once_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_client: JsonClient, operation: str, _payload: Mapping[str, Any], **_options: Any) -> dict[str, Any]:
        raise AwsError("dynamodb", operation, "ConditionalCheckFailedException", "", False, {})

    monkeypatch.setattr(JsonClient, "call", fails)
    before: object = JsonClient.call
    client = object.__new__(JsonClient)
    with metered() as meter:
        with pytest.raises(AwsError):
            client.call("PutItem", {})
        assert meter.taken() == Asked(1, writes=1)
        assert meter.taken() == Asked()
        assert JsonClient.call is not before
    assert JsonClient.call is before


def test_one_table_is_counted_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JsonClient, "call", lambda *_args, **_options: {})
    client = object.__new__(JsonClient)
    with metered() as all_tables, metered("mine") as mine:
        client.call("UpdateItem", {"TableName": "mine"})
        client.call("UpdateItem", {"TableName": "other"})
        client.call("BatchWriteItem", {"RequestItems": {"mine": [SMALL, SMALL]}})
        client.call("SendMessage", {"QueueUrl": "mine"})
        assert mine.taken() == Asked(2, writes=3)
        assert all_tables.taken() == Asked(3, writes=4, others=1)
