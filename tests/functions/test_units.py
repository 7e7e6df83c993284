"""What paths ask of DynamoDB, measured over real tables on moto: the figures that `make cost` multiplies."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from benchmarks.meter import Meter, metered
from functions.revalidate import wiring as revalidate_wiring
from infra.bridge import BATCH
from local_stack.seed import document, mqtt
from ops import units
from ops.cost_model import LOG_BYTES
from tests.deployment import aws
from tests.functions.test_bridge_costs import VIEWERS, batch_of, watched
from tests.functions.test_dashboard_session import OPEN, Board
from tests.functions.test_gateway import Demo, demo, gateway_over
from tests.functions.test_relay import Served, numbers, relay_env, relay_workers, served
from tests.functions.test_relay import watched as watched_upstream
from tests.servers.management import ManagementServer
from tests.settling import settle
from tidegate.domain.activity import AHEAD_S, SCHEDULE_S
from tidegate.domain.minutes import tasks_between
from tidegate.domain.relay import LEASE_S
from tidegate.domain.subscriptions import Connection
from tidegate.domain.time_limits import FUNCTION_S
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.providers.delivery import DeliveryProviders
from tidegate.tables import LAST_VALUES
from tidegate.usecases.delivery import audiences, fresh_access, topic_cap
from tidegate.usecases.delivery.keep_history import WRITE_S
from tidegate.usecases.limits.message_budget import CHUNK, MessageBudget
from tidegate.usecases.relay.worker import HANDOVER_S, REFRESH_S

__all__ = ["demo", "relay_env", "served"]


@pytest.fixture
def meter() -> Iterator[Meter]:
    with metered() as counting:
        yield counting


def no_indexes(found: units.Units) -> tuple[float, float, float]:
    """Indexes are measured in `test_cost_of_expiry.py`: no request shows them."""
    return found.calls, found.reads, found.writes


@pytest.mark.parametrize("datasources", [1, 10])
def test_what_a_viewer_costs(
    deployed: Mapping[str, str],
    management: ManagementServer,
    meter: Meter,
    monkeypatch: pytest.MonkeyPatch,
    datasources: int,
) -> None:
    """From the handshake to its end, with the dashboard's token. What a process remembers is not counted."""
    revalidate_wiring.schedule_services(deployed).queue_tasks(started=True)
    gateway, board, names = gateway_over(deployed, management), Board(deployed), OPEN[:datasources]
    gateway.open("w=")
    gateway.say("w=", board.subscribe(board.session()["token"], names))
    board.guest.ok("GET", f"/api/dashboards/{board.id}")
    monkeypatch.setattr(MessageBudget, "spend", lambda *_: None)  # counted by itself below
    found: dict[str, tuple[float, float, float]] = {}

    def took(step: str) -> None:
        found[step] = meter.taken().of_dynamodb

    meter.taken()
    board.guest.ok("GET", f"/api/dashboards/{board.id}")
    took("get")
    token = board.session()["token"]
    took("mint")
    gateway.open("c=")
    took("connect")
    gateway.say("c=", board.subscribe(token, names))
    took("subscribe")
    gateway.say("c=", board.subscribe(token, names))
    took("refresh")
    gateway.disconnect({"requestContext": {"connectionId": "c=", "eventType": "DISCONNECT"}}, None)
    took("disconnect")
    assert found == {
        "get": no_indexes(units.GET_DASHBOARD.of(datasources)),
        "mint": no_indexes(units.MINT_SESSION.of(datasources)),
        "connect": no_indexes(units.CONNECT.of(datasources)),
        "subscribe": no_indexes(units.SUBSCRIBE.of(datasources)),
        "refresh": no_indexes(units.REFRESH.of(datasources)),
        "disconnect": no_indexes(units.DISCONNECT.of(datasources)),
    }
    assert CHUNK == units.MESSAGES_A_WRITE


def test_the_first_of_a_process_reads_the_state_of_the_schedule_once(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo, meter: Meter
) -> None:
    """What the schedule's rest costs viewers."""
    revalidate_wiring.schedule_services(deployed).queue_tasks(started=True)
    wake = DeliveryProviders(deployed).wake_schedule
    meter.taken()
    for _ in range(3):
        wake()
    assert meter.taken().of_dynamodb == (1, 1, 0)


def test_a_run_of_the_schedule(deployed: Mapping[str, str], meter: Meter) -> None:
    services = revalidate_wiring.schedule_services(deployed)
    services.queue_tasks()
    meter.taken()
    assert services.queue_tasks() == (False, 0)
    assert meter.taken().of_dynamodb == no_indexes(units.IDLE_RUN)
    ControlPlaneProviders(deployed).connections.open(Connection("c=", "ip", 1))
    meter.taken()
    active, tasks = services.queue_tasks()
    assert active and meter.taken().of_dynamodb == no_indexes(units.ACTIVE_RUN)
    ahead = [task for _, task in tasks_between(SCHEDULE_S, SCHEDULE_S + AHEAD_S, 0, 30)]
    assert abs(tasks - len(ahead) - units.TASKS_A_MINUTE) <= 1, "the second that the run of nobody had"


def test_following_profiles_when_nothing_changed(deployed: Mapping[str, str], meter: Meter) -> None:
    services = revalidate_wiring.profile_services(deployed)
    meter.taken()
    assert services.follow(time.monotonic() + 60)
    assert meter.taken().of_dynamodb == no_indexes(units.FOLLOW)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read once a second is read once: it is counted by itself. What is done by chance is not done."""
    monkeypatch.setattr(audiences, "AUDIENCE_S", 3600.0)
    monkeypatch.setattr(fresh_access, "FRESH_S", 3600.0)
    monkeypatch.setattr(topic_cap, "_ONE_IN", 1e12)  # tested in `test_topics_of_a_stream.py`


def test_a_device_value(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo, meter: Meter, fresh: None
) -> None:
    """With several viewers as with one. The first value asks what is read once a second."""
    env = {**deployed, "REALTIME_MAX_UPDATES_PER_SECOND": "0"}
    gateway = watched(env, management, demo, 0)
    meter.taken()
    gateway.publish(b"1")
    first = meter.taken()
    once = units.DEVICE_VALUE.plus(units.ACCESS_A_SECOND)
    streams, audience = 1, 0.5  # streams are read when the version moved, which it did for a process that begins
    assert (first.reads, first.writes) == (once.reads + streams + audience, once.writes)
    for _ in range(5):
        assert gateway.publish(b"2") == len(VIEWERS)
    assert meter.taken().of_dynamodb == no_indexes(units.DEVICE_VALUE.times(5))


def test_a_device_value_asks_the_quota_once(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo, meter: Meter, fresh: None
) -> None:
    gateway = watched({**deployed, "REALTIME_MAX_UPDATES_PER_SECOND": "0"}, management, demo, 2_500)
    gateway.publish(b"1")
    meter.taken()
    gateway.publish(b"2")
    asked = units.DEVICE_VALUE.plus(units.QUOTA_ASK)
    assert meter.taken().writes in (units.DEVICE_VALUE.writes, asked.writes)


def test_a_device_value_that_comes_early_and_waits(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo, meter: Meter, fresh: None
) -> None:
    gateway = watched({**deployed, "REALTIME_MAX_UPDATES_PER_SECOND": "1"}, management, demo, 0)
    gateway.publish(b"1")
    meter.taken()
    gateway.publish(b"2")
    waited = units.DEVICE_VALUE.plus(units.DEVICE_EARLY).plus(units.DEVICE_WAITS)
    assert meter.taken().of_dynamodb == no_indexes(waited)


def test_a_batch_of_device_values(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo, meter: Meter, fresh: None
) -> None:
    """Two values of each of ten topics of one stream."""
    topics = [f"demo/t{number}" for number in range(10)]
    gateway = watched(deployed, management, demo, 0)
    gateway.bridge(batch_of(["demo/other"]), None)
    meter.taken()
    assert gateway.bridge(batch_of(topics), None) == {"batchItemFailures": []}
    assert meter.taken().of_dynamodb == no_indexes(units.BATCH.plus(units.BATCH_TOPIC.times(10)))


@pytest.mark.parametrize("history", [False, True])
def test_a_device_value_with_a_history(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo, meter: Meter, fresh: None, history: bool
) -> None:
    """Of a process that handles all values of the topic, while they are the same: it knows the bucket."""
    env = {**deployed, "REALTIME_MAX_UPDATES_PER_SECOND": "0", "REALTIME_MAX_SENDS_PER_SECOND": "0"}
    broker = {"name": "other", "transport": "iot-core", "allowPublicUse": True}
    profile = demo.api.ok("POST", "/api/broker-profiles", broker)["id"]
    gateway, source = gateway_over(env, management), mqtt("t", profile, "demo/h/x")
    if history:
        source["settings"]["history"] = {"seconds": 600, "everyMs": 60_000}
    made = demo.api.ok("POST", "/api/dashboards", document("H", [source]))
    asked = {"dashboardId": made["id"], "datasourceId": "t"}
    token = demo.api.ok("POST", "/api/datasource-sessions", asked)["token"]
    gateway.open("c1=")
    gateway.say("c1=", {"type": "subscribe", "requestId": "r1", **asked, "sessionToken": token})
    gateway.publish(b"1", "demo/h/x")
    meter.taken()
    for _ in range(4):
        assert gateway.publish(b"1", "demo/h/x") == 1
    each = units.DEVICE_VALUE.plus(units.DEVICE_HISTORY) if history else units.DEVICE_VALUE
    assert meter.taken().writes == pytest.approx(each.writes * 4, abs=2), "a bucket may begin meanwhile"


def test_a_catch_up_that_has_nothing_to_send(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo, meter: Meter
) -> None:
    gateway = gateway_over(deployed, management)
    gateway.open("c1=")
    gateway.say("c1=", demo.subscribe())
    (record,) = received(aws(deployed["AWS_ENDPOINT_URL"], "sqs"), deployed["CATCH_UP_QUEUE_URL"])
    meter.taken()
    assert gateway.catch_up({"Records": [{"messageId": "m", "body": record}]}, None) == {"batchItemFailures": []}
    assert meter.taken().of_dynamodb == no_indexes(units.CATCH_UP.of(1))


def received(queue: Any, url: str) -> list[str]:
    """What waits in a queue, whatever its delay."""
    queue.set_queue_attributes(QueueUrl=url, Attributes={"DelaySeconds": "0"})
    found: list[dict[str, Any]] = []
    while not found:
        found = queue.receive_message(QueueUrl=url, WaitTimeSeconds=5).get("Messages", [])
    return [each["Body"] for each in found]


def test_the_relay_writes_a_value_once(
    relay_env: Mapping[str, str], management: ManagementServer, demo: Demo, served: Served
) -> None:
    env = {**relay_env, "REALTIME_MAX_UPDATES_PER_SECOND": "0"}
    gateway = watched_upstream(env, management, demo, f"http://127.0.0.1:{served.port}/stream?rate=20")
    with metered(env[LAST_VALUES.variable]) as meter:
        with relay_workers(gateway.env):
            settle(lambda: len(numbers(gateway)) >= 20, 30)
        sent = len(numbers(gateway))
        assert sent <= meter.taken().writes / units.RELAY_VALUE.writes <= sent + 2, "the last ones may not be sent"


def test_times_are_those_of_the_code() -> None:
    assert units.RELAY_LEASE_S == LEASE_S / 3 and units.RELAY_VERSION_A_SECOND.reads == 1 / REFRESH_S
    assert (HANDOVER_S, FUNCTION_S["relay.worker"]) == (units.RELAY_HANDOVER_S, units.RELAY_FUNCTION_S)
    assert units.RELAY_HISTORY_S == WRITE_S and units.MESSAGES_A_BATCH == BATCH


def test_what_a_call_of_the_bridge_logs(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lambda adds its own lines, START, END and REPORT: some 350 bytes."""
    gateway = watched({**deployed, "REALTIME_MAX_UPDATES_PER_SECOND": "0"}, management, demo, 0)
    capfd.readouterr()
    for _ in range(10):
        gateway.publish(b"1")
    logged = len(capfd.readouterr().out.encode()) / 10
    assert LOG_BYTES * 0.8 <= logged + 350 <= LOG_BYTES * 1.2
