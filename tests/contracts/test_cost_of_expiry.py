"""What it costs to tell that a token has expired, counted from what is asked of the tables.

moto does not say what a request costs, so it is computed here as DynamoDB bills it. A read unit is for 4 KB, and half
of one is billed when the read need not be consistent. Each entry of an index that is written costs a write unit, and
two when it moves, because one is deleted and one is put.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from functions.revalidate.wiring import revalidate_services
from functions.revalidate.worker import make_handler
from ops import units
from tests.deployment import aws
from tests.functions.test_gateway import Demo, demo, gateway_over
from tests.functions.test_revalidation import Context
from tests.servers.management import ManagementServer
from tidegate.adapters.dynamodb.client import encode_item
from tidegate.adapters.dynamodb.subscriptions import EXPIRY_SHARDS, _item
from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal
from tidegate.domain.subscriptions import Connection, Subscription, SubscriptionKey, TerminationClaim
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.tables import SUBSCRIPTIONS, Index

__all__ = ["demo"]

#: Living subscriptions, of which no run may notice anything. moto is slow with more; the unit test has 10,000.
LIVING = 500
#: Rows of one `BatchWriteItem`.
_BATCH = 25


class Meter:
    """Counts what goes through a container's client: calls, and read units."""

    def __init__(self, container: ControlPlaneProviders) -> None:
        self.calls: Counter[str] = Counter()
        self.read_units = 0.0
        client = container.db._client
        call = client.call

        def counted(operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
            answer = call(operation, payload, **options)
            self.calls[" ".join(filter(None, (operation, payload.get("IndexName"))))] += 1
            self.read_units += _read_units(operation, payload, answer)
            return answer

        client.call = counted  # type: ignore[method-assign]  # nothing but counted


def _read_units(operation: str, request: Mapping[str, Any], answer: Mapping[str, Any]) -> float:
    match operation:
        case "GetItem":
            return _blocks(answer.get("Item", {}))
        case "BatchGetItem":
            return sum(_blocks(item) for items in answer["Responses"].values() for item in items)
        case "Query":
            # No filter is used, so what is read is what is answered.
            return max(1, _blocks(answer["Items"])) * (1 if request["ConsistentRead"] else 0.5)
        case "Scan":
            return pytest.fail("a scan reads what lives")
    return 0


def _blocks(what: object) -> int:
    """So many 4 KB. The JSON is larger than the item is, so this is no less than what is billed."""
    return max(1, math.ceil(len(json.dumps(what)) / 4096))


def _row(key: SubscriptionKey, expires_at: int, intent_hash: str, subject: str = PUBLIC_SUBJECT) -> Subscription:
    principal = Principal(subject, 0) if subject == PUBLIC_SUBJECT else Principal(subject, None, 1)
    claim = Claim(key.dashboard_id, key.datasource_id, principal, intent_hash, expires_at)
    return Subscription(key, "generation", claim, "stream", visible=True)


def test_a_run_costs_what_has_expired_and_not_what_lives(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo
) -> None:
    gateway, control = gateway_over(deployed, management), ControlPlaneProviders(deployed)
    services = revalidate_services(gateway.env)
    work, meter = make_handler(services), Meter(services.container)
    record = {"messageId": "m1", "body": json.dumps({"kind": "expired", "target": ""})}
    now = int(control.clock.now())
    dynamodb, table = aws(deployed["AWS_ENDPOINT_URL"], "dynamodb"), deployed[SUBSCRIPTIONS.variable]

    def run(expired: int) -> tuple[Counter[str], float]:
        for number in range(expired):
            gateway.open(f"c{number}=")
            gateway.say(f"c{number}=", demo.subscribe())
        for row in list(control.subscriptions.of_dashboard(demo.dashboard_id)):
            dynamodb.update_item(
                TableName=table,
                Key=encode_item({"dashboard_shard": _item(row)["dashboard_shard"], "row": _item(row)["row"]}),
                UpdateExpression="SET exp = :exp",
                ExpressionAttributeValues={":exp": {"N": str(now - 1)}},
            )
        meter.calls, meter.read_units = Counter(), 0.0
        assert work({"Records": [record]}, Context()) == {"batchItemFailures": []}
        assert list(control.subscriptions.of_dashboard(demo.dashboard_id)) == []
        return meter.calls, meter.read_units

    idle, few = run(0), run(3)
    for start in range(0, LIVING, _BATCH):
        keys = [SubscriptionKey("living", f"o{number}=", "t") for number in range(start, start + _BATCH)]
        puts = [{"PutRequest": {"Item": encode_item(_item(_row(key, now + 3000, "hash")))}} for key in keys]
        dynamodb.batch_write_item(RequestItems={table: puts})
    assert run(0) == idle == (Counter({"Query by_expiry": EXPIRY_SHARDS}), EXPIRY_SHARDS / 2)
    assert run(3) == few
    calls, read_units = few
    assert calls == Counter(
        {
            "Query by_expiry": EXPIRY_SHARDS,
            "BatchGetItem": 1,  # the rows
            "GetItem": 2 + 3,  # the dashboard's and its owner's access items, and each connection
            "UpdateItem": 3,  # claims
            "TransactWriteItems": 3 + 3,  # rows with their keys, and places in the dashboard's quota
        }
    )
    assert read_units == EXPIRY_SHARDS / 2 + 3 + 2 + 3


@pytest.mark.parametrize("subject", [PUBLIC_SUBJECT, "member"])
def test_what_the_index_adds_to_a_subscription(deployed: Mapping[str, str], subject: str) -> None:
    control = ControlPlaneProviders(deployed)
    dynamodb, table = aws(deployed["AWS_ENDPOINT_URL"], "dynamodb"), deployed[SUBSCRIPTIONS.variable]
    rows, member = control.subscriptions, int(subject != PUBLIC_SUBJECT)
    row = _row(SubscriptionKey("d", "c=", "t"), 1000, "hash", subject)
    claim = TerminationClaim("run", 2000)

    def written(write: Callable[[], object]) -> dict[str, int]:
        before = _stored(dynamodb, table, row)
        write()
        after = _stored(dynamodb, table, row)
        units = {index.name: _index_units(index, before, after) for index in SUBSCRIPTIONS.indexes}
        return {name: count for name, count in units.items() if count}

    principal = {"by_principal": 1} if member else {}
    assert (
        sum({"by_expiry": 1, "by_stream": 1}.values()) == units.SUBSCRIBE.each.indexes == units.DISCONNECT.each.indexes
    )
    assert sum({"by_stream": 1, "by_expiry": 2}.values()) == units.REFRESH.each.indexes
    control.connections.open(Connection("c=", "ip", 1000))
    assert written(lambda: rows.put_hidden(row)) == {"by_expiry": 1, **principal}
    assert written(lambda: rows.make_visible(row)) == {"by_stream": 1}
    assert written(lambda: rows.move_expiry(row, 1300)) == {"by_stream": 1, "by_expiry": 2}
    assert written(lambda: rows.move_expiry(row, 1300)) == {}
    assert written(lambda: rows.claim_termination(row, claim)) == {"by_stream": 1}
    assert written(lambda: rows.remove(replace(row, termination=claim))) == {"by_expiry": 1, **principal}
    rows.put_hidden(row)
    rows.make_visible(row)
    assert written(lambda: rows.remove(row)) == {"by_stream": 1, "by_expiry": 1, **principal}


def _stored(dynamodb: Any, table: str, row: Subscription) -> dict[str, Any]:
    key = {name: _item(row)[name] for name in ("dashboard_shard", "row")}
    found: dict[str, Any] = dynamodb.get_item(TableName=table, Key=encode_item(key), ConsistentRead=True).get(
        "Item", {}
    )
    return found


def _index_units(index: Index, before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """Write units of an index for one write of an item, by the rules of DynamoDB's pages on secondary indexes."""
    old, new = _entry(index, before), _entry(index, after)
    if old == new:
        return 0
    moved = old is not None and new is not None and old[0] != new[0]
    return 2 if moved else 1


def _entry(index: Index, item: Mapping[str, Any]) -> tuple[object, object] | None:
    """Key and projected rest of the item's entry; None when it has none."""
    assert index.sort is not None and not index.include
    if index.partition.name not in item or index.sort.name not in item:
        return None
    return (item[index.partition.name], item[index.sort.name]), dict(item) if index.projection == "ALL" else None
