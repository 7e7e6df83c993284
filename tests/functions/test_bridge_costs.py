"""What a device's message costs in request units, with a send quota and without: the table of performance.md."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any

import pytest

from benchmarks.meter import metered
from tests.functions.test_gateway import Demo, Gateway, demo, gateway_over
from tests.servers.management import ManagementServer
from tidegate import tables
from tidegate.adapters.aws.json_client import JsonClient

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
    assert costs == {0: 1, 2_500: 2}, "and as many reads: how many depends on how long the sending takes"


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
