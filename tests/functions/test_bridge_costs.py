"""What a device's message costs in request units, with a send quota and without: the table of performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import monotonic, time
from typing import Any

import pytest

from benchmarks.meter import metered
from ops import units
from tests.deployment import aws
from tests.functions.test_gateway import Demo, Gateway, demo, gateway_over, queued
from tests.servers.management import ManagementServer
from tidegate import tables
from tidegate.adapters.aws.json_client import JsonClient
from tidegate.usecases.delivery.together import LATE_S

__all__ = ["demo"]

VIEWERS = ("c1=", "c2=", "c3=")


def watched(env: Mapping[str, str], platform: ManagementServer, demo: Demo, per_second: int) -> Gateway:
    """A bridge that has just started, and three viewers."""
    gateway = gateway_over({**env, "REALTIME_MAX_SENDS_PER_SECOND": str(per_second)}, platform)
    for viewer in VIEWERS:
        gateway.open(viewer)
        gateway.say(viewer, demo.subscribe())
    return gateway


def test_with_a_quota_a_message_costs_one_write_more(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo
) -> None:
    costs = {}
    for per_second in (0, 2_500):
        gateway = watched(deployed, management, demo, per_second)
        with metered() as meter:
            assert gateway.publish(b'{"value": 1}') == 3
            costs[per_second] = meter.taken().writes
    alone, asked = units.DEVICE_VALUE.writes, units.DEVICE_VALUE.plus(units.QUOTA_ASK).writes
    assert costs == {0: alone, 2_500: asked}, "and as many reads: how many depends on how long the sending takes"


def test_a_message_that_nobody_watches_asks_nothing(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo
) -> None:
    gateway = watched(deployed, management, demo, 2_500)
    for viewer in VIEWERS:
        gateway.say(viewer, {"type": "unsubscribe", "requestId": "r", "datasourceId": "t"})
    with metered() as meter:
        assert gateway.publish(b'{"value": 1}') == 0
        assert meter.taken().writes == 1, "the last value"


def test_a_message_that_the_quota_is_short_for_writes_its_value_five_times_a_second(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A send in each window of a tenth of a second."""
    gateway = watched(deployed, management, demo, 10)
    written: list[str] = []
    call = JsonClient.call

    def seen(client: JsonClient, operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        if operation == "UpdateItem":
            written.append(payload["TableName"])
        return call(client, operation, payload, **options)

    monkeypatch.setattr(JsonClient, "call", seen)
    began = monotonic()
    assert gateway.publish(b'{"value": 1}') == 3
    took_s = monotonic() - began
    values = written.count(deployed[tables.LAST_VALUES.variable])
    assert 3 <= values <= 1 + 2 + took_s * 5, "stored, begun, renewed, and ended"
    assert written.count(deployed[tables.LIMITERS.variable]) <= 3 + 2 * 10 * took_s
    for viewer in VIEWERS:
        assert [frame["payload"] for frame in gateway.frames(viewer) if frame["type"] == "data"] == [{"value": 1}]


def batch_of(topics: Iterable[str], *, age_s: float = 0.0) -> dict[str, Any]:
    """Two values of each topic, as the queue brings them."""
    now = int((time() - age_s) * 1000)
    values = [(number, topic) for number in range(2) for topic in topics]
    records = [queued(f"{number}{topic}", b"1", topic, now + number) for number, topic in values]
    return {"Records": records}


def test_a_batch_costs_a_write_a_topic_and_a_message_a_viewer(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo
) -> None:
    """Twenty messages of ten topics, three viewers with batch frames."""
    topics, costs = [f"demo/t{number}" for number in range(10)], {}
    for per_second in (0, 2_500):
        gateway = gateway_over({**deployed, "REALTIME_MAX_SENDS_PER_SECOND": str(per_second)}, management)
        for viewer in VIEWERS:
            gateway.open(viewer, queryStringParameters={"batch": "1"})
            gateway.say(viewer, demo.subscribe())
        management.received.clear()
        with metered() as meter:
            assert gateway.bridge(batch_of(topics), None) == {"batchItemFailures": []}
            costs[per_second] = meter.taken()
        assert all(len(management.received[viewer]) == 1 for viewer in VIEWERS), "ten values in one message"
    batch = units.BATCH.plus(units.BATCH_TOPIC.times(10))
    writes = {0: batch.writes, 2_500: batch.plus(units.QUOTA_ASK).writes}
    assert {per_second: cost.writes for per_second, cost in costs.items()} == writes
    for cost in costs.values():
        # For each topic the look after the send; version, streams, audience and access once.
        assert 10 <= cost.reads <= 17, cost


def test_a_batch_that_is_late_costs_two_writes_a_topic_and_one_message_of_the_queue(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo
) -> None:
    gateway = watched(deployed, management, demo, 2_500)
    queue, url = aws(deployed["AWS_ENDPOINT_URL"], "sqs"), deployed["CROWD_QUEUE_URL"]
    topics = [f"demo/t{number}" for number in range(10)]
    for asked in (1, 0):
        with metered() as meter:
            assert gateway.bridge(batch_of(topics, age_s=LATE_S + 1 + asked), None) == {"batchItemFailures": []}
            # Stored, and noted; another write for a note that finds the sender.
            assert meter.taken().writes == (20 if asked else 20 + 10)
    delayed = "ApproximateNumberOfMessagesDelayed"
    attributes = queue.get_queue_attributes(QueueUrl=url, AttributeNames=[delayed])["Attributes"]
    assert attributes[delayed] == "1", "a second from now, for all topics and both batches"
    received: list[dict[str, Any]] = []
    while not received:
        received = queue.receive_message(QueueUrl=url, WaitTimeSeconds=5).get("Messages", [])
    record = {"messageId": "m", "body": received[0]["Body"]}
    assert gateway.crowd({"Records": [record]}, None) == {"batchItemFailures": []}
    for viewer in VIEWERS:
        assert len([frame for frame in gateway.frames(viewer) if frame["type"] == "data"]) == 10
