"""The release before and the one of now on the same tables and queues: what one writes, the other reads.

While a deployment runs, and after a way back, both are there. Each scene runs in both directions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.dynamodb.types import TypeSerializer

from local_stack.seed import document, mqtt
from tests.deployment import REGION, aws
from tests.functions.test_api import PASSWORD, Api
from tests.functions.test_gateway import Gateway
from tests.releases.running import ROOT, NoHistory, Running, previous_code
from tests.servers.management import ManagementServer
from tests.settling import settle
from tidegate.tables import REVOCATION_EVENTS, REVOCATIONS

ADMIN = "admin@x.example"
HISTORY = {"seconds": 600, "everyMs": 1000}
_MODULES = {
    "connect": "gateway_connect.connect",
    "disconnect": "gateway_connect.disconnect",
    "messages": "gateway_connect.messages",
    "bridge": "mqtt_bridge.bridge",
    "catch_up": "mqtt_bridge.catch_up",
    "crowd": "mqtt_bridge.crowd",
}


class Release:
    """What callers see of one release."""

    def __init__(self, running: Running, env: Mapping[str, str], platform: ManagementServer) -> None:
        self.running, self.env = running, env
        handlers = {name: running.handler(f"functions.{module}") for name, module in _MODULES.items()}
        self.gateway = Gateway(env, platform, services=None, **handlers)  # type: ignore[arg-type]
        self.guest = Api(running.handler("functions.api.main"), env)

    def login(self) -> Api:
        return self.guest.login(ADMIN)

    def work(self, module: str, *bodies: str) -> None:
        """Give messages of a queue to a function. Raises `AssertionError` when one fails."""
        records = [{"messageId": f"m{number}", "body": body} for number, body in enumerate(bodies)]
        assert self.running.handler(f"functions.{module}")({"Records": records}, None) == {"batchItemFailures": []}

    def queued(self, variable: str) -> list[str]:
        """The messages of a queue, taken out of it. Waits for the first one."""
        queue, url = aws(self.env["AWS_ENDPOINT_URL"], "sqs"), self.env[variable]
        queue.set_queue_attributes(QueueUrl=url, Attributes={"DelaySeconds": "0"})
        found: list[str] = []

        def receive() -> bool:
            more = queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
            for each in more:
                queue.delete_message(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"])
            found.extend(each["Body"] for each in more)
            return bool(found) and not more

        settle(receive, 60)
        return found


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return previous_code(tmp_path_factory.mktemp("previous"))


@pytest.fixture(params=["the one before writes", "the one of now writes"])
def releases(
    request: pytest.FixtureRequest, deployed: Mapping[str, str], management: ManagementServer, code: Path
) -> Iterator[tuple[Release, Release]]:
    """Who writes, and who reads."""
    management.answer = lambda _method, target, _nth: 202 if target == "invocations" else 200
    platform = management.url.removesuffix("/live")
    env = {**deployed, "AWS_ENDPOINT_URL_EXECUTE_API": platform, "AWS_ENDPOINT_URL_LAMBDA": platform}
    running = [Running(code, env), Running(ROOT, env)]
    before, now = (Release(each, env, management) for each in running)
    yield (before, now) if request.param == "the one before writes" else (now, before)
    for each in running:
        each.close()


def board(writer: Release) -> tuple[Api, str]:
    """A public dashboard with a datasource that is kept. Returns its owner and its id."""
    writer.running.ask(admin=ADMIN, password=PASSWORD)
    api = writer.login()
    body = {"name": "core", "transport": "iot-core", "allowPublicUse": True}
    source = mqtt("t", api.ok("POST", "/api/broker-profiles", body)["id"], "demo/x")
    source["settings"]["history"] = HISTORY
    made = api.ok("POST", "/api/dashboards", document("T", [source]))
    api.ok("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": "public"})
    return api, made["id"]


def token(release: Release, dashboard_id: str) -> str:
    return str(release.guest.ok("POST", f"/api/dashboards/{dashboard_id}/session", {})["token"])


def subscribe(release: Release, connection_id: str, dashboard_id: str, session_token: str) -> None:
    asked = {"type": "subscribe", "requestId": "r", "dashboardId": dashboard_id, "sessionToken": session_token}
    release.gateway.say(connection_id, {**asked, "datasourceIds": ["t"]})
    (ack,) = [frame for frame in release.gateway.frames(connection_id) if frame["type"] == "ack"]
    assert ack.get("ok") or all(each["ok"] for each in ack["results"]), ack


def test_people_dashboards_and_profiles(releases: tuple[Release, Release]) -> None:
    writer, reader = releases
    wrote, dashboard_id = board(writer)
    read = Api(reader.guest.handler, reader.env, wrote.token)
    path = f"/api/dashboards/{dashboard_id}"
    assert reader.login().ok("GET", path)["id"] == dashboard_id
    shown = read.ok("GET", path)
    assert (shown["document"]["title"], shown["visibility"]) == ("T", "public")
    assert dashboard_id in json.dumps(read.ok("GET", "/api/dashboards"))
    changed = shown["document"] | {"title": "U"}
    read.ok("PUT", path, {"document": changed}, if_match=str(shown["revision"]))
    assert wrote.ok("GET", path)["document"]["title"] == "U"
    secret = {"name": "n", "type": "bearer", "secret": {"token": "a-secret"}, "destinations": ["https://a.example:443"]}
    profile = wrote.ok("POST", "/api/credential-profiles", secret)["id"]
    assert profile in json.dumps(read.ok("GET", "/api/credential-profiles"))
    read.ok("PUT", f"/api/credential-profiles/{profile}", secret | {"name": "m"}, if_match="1")
    wrote.ok("POST", "/api/users", {"email": "e@x.example", "role": "editor", "password": PASSWORD})
    assert dashboard_id not in json.dumps(reader.guest.login("e@x.example").ok("GET", "/api/dashboards"))


def test_a_value_goes_from_a_device_to_a_viewer(releases: tuple[Release, Release]) -> None:
    """Token, connection, subscription, stream, last value, history, catch-up: each read by the other release."""
    writer, reader = releases
    _, dashboard_id = board(writer)
    assert writer.gateway.open("c1=") == 200
    subscribe(reader, "c1=", dashboard_id, token(writer, dashboard_id))
    assert writer.gateway.publish(b"1") == 1 and reader.gateway.publish(b"2") == 1
    assert reader.gateway.open("c2=") == 200
    subscribe(writer, "c2=", dashboard_id, token(reader, dashboard_id))
    # Who listens is remembered for a moment.
    settle(lambda: reader.gateway.publish(b"3") == 2, 30)
    got = [frame["payload"] for frame in reader.gateway.frames("c1=") if frame["type"] == "data"]
    assert [value for number, value in enumerate(got) if value not in got[:number]] == [1, 2, 3]
    caught_up = writer.queued("CATCH_UP_QUEUE_URL")
    reader.work("mqtt_bridge.catch_up", *caught_up)
    for release in releases:
        session = Api(release.guest.handler, release.env, token(writer, dashboard_id))
        points = session.ok("GET", f"/api/dashboards/{dashboard_id}/history?datasourceId=t")["points"]
        assert max(point["most"] for point in points) == 3
    # A viewer of one release leaves by the other.
    reader.gateway.say(
        "c1=", {"type": "unsubscribe", "requestId": "u", "dashboardId": dashboard_id, "datasourceId": "t"}
    )
    settle(lambda: writer.gateway.publish(b"4") == 1, 30)


def test_a_crowd_is_sent_to_by_the_other(releases: tuple[Release, Release]) -> None:
    writer, reader = releases
    _, dashboard_id = board(writer)
    viewers = [f"c{number}=" for number in range(6)]
    for viewer in viewers:
        assert writer.gateway.open(viewer) == 200
        subscribe(writer, viewer, dashboard_id, token(writer, dashboard_id))
    assert writer.gateway.publish(b"7") == 0, "it is left to the queue"
    for part in writer.queued("CROWD_QUEUE_URL"):
        reader.work("mqtt_bridge.crowd", part)
    for viewer in viewers:
        assert 7 in [frame.get("payload") for frame in reader.gateway.frames(viewer)], viewer


def test_whoever_loses_the_right_is_ended_by_the_other(releases: tuple[Release, Release]) -> None:
    """The event of a revocation, the stream that pushes it, its task, and the end of the subscription."""
    writer, reader = releases
    owner, dashboard_id = board(writer)
    assert reader.gateway.open("c1=") == 200
    subscribe(reader, "c1=", dashboard_id, token(writer, dashboard_id))
    owner.ok("POST", f"/api/dashboards/{dashboard_id}/share-token:rotate")
    feed = items(writer.env, REVOCATIONS.variable)
    pushed = [record(item) for item in feed if item[REVOCATIONS.partition.name] == REVOCATION_EVENTS]
    assert pushed, "no event was written"
    stream = reader.running.handler("functions.revalidate.dispatch")
    assert stream({"Records": pushed}, None) == {"batchItemFailures": []}
    for task in reader.queued("REVALIDATION_QUEUE_URL"):
        writer.work("revalidate.worker", task)
    assert "error" in [frame["type"] for frame in reader.gateway.frames("c1=")]
    assert reader.gateway.publish(b"9") == 0
    # The poll of the other finds the same, and has nothing left to do.
    reader.work("revalidate.worker", json.dumps({"kind": "poll", "target": ""}))
    for task in reader.queued("REVALIDATION_QUEUE_URL"):
        reader.work("revalidate.worker", task)


def test_a_partition_of_the_relay_is_handed_over(releases: tuple[Release, Release]) -> None:
    writer, reader = (each.running for each in releases)
    assert writer.ask(lease=["claim", 1, "version.one"])
    lease = reader.ask(lease=["current", 1])
    assert (lease["owner"], lease["fence"]) == ("version.one", 1)
    assert not reader.ask(lease=["claim", 1, "other.two"]), "it is held"
    assert reader.ask(lease=["offer", 1, "other.two"])
    assert writer.ask(lease=["current", 1])["successor"] == "other.two"
    assert writer.ask(lease=["hand over", 1])
    lease = reader.ask(lease=["current", 1])
    assert (lease["owner"], lease["fence"]) == ("other.two", 2) and reader.ask(lease=["renew", 1])


def items(env: Mapping[str, str], variable: str) -> list[dict[str, Any]]:
    table = boto3.resource(
        "dynamodb",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        region_name=REGION,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    ).Table(env[variable])
    return list(table.scan()["Items"])


def record(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item as the stream of its table brings it."""
    image = {name: TypeSerializer().serialize(value) for name, value in item.items()}
    return {"eventID": "1", "eventName": "INSERT", "dynamodb": {"NewImage": image, "SequenceNumber": "1"}}


def test_a_clone_without_the_history_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(NoHistory, match="git fetch"):
        previous_code(tmp_path, repository=tmp_path)
