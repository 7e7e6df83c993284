"""Previews through the API, over real tables on moto, of the fake upstreams: nothing stays connected."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import pytest

from fixtures.fake_upstreams.server import FakeUpstreams, Options
from functions.api import wiring
from functions.api.main import make_handler
from functions.mqtt_bridge.bridge import make_handler as bridge_handler
from functions.mqtt_bridge.wiring import bridge_services
from local_stack.seed import document
from ops.admin import first_admin
from tests.deployment import aws
from tests.fake_upstreams.tools import CREDENTIALS, WAIT_S, RunningUpstreams
from tests.functions.events import event
from tests.functions.test_api import PASSWORD, Api, code, person
from tidegate.tables import STREAMS
from tidegate.usecases.control_plane.preview import MOST_MESSAGES, PreviewPolicy

T = TypeVar("T")

#: A source answers on loopback within this time, seconds; a silent one is waited for as long.
LONGEST_S = 2.0


class Desk:
    """An owner at a dashboard, before fake upstreams."""

    def __init__(self, env: Mapping[str, str], running: RunningUpstreams, loop: asyncio.AbstractEventLoop) -> None:
        urls = (running.at.sse_url, running.at.mqtt_url)
        ports = {"EGRESS_ALLOWED_PORTS": ",".join(str(urlsplit(url).port) for url in urls)}
        topics = {"REALTIME_MQTT_ALLOWED_TOPICS": "demo/#,site/#,nobody/#"}
        self.env = {**env, **ports, **topics, "EGRESS_ALLOW_PRIVATE_DESTINATIONS": "true"}
        self.running, self.loop = running, loop
        first_admin(self.env, "admin@x.example", PASSWORD)
        self.admin = Api(make_handler(wiring.api_services(self.env)), self.env).login("admin@x.example")
        self.owner, self.helper = person(self.admin, "editor"), person(self.admin, "viewer")
        made = self.owner.ok("POST", "/api/dashboards", document("T", []))
        self.id = made["id"]
        self.owner.ok("PUT", f"/api/dashboards/{self.id}/acl", {"email": "viewer@x.example", "level": "editor"})

    def credential(self, **more: Any) -> str:
        body = {"name": f"c{time.monotonic_ns()}", "type": "basic", **more}
        return str(self.admin.ok("POST", "/api/credential-profiles", body)["id"])

    def broker(self, **more: Any) -> str:
        body = {"name": f"b{time.monotonic_ns()}", "transport": "external", "brokerUrl": self.running.at.mqtt_url}
        return str(self.admin.ok("POST", "/api/broker-profiles", body | more)["id"])

    def ask(self, kind: str, *, by: Api | None = None, **settings: Any) -> tuple[int, Any]:
        body = {"dashboardId": self.id, "type": kind, "settings": settings}
        return (by or self.owner)("POST", "/api/datasources:preview", body)

    def on(self, asked: Coroutine[Any, Any, T]) -> T:
        """What the fake upstreams say, in their own loop."""
        return asyncio.run_coroutine_threadsafe(asked, self.loop).result(WAIT_S)

    def shown(self, kind: str, **settings: Any) -> dict[str, Any]:
        status, answer = self.ask(kind, **settings)
        assert status == 200, answer
        assert set(answer) == {"messages", "fault"}
        return dict(answer)

    def nobody_is_connected(self, upstream: str) -> None:
        """Somebody was, once, and has gone."""
        report = self.on(self.running.until(upstream, lambda found: found["now"] == 0))
        assert report["ever"] == 1


@contextmanager
def upstreams(folder: Path) -> Iterator[tuple[RunningUpstreams, asyncio.AbstractEventLoop]]:
    """Fake upstreams with a loop and a thread of their own: the handler needs this one."""
    ready: Future[tuple[RunningUpstreams, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        options = Options(CREDENTIALS, folder, interval=0.01)
        async with FakeUpstreams(options) as addresses, aiohttp.ClientSession() as http:
            end = asyncio.Event()
            ready.set_result((RunningUpstreams(addresses, http), asyncio.get_running_loop(), end))
            await end.wait()

    with ThreadPoolExecutor(1) as thread:
        served = thread.submit(asyncio.run, serve())
        running, loop, end = ready.result(WAIT_S)
        try:
            yield running, loop
        finally:
            loop.call_soon_threadsafe(end.set)
            served.result(WAIT_S)


@pytest.fixture
def desk(deployed: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    hurried = partial(PreviewPolicy, longest_s=LONGEST_S, further_s=0.1, poll_s=0.05)
    monkeypatch.setattr(wiring, "PreviewPolicy", hurried)
    with upstreams(tmp_path) as (running, loop):
        yield Desk(deployed, running, loop)


def test_the_first_five_messages_of_each_kind_of_source(desk: Desk) -> None:
    broker = desk.broker()
    north = {"brokerProfileId": broker, "topic": "site/+/temperature"}
    sources: dict[str, tuple[str, dict[str, Any]]] = {
        "sse": ("sse", {"url": f"{desk.running.at.sse_url}?rate=200"}),
        "websocket": ("websocket", {"url": f"{desk.running.at.websocket_url}?rate=200"}),
        "mqtt": ("mqtt", north),
    }
    for upstream, (kind, settings) in sources.items():
        found = desk.shown(kind, **settings)
        assert found["fault"] is None and len(found["messages"]) == MOST_MESSAGES
        assert all(isinstance(message["payload"], dict) for message in found["messages"])
        topics = {message["topic"] for message in found["messages"]}
        assert topics <= {"site/north/temperature", "site/south/temperature"} if kind == "mqtt" else topics == {None}
        assert all(message["at"].endswith("Z") for message in found["messages"])
        desk.nobody_is_connected(upstream)


def test_a_silent_source_is_no_fault_and_is_left(desk: Desk) -> None:
    broker = desk.broker()
    desk.on(desk.running.fault("sse", "stall"))
    sources = {
        "sse": ("sse", {"url": desk.running.at.sse_url}),
        "mqtt": ("mqtt", {"brokerProfileId": broker, "topic": "nobody/publishes/this"}),
    }
    for upstream, (kind, settings) in sources.items():
        assert desk.shown(kind, **settings) == {"messages": [], "fault": None}
        desk.nobody_is_connected(upstream)


def test_what_a_source_refuses_is_a_fault(desk: Desk) -> None:
    wrong = {"username": CREDENTIALS.username, "password": "wrong"}
    credential = desk.credential(secret=wrong)
    broker = desk.broker(credentialProfileId=credential)
    found = desk.shown("mqtt", brokerProfileId=broker, topic="site/north/temperature")
    assert found == {
        "messages": [],
        "fault": {"code": "STREAM_AUTH_FAILED", "message": "MQTT broker rejected connection"},
    }
    found = desk.shown("sse", url=desk.running.at.sse_protected_url)
    assert found["fault"]["code"] == "STREAM_AUTH_FAILED" and not found["messages"]
    desk.on(desk.running.fault("websocket", "garbage"))
    found = desk.shown("websocket", url=desk.running.at.websocket_url)
    assert found["fault"]["code"] == "STREAM_PROTOCOL_ERROR" and "not JSON" in found["fault"]["message"]
    desk.on(desk.running.fault("websocket", "oversize"))
    found = desk.shown("websocket", url=desk.running.at.websocket_url)
    assert found["fault"]["code"] == "STREAM_MESSAGE_TOO_LARGE"
    for upstream in ("sse", "websocket", "mqtt"):
        desk.on(desk.running.until(upstream, lambda report: report["now"] == 0))


def test_what_the_egress_policy_refuses_is_a_fault_and_is_not_connected_to(desk: Desk) -> None:
    broker = desk.broker()
    strict = {**desk.env, "EGRESS_ALLOW_PRIVATE_DESTINATIONS": "false"}
    token = desk.owner.token
    desk.owner = Api(make_handler(wiring.api_services(strict)), strict, token)
    sources = (
        ("sse", {"url": desk.running.at.sse_url}),
        ("websocket", {"url": "ws://localhost:1/live"}),
        ("mqtt", {"brokerProfileId": broker, "topic": "site/north/temperature"}),
    )
    for kind, settings in sources:
        found = desk.shown(kind, **settings)
        assert not found["messages"] and found["fault"]["code"] == "STREAM_POLICY_BLOCKED", (kind, found)
    for upstream in ("sse", "websocket", "mqtt"):
        assert desk.on(desk.running.report(upstream))["ever"] == 0


def test_what_saving_refuses_is_refused_and_not_connected_to(desk: Desk) -> None:
    closed = desk.broker()
    elsewhere = desk.credential(type="bearer", secret={"token": "t"}, destinations=["https://other.example"])

    def refused(kind: str, **settings: Any) -> tuple[int, str]:
        return code(desk.ask(kind, **settings))

    url = desk.running.at.sse_url
    assert refused("sse", url=url, credentialProfileId=elsewhere) == (400, "datasource_unresolved")
    assert refused("sse", url=f"{url}?token=abc") == (400, "invalid_document")
    assert refused("sse", url=url, credentialProfileId="none") == (400, "datasource_unresolved")
    assert refused("clock") == (400, "invalid_input")
    assert refused("mqtt", brokerProfileId=closed, topic="a/#/b") == (400, "datasource_unresolved")
    asked = desk.ask("mqtt", by=desk.helper, brokerProfileId=closed, topic="site/north/temperature")
    assert code(asked) == (403, "denied"), "it is not for public use"
    for upstream in ("sse", "websocket", "mqtt"):
        assert desk.on(desk.running.report(upstream))["ever"] == 0


def test_a_topic_of_iot_core(desk: Desk) -> None:
    """The bridge keeps its values from the preview on. The next preview is answered with them at once."""
    broker = desk.admin.ok("POST", "/api/broker-profiles", {"name": "core", "transport": "iot-core"})["id"]
    bridge = bridge_handler(bridge_services(desk.env))

    def publish(number: int) -> None:
        rule = event("iot_rule")
        rule |= {
            "topic": "demo/north",
            "id": f"message-{number}",
            "allowed_topic": "demo/#",
            "timestamp": int(time.time() * 1000) + number,
        }
        bridge(rule, None)

    publish(0)  # before anybody asked
    table, dynamodb = desk.env[STREAMS.variable], aws(desk.env["AWS_ENDPOINT_URL"], "dynamodb")

    def registered() -> list[dict[str, Any]]:
        return [row for row in dynamodb.scan(TableName=table)["Items"] if "registered" in row]

    def publish_when_asked() -> None:
        while not registered():
            pass
        publish(1)

    with ThreadPoolExecutor(1) as device:
        published = device.submit(publish_when_asked)
        first = desk.shown("mqtt", brokerProfileId=broker, topic="demo/+")
        published.result(WAIT_S)
    assert [message["topic"] for message in first["messages"]] == ["demo/north"] and first["fault"] is None
    assert desk.shown("mqtt", brokerProfileId=broker, topic="demo/+") == first
    (row,) = registered()
    assert int(row["ttl"]["N"]) < time.time() + 61, "it is not kept for longer than a preview needs"


def test_it_is_counted_in_the_audit_log_without_settings(desk: Desk) -> None:
    url = desk.running.at.sse_url
    for _ in range(2):
        desk.shown("sse", url=f"{url}?rate=200")
    rows = desk.admin.ok("GET", "/api/operations/audit?action=datasource.previewed")["events"]
    assert sum(row["count"] for row in rows) == 2 and len(rows) <= 2
    assert {(row["targetId"], json.dumps(row["metadata"])) for row in rows} == {(desk.id, '{"type": "sse"}')}
