"""Gateway and bridge as Lambda runs them: recorded events, real tables on moto, a stand-in for the management API."""

from __future__ import annotations

import base64
import io
import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from functions.api.main import make_handler as api_handler
from functions.api.wiring import api_services
from functions.gateway_connect import connect, disconnect, messages
from functions.gateway_connect import wiring as gateway_wiring
from functions.gateway_connect.events import WrongEvent
from functions.mqtt_bridge import bridge, catch_up, crowd
from functions.mqtt_bridge import wiring as bridge_wiring
from local_stack.seed import document, mqtt
from ops.admin import first_admin
from tests.deployment import aws
from tests.functions.events import event, message, request
from tests.functions.test_api import PASSWORD, Api
from tests.servers.management import ManagementServer
from tidegate.adapters.dynamodb.client import DynamoDb
from tidegate.domain import crowds
from tidegate.domain.limits import gateway_key
from tidegate.errors import Unavailable
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.providers.process import Handler
from tidegate.usecases.limits.message_budget import CHUNK


@dataclass
class Gateway:
    """All handlers over one deployment."""

    env: Mapping[str, str]
    platform: ManagementServer
    services: gateway_wiring.ConnectServices
    connect: Handler
    disconnect: Handler
    messages: Handler
    bridge: Handler
    catch_up: Handler
    crowd: Handler

    def open(self, connection_id: str, **changes: Any) -> int:
        made = event("websocket_connect")
        made["requestContext"] |= {"connectionId": connection_id}
        made |= changes
        return int(self.connect(made, None)["statusCode"])

    def say(self, connection_id: str, body: object) -> None:
        assert self.messages(message(connection_id, body), None) == {"statusCode": 200}

    def frames(self, connection_id: str) -> list[dict[str, Any]]:
        """What the viewer was sent; batches taken apart."""
        sent = [json.loads(body) for body in self.platform.received.get(connection_id, [])]
        return [frame for body in sent for frame in body.get("messages", [body])]

    def publish(self, payload: bytes, topic: str = "demo/x") -> int:
        made = event("iot_rule") | {
            "data": base64.b64encode(payload).decode(),
            "topic": topic,
            "timestamp": int(time.time() * 1000),
        }
        return int(self.bridge(made, None)["received"])


def gateway_over(env: Mapping[str, str], platform: ManagementServer) -> Gateway:
    # Where the emulator would serve the management API: below its own address.
    environment = {**env, "AWS_ENDPOINT_URL_EXECUTE_API": platform.url.removesuffix("/live")}
    connecting = gateway_wiring.connect_services(environment)
    return Gateway(
        environment,
        platform,
        connecting,
        connect.make_handler(connecting),
        disconnect.make_handler(gateway_wiring.disconnect_services(environment)),
        messages.make_handler(gateway_wiring.message_services(environment)),
        bridge.make_handler(bridge_wiring.bridge_services(environment)),
        catch_up.make_handler(bridge_wiring.catch_up_services(environment)),
        crowd.make_handler(bridge_wiring.crowd_services(environment)),
    )


@pytest.fixture
def gateway(deployed: Mapping[str, str], management: ManagementServer) -> Iterator[Gateway]:
    yield gateway_over(deployed, management)


@dataclass
class Demo:
    api: Api
    dashboard_id: str

    def token(self) -> str:
        body = {"dashboardId": self.dashboard_id, "datasourceId": "t"}
        return str(Api(self.api.handler, self.api.env).ok("POST", "/api/datasource-sessions", body)["token"])

    def subscribe(self) -> dict[str, str]:
        return {
            "type": "subscribe",
            "requestId": "r1",
            "dashboardId": self.dashboard_id,
            "datasourceId": "t",
            "sessionToken": self.token(),
        }


@pytest.fixture
def demo(deployed: Mapping[str, str]) -> Demo:
    first_admin(deployed, "admin@x.example", PASSWORD)
    api = Api(api_handler(api_services(deployed)), deployed).login("admin@x.example")
    broker = {"name": "core", "transport": "iot-core", "allowPublicUse": True}
    broker_id = api.ok("POST", "/api/broker-profiles", broker)["id"]
    made = api.ok("POST", "/api/dashboards", document("T", [mqtt("t", broker_id, "demo/+")]))
    api.ok("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": "public"})
    return Demo(api, made["id"])


def test_a_message_goes_all_the_way(gateway: Gateway, demo: Demo) -> None:
    assert gateway.open("c1=") == 200
    gateway.say("c1=", demo.subscribe())
    assert [frame["type"] for frame in gateway.frames("c1=")] == ["ack", "status"]
    assert gateway.publish(b'{"t": 21.50}') == 1
    frame = gateway.frames("c1=")[-1]
    assert (frame["type"], frame["datasourceId"], frame["payload"]) == ("data", "t", {"t": 21.5})
    assert b'"payload":{"t": 21.50}' in gateway.platform.received["c1="][-1], "not rewritten"
    assert gateway.open("c2=") == 200
    gateway.say("c2=", demo.subscribe())
    assert gateway.frames("c2=")[-1]["retained"] is True
    left = event("websocket_disconnect")
    left["requestContext"] |= {"connectionId": "c1="}
    assert gateway.disconnect(left, None) == gateway.disconnect(left, None) == {"statusCode": 200}
    assert gateway.publish(b"2") == 1, "the audience may be a second old; the viewer is sent a frame it no longer takes"


def queued(message_id: str, payload: bytes, topic: str, timestamp: int) -> dict[str, Any]:
    """A record as the queue brings what a rule selected."""
    selected = event("iot_rule") | {
        "data": base64.b64encode(payload).decode(),
        "topic": topic,
        "timestamp": timestamp,
        "id": message_id,
    }
    return {"messageId": message_id, "body": json.dumps(selected)}


@pytest.mark.parametrize(("per_second", "shown"), [("10", [5, "b", 7]), ("0", [1, 2, 5, "b", 7])])
def test_of_a_batch_the_newest_of_each_topic_is_delivered(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo, per_second: str, shown: list[object]
) -> None:
    gateway = gateway_over({**deployed, "REALTIME_MAX_UPDATES_PER_SECOND": per_second}, management)
    gateway.open("c1=")
    gateway.say("c1=", demo.subscribe())
    now = int(time.time() * 1000)
    records = [
        queued("m3", b"5", "demo/x", now + 3),
        queued("m1", b"1", "demo/x", now + 1),
        {"messageId": "broken", "body": "[]"},
        queued("m2", b"2", "demo/x", now + 2),
        queued("m4", b'"b"', "demo/y", now + 4),
        queued("m5", b"7", "demo/z", now + 5),
        {"messageId": "none", "body": "{"},
    ]
    failed = gateway.bridge({"Records": records}, None)["batchItemFailures"]
    assert [each["itemIdentifier"] for each in failed] == ["broken", "none"]
    assert [frame["payload"] for frame in gateway.frames("c1=") if frame["type"] == "data"] == shown


def test_what_fails_of_a_batch_comes_again(gateway: Gateway, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.open("c1=")
    gateway.say("c1=", demo.subscribe())
    now, update = int(time.time() * 1000), DynamoDb.update

    def unavailable_once(db: DynamoDb, table: str, key: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        if key.get("topic") == "demo/y":
            raise Unavailable("the store did not answer")
        return update(db, table, key, *args, **options)

    records = [queued(name, b"1", f"demo/{name}", now) for name in ("x", "y", "z")]
    with monkeypatch.context() as patched:
        patched.setattr(DynamoDb, "update", unavailable_once)
        assert gateway.bridge({"Records": records}, None) == {"batchItemFailures": [{"itemIdentifier": "y"}]}
    assert gateway.bridge({"Records": records[1:2]}, None) == {"batchItemFailures": []}
    assert [frame["topic"] for frame in gateway.frames("c1=") if frame["type"] == "data"] == [
        "demo/x",
        "demo/z",
        "demo/y",
    ]


def test_a_crowd_is_sent_to_through_its_queue(gateway: Gateway, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowds, "CROWD", 8)
    viewers = [f"c{number}=" for number in range(14)]
    for viewer in viewers:
        gateway.open(viewer)
        gateway.say(viewer, demo.subscribe())
    assert gateway.publish(b"1") == 0
    queue = aws(demo.api.env["AWS_ENDPOINT_URL"], "sqs")
    records: list[dict[str, Any]] = [{"messageId": "broken", "body": "{}"}]
    while len(records) <= crowds.AUDIENCE_SHARDS:
        received = queue.receive_message(QueueUrl=demo.api.env["CROWD_QUEUE_URL"], MaxNumberOfMessages=10)
        records += [{"messageId": each["MessageId"], "body": each["Body"]} for each in received.get("Messages", [])]
    answer = gateway.crowd({"Records": records}, None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "broken"}]}
    got = [[frame["payload"] for frame in gateway.frames(viewer) if frame["type"] == "data"] for viewer in viewers]
    assert got == [[1]] * len(viewers)


def test_the_catch_up_brings_what_was_missed(gateway: Gateway, demo: Demo) -> None:
    gateway.open("c1=")
    gateway.say("c1=", demo.subscribe())
    queue = aws(demo.api.env["AWS_ENDPOINT_URL"], "sqs")
    attributes = queue.get_queue_attributes(
        QueueUrl=demo.api.env["CATCH_UP_QUEUE_URL"], AttributeNames=["ApproximateNumberOfMessagesDelayed"]
    )["Attributes"]
    assert attributes["ApproximateNumberOfMessagesDelayed"] == "1"
    queue.set_queue_attributes(QueueUrl=demo.api.env["CATCH_UP_QUEUE_URL"], Attributes={"DelaySeconds": "0"})
    received: list[dict[str, Any]] = []
    while not received:
        received = queue.receive_message(QueueUrl=demo.api.env["CATCH_UP_QUEUE_URL"], WaitTimeSeconds=5).get(
            "Messages", []
        )
    gateway.platform.answer = lambda method, connection_id, nth: 429
    gateway.publish(b'"newest"')
    gateway.platform.answer = lambda method, connection_id, nth: 200
    records = event("sqs_catch_up")
    records["Records"][0]["body"] = received[0]["Body"]
    broken = dict(records["Records"][0], messageId="broken", body="{}")
    answer = gateway.catch_up({"Records": [*records["Records"], broken]}, None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "broken"}]}
    assert gateway.frames("c1=")[-1]["payload"] == "newest"


def test_gone_viewers_are_released(gateway: Gateway, demo: Demo) -> None:
    for connection_id in ("gone", "here"):
        gateway.open(connection_id)
        gateway.say(connection_id, demo.subscribe())
    gateway.platform.answer = lambda method, connection_id, nth: 410 if connection_id == "gone" else 200
    assert gateway.publish(b"1") == 1
    assert ("DELETE", "gone") in gateway.platform.requests
    time.sleep(1.0)  # the audience is cached for exactly that long
    before = len(gateway.platform.requests)
    assert gateway.publish(b"2") == 1
    assert len(gateway.platform.requests) == before + 1, "nothing is posted to who is gone"


def test_messages_are_answered_whatever_they_are(gateway: Gateway) -> None:
    gateway.open("c=")
    for body in ("", "{", "null", '{"type":"PING","requestId":"x"}', "x" * 200_000):
        gateway.say("c=", body)
    kinds = [frame.get("errorCode", frame["type"]) for frame in gateway.frames("c=")]
    assert kinds == ["STREAM_PROTOCOL_ERROR"] * 3 + ["pong", "STREAM_MESSAGE_TOO_LARGE"]


def test_exact_statuses_of_the_handshake(deployed: Mapping[str, str], management: ManagementServer) -> None:
    def status(connection_id: str = "c=", **env: str) -> int:
        return gateway_over({**deployed, **env}, management).open(connection_id)

    assert status(REALTIME_ENABLED="false") == 404
    assert status(API_ALLOWED_ORIGINS="https://other.example") == 403
    assert status(API_ALLOWED_ORIGINS="https://dash.example.com") == 200
    assert status("d=", REALTIME_MAX_CLIENT_CONNECTIONS_PER_IP="1") == 429
    assert status("e=", REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN="1") == 429
    down = {"AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:9", "GATEWAY_LIMITER_TIMEOUT_MS": "500"}
    assert status("f=", **down) == 503
    assert status("g=", **down, REALTIME_LIMITER_FAILURE_MODE="fail-open") == 503, "the connection cannot be stored"


def test_nobody_goes_around_the_edge(deployed: Mapping[str, str], management: ManagementServer) -> None:
    env = {**deployed, "ORIGIN_SECRET_ARN": deployed["GATEWAY_SERVICE_TOKEN_ARN"]}
    gateway = gateway_over(env, management)
    assert gateway.open("c=") == 403
    secret = ControlPlaneProviders(env).origin
    assert secret is not None
    headers = {**event("websocket_connect")["headers"], "X-Tidegate-Origin": secret.current()}
    assert gateway.open("c=", headers=headers, multiValueHeaders={}) == 200
    handler = api_handler(api_services(env))
    assert handler(request("GET", "/api/users/me"), None)["statusCode"] == 403
    given = {"x-tidegate-origin": secret.current()}
    assert handler(request("GET", "/api/users/me", None, **given), None)["statusCode"] == 401


def test_an_origin_secret_that_cannot_be_read_is_no_refusal(
    deployed: Mapping[str, str], management: ManagementServer
) -> None:
    assert gateway_over({**deployed, "ORIGIN_SECRET_ARN": "gone"}, management).open("c=") == 503


@pytest.mark.parametrize("failure_mode", ["fail-closed", "fail-open"])
def test_every_message_is_answered_when_the_salt_cannot_be_read(
    deployed: Mapping[str, str], management: ManagementServer, failure_mode: str
) -> None:
    gateway_over(deployed, management).open("c=")
    env = {**deployed, "LIMITER_HASH_SALT_ARN": "gone", "REALTIME_LIMITER_FAILURE_MODE": failure_mode}
    gateway = gateway_over(env, management)
    for number in range(CHUNK):
        gateway.say("c=", {"type": "ping", "requestId": str(number)})
    *pongs, last = gateway.frames("c=")
    assert len(pongs) == CHUNK - 1
    assert last.get("errorCode", last["type"]) == ("pong" if failure_mode == "fail-open" else "STREAM_RATE_LIMITED")
    assert failure_mode == "fail-open" or last["retryable"] is True


@pytest.mark.parametrize("hops", ["0", "1", "2"])
def test_the_address_is_the_one_the_hops_say(
    deployed: Mapping[str, str], management: ManagementServer, hops: str
) -> None:
    env = {**deployed, "REALTIME_TRUST_PROXY_HOPS": hops, "API_TRUST_PROXY_HOPS": hops}
    gateway = gateway_over(env, management)
    gateway.open("c=")
    stored = ControlPlaneProviders(env).connections.get("c=")
    address = {"0": "198.51.100.7", "1": "130.176.1.1", "2": "203.0.113.9"}[hops]
    assert stored is not None and stored.ip == ControlPlaneProviders(env).keys.key("ip", gateway_key(address))
    assert stored.batch and address not in stored.ip


def test_each_handler_wants_its_own_events(gateway: Gateway) -> None:
    for handler in (gateway.messages, gateway.disconnect):
        with pytest.raises(WrongEvent):
            handler(event("websocket_connect"), None)
    assert gateway.connect(event("websocket_message"), None) == {"statusCode": 503}
    for broken in ({}, event("iot_rule") | {"data": "!"}, event("iot_rule") | {"timestamp": "x"}):
        with pytest.raises(bridge.WrongEvent):
            gateway.bridge(broken, None)


def test_logs_hold_neither_tokens_nor_addresses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, gateway: Gateway, demo: Demo
) -> None:
    token = demo.token()
    # The logger keeps the stream it was made with, so it is given one to look at.
    logged = io.StringIO()
    for handler in logging.getLogger("tidegate").handlers:
        monkeypatch.setattr(handler, "stream", logged, raising=False)
    gateway.open("c=")
    gateway.say("c=", demo.subscribe() | {"sessionToken": token})
    gateway.say("c=", demo.subscribe() | {"sessionToken": "forged-token-value"})
    gateway.publish(b'"payload-value"')
    written = logged.getvalue() + "".join(capsys.readouterr())
    assert '"message":"refused"' in written and '"deliveries"' in written
    for secret in (token, "forged-token-value", "203.0.113.9", "payload-value", PASSWORD):
        assert secret not in written
