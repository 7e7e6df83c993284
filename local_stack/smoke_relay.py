"""Smoke checks of the relay: datasources of the outside, shared, and what is refused."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from local_stack.checks import expect, settled
from local_stack.seed import basic_credential, document, external_broker, mqtt, stream
from local_stack.viewer import Viewer
from tidegate.protocol import batches
from tidegate.usecases.relay.worker import GRACE_S

if TYPE_CHECKING:
    from local_stack.smoke import Smoke

#: Viewers of the sharing check; each of its own address.
MANY = 50


def control(smoke: Smoke, body: dict[str, Any] | None = None) -> Any:
    """The counters of the fake upstreams; with a body, a fault first."""
    data = json.dumps(body).encode() if body else None
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(smoke.stack["fake_upstreams"]["control_url"], data, headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


async def watching(smoke: Smoke, visibility: str, datasource: str) -> Viewer:
    """A viewer of a demo dashboard that has received data."""
    demo = smoke.stack["demo"][visibility]
    api = smoke.user("viewer") if visibility == "private" else smoke.anonymous()
    viewer = await smoke.viewer()
    ack = await viewer.subscribe(demo["dashboardId"], datasource, smoke.mint(api, demo, datasource))
    expect(ack["ok"], f"subscribe refused: {ack}")
    await viewer.until(lambda frame: frame["type"] == "data" and not frame.get("retained"))
    return viewer


async def receives(smoke: Smoke, datasource: str) -> None:
    """The numbers come in order and none twice, on every kind of dashboard. (One may be skipped: a newer one wins.)"""
    for visibility in ("private", "link", "public"):
        viewer = await watching(smoke, visibility, datasource)
        await viewer.until(lambda _, one=viewer: len(one.payloads(datasource)) >= 5)  # type: ignore[misc]
        numbers = [payload["n"] for payload in viewer.payloads(datasource)]
        expect(numbers == sorted(set(numbers)), f"numbers {numbers}")
        await viewer.close()


async def shared(smoke: Smoke) -> str:
    """Fifty viewers, one upstream."""
    demo = smoke.stack["demo"]["public"]
    token = smoke.mint(smoke.anonymous(), demo, "sse")
    viewers = [await smoke.viewer() for _ in range(MANY)]
    for viewer in viewers:
        ack = await viewer.subscribe(demo["dashboardId"], "sse", token)
        expect(ack["ok"], f"subscribe refused: {ack}")
    seen = time.monotonic()
    await asyncio.gather(
        *(viewer.until(lambda frame: frame["type"] == "data" and frame["at"] > seen) for viewer in viewers)
    )
    # Those of checks before this one end by and by, since nobody listens to them.
    await settled(lambda: _upstreams(smoke) == 1, 3 * GRACE_S, f"{_upstreams(smoke)} upstreams")
    for viewer in viewers:
        await viewer.close()
    return f"{MANY} viewers, {_upstreams(smoke)} upstream"


def _upstreams(smoke: Smoke) -> int:
    return int(control(smoke)["sse"]["places"]["/stream"]["now"])


async def comes_back(smoke: Smoke) -> str:
    """A dropped upstream is told, connected again, and goes on where it was."""
    viewer = await watching(smoke, "public", "sse")
    control(smoke, {"upstream": "sse", "fault": "drop"})
    dropped = time.monotonic()
    error = await viewer.until(lambda frame: frame["type"] == "error")
    expect(error["errorCode"] == "STREAM_CONNECT_FAILED", f"{error}")
    await viewer.until(lambda frame: frame["type"] == "status" and frame["status"] == "error")
    back = await viewer.until(
        lambda frame: frame["type"] == "status" and frame["status"] == "connected" and frame["at"] > error["at"]
    )
    await viewer.until(lambda frame: frame["type"] == "data" and frame["at"] > back["at"])
    numbers = [payload["n"] for payload in viewer.payloads("sse")]
    expect(len(set(numbers)) == len(numbers), f"repeated: {numbers}")
    await viewer.close()
    return f"back after {back['at'] - dropped:.1f} s"


async def garbage(smoke: Smoke) -> str:
    """A payload that is not JSON is told; the stream goes on."""
    viewer = await watching(smoke, "public", "websocket")
    control(smoke, {"upstream": "websocket", "fault": "garbage", "for": 3})
    error = await viewer.until(lambda frame: frame["type"] == "error")
    await viewer.until(lambda frame: frame["type"] == "data" and frame["at"] > error["at"])
    await viewer.close()
    return str(error["errorCode"])


async def credential(smoke: Smoke) -> str:
    """The right secret opens the source, the wrong one is told as such and not hammered."""
    viewer = await watching(smoke, "public", "protected")
    await viewer.close()
    admin, owner = smoke.user("admin"), smoke.user("editor")
    wrong = {"name": f"wrong {time.time_ns()}", "type": "bearer", "secret": {"token": "not the secret"}}
    profile = admin.call("POST", "/api/credential-profiles", wrong | {"allowPublicUse": True})["id"]
    url = smoke.stack["fake_upstreams"]["sse_protected_url"]
    viewer = await own(smoke, owner, stream("sse", url, profile, "telemetry"))
    error = await viewer.until(lambda frame: frame["type"] == "error")
    expect(error["errorCode"] == "STREAM_AUTH_FAILED", f"{error}")
    expect("not the secret" not in json.dumps(viewer.frames), "the secret was told")
    await viewer.close()
    return str(error["errorCode"])


async def refused(smoke: Smoke) -> str:
    """A port that is not on the list is refused before anything is connected to."""
    demo_url = smoke.stack["fake_upstreams"]["sse_url"].replace("/stream", "")
    port = int(demo_url.rpartition(":")[2]) + 1
    viewer = await own(
        smoke, smoke.user("editor"), stream("sse", f"http://127.0.0.1:{port}/stream", None, "telemetry"), refused=True
    )
    await viewer.close()
    return "STREAM_POLICY_BLOCKED"


async def broker_password(smoke: Smoke) -> str:
    """Over TLS with the right password there is data; the wrong one is told."""
    await (await watching(smoke, "public", "external-protected")).close()
    admin, name = smoke.user("admin"), f"wrong {time.time_ns()}"
    wrong = basic_credential(admin, name, smoke.stack["fake_upstreams"]["username"], "not the password")
    broker = external_broker(admin, name, smoke.stack["fake_upstreams"]["mqtt_url"], wrong)
    viewer = await own(smoke, smoke.user("editor"), mqtt("telemetry", broker, "site/north/temperature"))
    error = await viewer.until(lambda frame: frame["type"] == "error")
    expect(error["errorCode"] == "STREAM_AUTH_FAILED", f"{error}")
    expect("not the password" not in json.dumps(viewer.frames), "the password was told")
    await viewer.close()
    return str(error["errorCode"])


async def one_broker_connection(smoke: Smoke) -> str:
    """Streams of one broker and credential share one connection, on whatever dashboards they are."""
    broker = external_broker(smoke.user("admin"), f"shared {time.time_ns()}", smoke.stack["fake_upstreams"]["mqtt_url"])
    before = len(control(smoke)["mqtt"]["open"])
    viewers = []
    for topic in ("site/north/temperature", "site/south/temperature", "site/+/temperature"):
        viewer = await own(smoke, smoke.user("editor"), mqtt("telemetry", broker, topic))
        await viewer.until(lambda frame: frame["type"] == "data" and not frame.get("retained"))
        viewers.append(viewer)
    more = len(control(smoke)["mqtt"]["open"]) - before
    expect(more == 1, f"{more} connections")
    for viewer in viewers:
        await viewer.close()
    return f"{len(viewers)} streams, {more} connection"


async def topics_refused(smoke: Smoke) -> str:
    """A topic outside the broker's allowlist, and one outside the gateway's."""
    admin, name = smoke.user("admin"), f"topics {time.time_ns()}"
    broker = external_broker(admin, name, smoke.stack["fake_upstreams"]["mqtt_url"])
    for topic in ("elsewhere/x", "site/north/humidity"):
        viewer = await own(smoke, smoke.user("editor"), mqtt("telemetry", broker, topic), refused=True)
        await viewer.close()
    return "STREAM_POLICY_BLOCKED"


async def never_admitted(smoke: Smoke) -> str:
    """Where cloud metadata is nothing connects to, though private addresses are allowed here."""
    for host in ("169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"):
        source = stream("sse", f"http://{host}/latest/meta-data", None, "telemetry")
        await (await own(smoke, smoke.user("editor"), source, refused=True)).close()
    return "STREAM_POLICY_BLOCKED"


async def batched(smoke: Smoke) -> str:
    """Who asked for batches gets what the others get, in fewer messages; who did not, never gets one."""
    fixtures, owner, api = smoke.stack["fake_upstreams"], smoke.user("admin"), smoke.user("editor")
    broker = external_broker(owner, f"batch {time.time_ns()}", fixtures["mqtt_url"])
    # Batches are a worker's, and there are two: of five lively streams three are of one, wherever they fall.
    lively = [stream("sse", f"{fixtures['sse_url']}?rate={rate}", None, f"sse{rate}") for rate in (8, 9, 10)]
    lively += [stream("websocket", f"{fixtures['websocket_url']}?rate={rate}", None, f"ws{rate}") for rate in (8, 9)]
    sources = [*lively, mqtt("external", broker, "site/north/temperature")]
    made = api.call("POST", "/api/dashboards", document("Batch", sources))
    names = [str(one["id"]) for one in sources]
    plain, batch = await smoke.viewer(), await smoke.viewer(batch=True)
    for name in names:
        token = smoke.mint(api, {"dashboardId": made["id"]}, name)
        for viewer in (plain, batch):
            ack = await viewer.subscribe(made["id"], name, token)
            expect(ack["ok"], f"subscribe refused: {ack}")
    for viewer in (batch, plain):
        await viewer.until(lambda _, one=viewer: all(len(one.payloads(name)) >= 3 for name in names))  # type: ignore[misc]
        await viewer.until(lambda _, one=viewer: all(len(one.payloads(str(each["id"]))) >= 30 for each in lively))  # type: ignore[misc]
    await plain.close()
    await batch.close()
    for name in names:
        both = [[payload["n"] for payload in viewer.payloads(name)] for viewer in (plain, batch)]
        first, last = max(numbers[0] for numbers in both), min(numbers[-1] for numbers in both)
        seen, gathered = ([n for n in numbers if first <= n <= last] for numbers in both)
        expect(gathered == seen and seen == sorted(set(seen)), f"{name}: {gathered} beside {seen}")
    expect(plain.batches == 0 and len(plain.sizes) == len(plain.frames), f"{plain.batches} batches nobody asked for")
    expect(batch.batches and len(batch.sizes) < len(batch.frames), f"{batch.batches} of {len(batch.sizes)} messages")
    expect(max(batch.sizes) <= batches.MAX_BYTES, f"a message of {max(batch.sizes)} bytes")
    return f"{len(batch.frames)} frames in {len(batch.sizes)} messages, the largest {max(batch.sizes)} bytes"


async def own(smoke: Smoke, owner: Any, source: dict[str, Any], *, refused: bool = False) -> Viewer:
    """The owner's view of a dashboard with this one datasource."""
    made = owner.call("POST", "/api/dashboards", document("Relay", [source]))
    demo = {"dashboardId": made["id"]}
    viewer = await smoke.viewer()
    ack = await viewer.subscribe(made["id"], "telemetry", smoke.mint(owner, demo))
    expect(ack["ok"] is not refused, f"{ack}")
    if refused:
        expect(ack["errorCode"] == "STREAM_POLICY_BLOCKED", f"{ack}")
    return viewer


async def run(smoke: Smoke) -> None:
    """All rows."""

    async def sse() -> str | None:
        await receives(smoke, "sse")
        return None

    async def websocket() -> str | None:
        await receives(smoke, "websocket")
        return None

    async def external_mqtt() -> str | None:
        await receives(smoke, "external")
        return None

    await smoke.check("SSE on private, link and public dashboards", sse)
    await smoke.check("WebSocket on private, link and public dashboards", websocket)
    await smoke.check("external MQTT on private, link and public dashboards", external_mqtt)
    await smoke.check("many viewers share one upstream", lambda: shared(smoke))
    await smoke.check("an upstream that drops comes back", lambda: comes_back(smoke))
    await smoke.check("an upstream that talks garbage", lambda: garbage(smoke))
    await smoke.check("credentials of an upstream, right and wrong", lambda: credential(smoke))
    await smoke.check("an MQTT broker's password, right and wrong", lambda: broker_password(smoke))
    await smoke.check("streams of a broker share one connection", lambda: one_broker_connection(smoke))
    await smoke.check("batches: what plain viewers get, in fewer messages", lambda: batched(smoke))
    await smoke.check("refused: a port nobody allowed", lambda: refused(smoke))
    await smoke.check("refused: topics outside the allowlists", lambda: topics_refused(smoke))
    await smoke.check("refused: addresses of cloud metadata", lambda: never_admitted(smoke))
