"""What a history costs, counted from what is asked of the tables, as DynamoDB bills it.

A write unit is for 1 KB of an item, a condition that does not hold included. A read unit is for 4 KB, and half of one
is billed when the read need not be consistent. An item's size is that of its attributes' names and values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count, pairwise
from typing import Any

import pytest

from ops.units import DEVICE_HISTORY
from tests.containers.gateway import GatewayContainer
from tests.doubles.platform import ManualClock, MemoryObserver
from tidegate.adapters.dynamodb.history import DynamoHistory
from tidegate.domain.history import MOST_POINTS, MOST_VALUE_BYTES, History, point_of
from tidegate.domain.subscriptions import LastValue, Stream
from tidegate.ports.history import Group, Series
from tidegate.providers.stores import StoreProviders
from tidegate.usecases.delivery.keep_history import WRITE_S, KeepInBatches
from tidegate.usecases.gateway.stream_history import points_of

#: An id as IoT Core makes them.
UUID = "5bd64fc7-ad90-4c84-8e24-9f2a6fbb91d1"
START_MS = 1_800_000_000_000
SERIES = Series("k" * 64, "site/pump-7/temperature")


def size(item: Mapping[str, Mapping[str, str]]) -> int:
    """Bytes of an item of texts and numbers, no less than DynamoDB counts."""
    return sum(len(name) + len(value.encode()) for name, typed in item.items() for value in typed.values())


class Meter:
    """Counts what is asked of a deployed table: calls by operation, and units."""

    def __init__(self, stores: StoreProviders) -> None:
        self.calls: Counter[str] = Counter()
        self.write_units, self.read_units, self.largest = 0, 0.0, 0
        self.store = DynamoHistory(stores.db, stores.env["TIDEGATE_TABLE_HISTORY"])
        client = stores.db._client
        self._call = client.call
        client.call = self.counted  # type: ignore[method-assign]  # nothing but counted

    def counted(self, operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        self.calls[operation] += 1
        if operation == "BatchWriteItem":
            for requests in payload["RequestItems"].values():
                self._written(*(each["PutRequest"]["Item"] for each in requests))
        if operation == "UpdateItem":
            values = {name: value for name, value in payload["ExpressionAttributeValues"].items() if name != ":number"}
            both = {"least": {"N": "-1234.5678"}, "most": {"N": "-1234.5678"}}
            self._written({**payload["Key"], **values, **both})
        answer = self._call(operation, payload, **options)
        if operation == "Query":
            blocks = math.ceil(sum(map(size, answer["Items"])) / 4096)
            self.read_units += max(1, blocks) * (1 if payload["ConsistentRead"] else 0.5)
        return answer

    def _written(self, *items: Mapping[str, Mapping[str, str]]) -> None:
        for item in items:
            self.largest = max(self.largest, size(item))
            self.write_units += math.ceil(size(item) / 1024)


@pytest.fixture
def meter(deployed: Mapping[str, str]) -> Iterator[Meter]:
    yield Meter(StoreProviders(deployed))


def seq(at_ms: int) -> str:
    return f"{at_ms:015d}-{UUID}"


def add(meter: Meter, *payloads: str, every_ms: int = 5000, step_ms: int = 250) -> None:
    for at_ms, payload in zip(count(START_MS, step_ms), payloads, strict=False):
        meter.store.add(SERIES, point_of(payload, at_ms, seq(at_ms), every_ms), START_MS // 1000 + 600)


@pytest.mark.parametrize(
    "values",
    [range(20), range(20, 0, -1), [7] * 20, [5, 9, 1, *range(2, 9), 12, 3, -4]],
    ids=["rising", "falling", "the same", "up and down"],
)
def test_a_message_of_a_device_is_one_unit(meter: Meter, values: list[int]) -> None:
    """While one process handles the topic's messages."""
    add(meter, *map(str, values))
    each = DEVICE_HISTORY.times(len(values))
    assert meter.calls == {"UpdateItem": each.calls} and meter.write_units == each.writes


def test_the_largest_value_is_one_unit_too(meter: Meter) -> None:
    add(meter, '"' + "x" * (MOST_VALUE_BYTES - 2) + '"', '"' + "x" * 10_000 + '"')
    assert meter.write_units == 2 and meter.largest < 1024


def test_a_message_whose_process_knows_nothing_is_two_units_when_it_leaves_what_is_known(meter: Meter) -> None:
    add(meter, "5")
    meter.store._seen.clear()
    add(meter, "5", "6")
    assert meter.calls == {"UpdateItem": 1 + 1 + 1}, "a repetition costs one, and says what is there"
    meter.store._seen.clear()
    meter.store.add(SERIES, point_of("9", START_MS + 300, seq(START_MS + 300), 5000), START_MS // 1000 + 600)
    assert meter.calls == {"UpdateItem": 3 + 2}


def test_the_relay_pays_one_unit_for_some_seconds_of_a_series(meter: Meter) -> None:
    clock = ManualClock()
    keep = KeepInBatches(lambda: meter.store, clock, MemoryObserver())
    stream = Stream("k" * 64, "sse", "json", None, None, history=History(600, 1000, 10**10))
    for _ in range(int(WRITE_S * 10)):
        clock.advance(0.1)
        for topic in map(str, range(20)):
            keep(stream, LastValue("1234.5678", round(clock.now() * 1000), "m", topic))
    keep.write()
    assert meter.calls == {"BatchWriteItem": 1} and meter.write_units == 20
    keep.close()


def test_a_read_of_all_points_is_few_units(meter: Meter) -> None:
    """Of the relay, five points in an item. Of a device one, read from the sizes of few."""
    points = [point_of("1234.5678", START_MS + at * 1000, seq(START_MS + at * 1000), 1000) for at in range(MOST_POINTS)]
    groups = [Group(SERIES, points[at].start_ms, points[at : at + 5], 10**10) for at in range(0, MOST_POINTS, 5)]
    meter.store.write(groups)
    now = START_MS / 1000 + MOST_POINTS
    found, _ = points_of(meter.store, SERIES, History(MOST_POINTS, 1000), now)
    assert len(found) == MOST_POINTS and all(newer.seq > older.seq for newer, older in pairwise(found))
    relay_units, meter.read_units = meter.read_units, 0.0
    assert meter.calls["Query"] == 1 and relay_units <= 30
    other = Series("k" * 64, "other")
    for point in points[:100]:
        meter.store.add(other, point, START_MS // 1000 + 600)
    points_of(meter.store, other, History(MOST_POINTS, 1000), now)
    assert meter.read_units * MOST_POINTS / 100 <= 60


def test_who_asks_for_no_history_pays_nothing() -> None:
    container = GatewayContainer()
    container.add_datasource("s", "a/b")
    container.subscribed("c", "s")
    for _ in range(3):
        container.publish(b"1")
    assert container.history.calls == 0
