"""The main path from a device to a viewer, and what the gateway and the API refuse."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
import websockets

from local_stack.checks import expect, settled
from local_stack.seed import OWN, Api, document, mqtt
from local_stack.smoke.client import Note, Smoke
from local_stack.smoke.rows import SAMPLES, row
from local_stack.viewer import Frame, Viewer
from tidegate.domain.access import FRESH_S

#: Subscriptions a connection may have, and connections an address may have, on the local stage.
SUBSCRIPTIONS, CONNECTIONS = 50, 25
#: How long the slot of a closed connection may stay taken, seconds.
_SLOT_S = 10.0
#: How long a value that was overtaken may be the last one, seconds: until its sender has looked and sent again.
_OVERTAKEN_S = 3.0
#: How long two acks may take, seconds.
_SAVED_S = 15.0
#: How long is looked for data after the ack of an unsubscribe, seconds.
_AFTER_ACK_S = 3.0
#: Twelve invocations at the same time may be twelve cold starts, seconds.
_TWELVE_COLD_S = 60.0
#: Devices that publish at once, and how long their values may take: as many invocations, some of them cold, seconds.
_DEVICES, _DEVICES_S = 8, 60.0


# --- the main path -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "visibility",
    [
        pytest.param("private", marks=row("device to private dashboard (signed-in viewer)")),
        pytest.param("link", marks=row("device to link dashboard (share token)")),
        pytest.param("public", marks=row("device to public dashboard (anybody)")),
    ],
)
async def test_a_device_reaches_viewers(smoke: Smoke, visibility: str) -> None:
    demo = smoke.stack["demo"][visibility]
    api = smoke.user("viewer") if visibility == "private" else smoke.anonymous()
    viewer = await smoke.subscribed(smoke.mint(api, demo), demo)
    wanted = smoke.payload()
    await smoke.publish(demo["topic"], wanted)
    await viewer.data(wanted)
    await viewer.close()


@row("one session for a board of ten")
async def test_board(smoke: Smoke, note: Note) -> None:
    broker, names = smoke.stack["demo"]["brokers"]["public"], [f"d{number}" for number in range(10)]
    datasources = [mqtt(name, broker, f"{OWN}/board/{name}") for name in names]
    made = smoke.user("editor").call("POST", "/api/dashboards", document("Smoke", datasources))
    path = f"/api/dashboards/{made['id']}"
    smoke.user("editor").call("PUT", f"{path}/visibility", {"visibility": "public"})
    token = smoke.anonymous().call("POST", f"{path}/session", {})["token"]
    viewer = await smoke.viewer()
    asked = {"type": "subscribe", "requestId": "board", "dashboardId": made["id"]}
    await viewer.send({**asked, "datasourceIds": [*names, "none"], "sessionToken": token})
    for name in [*names, "none"]:
        ack = await viewer.until(
            lambda frame, name=name: (frame["type"], frame.get("datasourceId")) == ("ack", name)  # type: ignore[misc]
        )
        expect(ack["ok"] is (name != "none"), f"{ack}")
    wanted = smoke.payload()
    await smoke.publish(f"{OWN}/board/{names[-1]}", wanted)
    await viewer.data(wanted)
    note("ten acks for one subscribe, and a refusal of the eleventh that refused no other")
    await viewer.close()


@row("a page asks whether it may connect and subscribe")
async def test_asks(smoke: Smoke, note: Note) -> None:
    """What it is told is what the gateway does, before and after the link is replaced."""
    broker, editor = smoke.stack["demo"]["brokers"]["public"], smoke.user("editor")
    demo = smoke.dashboard(mqtt("telemetry", broker, f"{OWN}/asks"), "link")
    path, page = f"/api/dashboards/{demo['dashboardId']}", smoke.anonymous()
    token = page.call("POST", f"{path}/session", {"shareToken": demo["shareToken"]})["token"]

    def asked() -> dict[str, Any]:
        sent = {"Authorization": f"Bearer {token}"}
        answer: dict[str, Any] = page.call("GET", f"/api/realtime?dashboardId={demo['dashboardId']}", headers=sent)
        return answer

    before = asked()
    expect(before["connect"]["state"] == before["subscribe"]["state"] == "allowed", f"{before}")
    await (await smoke.subscribed(token, demo)).close()
    editor.call("POST", f"{path}/share-token:rotate")
    told, ack = asked()["subscribe"], await smoke.refused(token, demo["dashboardId"])
    same = (told["errorCode"], told["message"], told["retryable"])
    expect(same == (ack["errorCode"], ack["message"], ack["retryable"]), f"{told} and {ack}")
    note(f"allowed, then {told['message']!r} as the ack has it")


@row("deep health: every table, secret and queue")
async def test_health(smoke: Smoke, note: Note) -> None:
    page = smoke.anonymous()
    expect(page.call("GET", "/api/healthz")["status"] == "ok", "not ok")
    deep = "/api/healthz?deep=true"
    expect(page.request("GET", deep).status_code == 401, "deep without the service token")
    sent = {"Authorization": f"Bearer {smoke.secret('GATEWAY_SERVICE_TOKEN_ARN')}"}
    checks = page.call("GET", deep, headers=sent)["checks"]
    expect(all(check["ok"] for check in checks), f"{checks}")
    kinds = [check["kind"] for check in checks]
    expect({"table", "secret", "queue"} == set(kinds), f"{kinds}")
    note(f"{len(checks)} checks, the slowest {max(check['ms'] for check in checks):.0f} ms")


@row("a saved dashboard is told once, and not sent again")
async def test_saved(smoke: Smoke, note: Note) -> None:
    broker, names = smoke.stack["demo"]["brokers"]["public"], ["one", "two"]
    datasources = [mqtt(name, broker, f"{OWN}/saved/{name}") for name in names]
    editor, guest = smoke.user("editor"), smoke.anonymous()
    made = editor.call("POST", "/api/dashboards", document("Smoke", datasources))
    path = f"/api/dashboards/{made['id']}"
    editor.call("PUT", f"{path}/visibility", {"visibility": "public"})
    asked = {"type": "subscribe", "requestId": "saved", "dashboardId": made["id"], "datasourceIds": names}
    viewer = await smoke.viewer()
    await viewer.send({**asked, "sessionToken": guest.call("POST", f"{path}/session", {})["token"]})
    await settled(lambda: sum(frame["type"] == "ack" for frame in viewer.frames) == len(names), _SAVED_S, "two acks")
    before = guest.request("GET", path)
    began = time.monotonic()
    await asyncio.to_thread(
        editor.call, "PUT", path, document("Saved", datasources), {"If-Match": before.headers["etag"]}
    )
    frame = await viewer.until(lambda frame: frame["type"] == "document")
    expect((frame["dashboardId"], frame["revision"]) == (made["id"], made["revision"] + 1), f"{frame}")
    unchanged = {"If-None-Match": before.headers["etag"]}
    after = guest.request("GET", path, headers=unchanged)
    expect((after.status_code, after.json()["title"]) == (200, "Saved"), f"{after.status_code}")
    again = guest.request("GET", path, headers={"If-None-Match": after.headers["etag"]})
    expect((again.status_code, again.content) == (304, b""), f"{again.status_code}")
    await asyncio.to_thread(editor.call, "POST", f"{path}/share-token:rotate")  # no save; it ends the guest
    await viewer.until(lambda frame: frame["type"] == "error")
    told = [frame["revision"] for frame in viewer.frames if frame["type"] == "document"]
    expect(told == [made["revision"] + 1], f"told {told}")
    note(f"told after {(frame['at'] - began) * 1000:.0f} ms")
    await viewer.close()


@row("text and binary payloads")
async def test_text(smoke: Smoke) -> None:
    demo = smoke.stack["demo"]["public"]
    viewer = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo, "text"), demo, "text")
    await smoke.publish(f"{demo['topic']}/text", "21.5 °C, not JSON {")
    await viewer.data("21.5 °C, not JSON {")
    await smoke.publish(f"{demo['topic']}/text", b"\xff\x00raw")
    await viewer.data("\ufffd\x00raw")
    await viewer.close()


@row("wildcard topic")
async def test_wildcard(smoke: Smoke) -> None:
    demo = smoke.stack["demo"]["public"]
    viewer = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo, "fleet"), demo, "fleet")
    for device in ("a", "b"):
        wanted = smoke.payload() | {"device": device}
        await smoke.publish(f"{demo['topic']}/fleet/{device}/state", wanted)
        await viewer.data(wanted)
    other = smoke.payload()
    await smoke.publish(f"{demo['topic']}/fleet/a/b/state", other)
    last = smoke.payload()
    await smoke.publish(f"{demo['topic']}/fleet/c/state", last)
    await viewer.data(last)
    expect(all(frame.get("payload") != other for frame in viewer.frames), "a topic outside the filter came")
    await viewer.close()


@row("eight devices behind a wildcard")
async def test_eight_devices(smoke: Smoke, note: Note) -> None:
    """All publish at once, four values each. Each ends with its own newest, and so does who comes later."""
    demo = smoke.stack["demo"]["public"]
    viewer = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo, "fleet"), demo, "fleet")
    run = time.time_ns()
    topics = [f"{demo['topic']}/fleet/{run}-{device}/state" for device in range(_DEVICES)]

    async def device(topic: str) -> dict[str, Any]:
        for number in range(4):
            last = smoke.payload() | {"number": number}
            await smoke.publish(topic, last)
        return last

    await smoke.publish(topics[0], smoke.payload())  # connects the device that all of them share
    newest = dict(zip(topics, await asyncio.gather(*map(device, topics)), strict=True))

    def shown(by: Viewer) -> dict[str, Any]:
        return {frame["topic"]: frame["payload"] for frame in by.frames if frame.get("topic") in newest}

    await settled(lambda: shown(viewer) == newest, _DEVICES_S, "the newest value of every device")
    late = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo, "fleet"), demo, "fleet")
    await settled(lambda: shown(late) == newest, _DEVICES_S, "the last value of every device")
    live = [frame for frame in viewer.live("fleet") if "number" in frame["payload"]]
    values = {(frame["topic"], frame["seq"]) for frame in live if frame["topic"] in newest}
    await viewer.close()
    await late.close()
    note(f"{_DEVICES} devices, {len(values)} of {4 * _DEVICES} values seen as they came")


@row("payload that is not JSON")
async def test_not_json(smoke: Smoke, note: Note) -> None:
    demo = smoke.stack["demo"]["public"]
    viewer = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo), demo)
    await asyncio.sleep(FRESH_S)  # whoever comes within it may miss what is told of one message: no value is lost
    await smoke.publish(demo["topic"], "{broken")
    frame = await viewer.until(lambda frame: frame["type"] == "error")
    expect(frame["errorCode"] == "STREAM_PROTOCOL_ERROR", f"{frame}")
    wanted = smoke.payload()
    await smoke.publish(demo["topic"], wanted)
    await viewer.data(wanted)
    await viewer.close()
    note(frame["errorCode"])


@row("last value on subscribe")
async def test_last_value(smoke: Smoke) -> None:
    demo = smoke.stack["demo"]["link"]
    first = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo), demo)
    wanted = smoke.payload()
    await smoke.publish(demo["topic"], wanted)
    await first.data(wanted)
    late = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo), demo)
    frame = await late.data(wanted)
    expect(frame.get("retained") is True, f"not retained: {frame}")
    await first.close()
    await late.close()


@row("twelve values back to back")
async def test_back_to_back(smoke: Smoke, note: Note) -> None:
    """Each is handled by an invocation of its own. Whatever overtakes what, the newest is sent last."""
    demo = smoke.stack["demo"]["link"]
    viewer = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo), demo)
    twelve = [smoke.payload() for _ in range(12)]
    for value in twelve:
        await smoke.publish(demo["topic"], value)
    newest = await viewer.data(twelve[-1], _TWELVE_COLD_S)
    await asyncio.sleep(_OVERTAKEN_S)  # an older value that comes now is followed by the newest within this time
    sent = [frame for frame in viewer.frames if frame["type"] == "data" and frame["payload"] in twelve]
    expect(max(frame["seq"] for frame in sent) == newest["seq"], "the twelfth is not the newest")
    expect(sent[-1]["seq"] == newest["seq"], f"an older value came last: {sent[-1]}")
    late = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo), demo)
    frame = await late.data(twelve[-1])
    expect(frame["seq"] == newest["seq"], f"the same value has another seq: {frame}")
    note(f"{len(sent)} frames")


@row("double subscribe, refresh, unsubscribe")
async def test_refresh(smoke: Smoke) -> None:
    demo = smoke.stack["demo"]["link"]
    api = smoke.anonymous()
    token = smoke.mint(api, demo)
    viewer = await smoke.viewer()
    acks = await asyncio.gather(*(viewer.subscribe(demo["dashboardId"], "telemetry", token) for _ in range(2)))
    expect(all(ack["ok"] for ack in acks), f"both of a double subscribe must be acked: {acks}")
    ack = await viewer.subscribe(demo["dashboardId"], "telemetry", smoke.mint(api, demo))
    expect(ack["ok"], f"{ack}")
    ack = await viewer.ask({"type": "unsubscribe", "datasourceId": "telemetry"})
    expect(ack["ok"], f"{ack}")
    await viewer.until(lambda frame: frame["type"] == "status" and frame["status"] == "disconnected")
    await viewer.close()


@pytest.mark.parametrize(
    ("datasource", "batch"),
    [
        pytest.param("telemetry", False, marks=row("unsubscribe from a lively device")),
        pytest.param("sse", False, marks=row("unsubscribe from a lively relay stream")),
        pytest.param("sse", True, marks=row("unsubscribe from a lively relay stream, in batches")),
    ],
)
async def test_unsubscribe(smoke: Smoke, note: Note, datasource: str, batch: bool) -> None:
    """A second after the ack nothing more comes, while another viewer goes on to receive. Who comes back receives."""
    demo = smoke.stack["demo"]["public"]
    token = smoke.mint(smoke.anonymous(), demo, datasource)
    leaving, staying = await smoke.viewer(batch=batch), await smoke.viewer(batch=batch)
    for viewer in (leaving, staying):
        ack = await viewer.subscribe(demo["dashboardId"], datasource, token)
        expect(ack["ok"], f"subscribe refused: {ack}")
    lively = None
    if datasource == "telemetry":
        first = smoke.payload()
        await smoke.publish(demo["topic"], first)
        await staying.data(first, _TWELVE_COLD_S)
        lively = asyncio.create_task(_publish_on(smoke, demo["topic"]))
    try:
        for viewer in (leaving, staying):
            await viewer.received(datasource, 5)
        acked = await leaving.ask({"type": "unsubscribe", "datasourceId": datasource})
        await staying.until(lambda frame: frame["type"] == "data" and frame["at"] > acked["at"] + _AFTER_ACK_S)
        late = [frame["at"] - acked["at"] for frame in leaving.frames if frame["type"] == "data"]
        expect(max(late) <= 1.0, f"data came {max(late):.2f} s after the ack")
        ack = await leaving.subscribe(demo["dashboardId"], datasource, token)
        await leaving.until(
            lambda frame: frame["type"] == "data" and not frame.get("retained") and frame["at"] > ack["at"]
        )
    finally:
        if lively is not None:
            lively.cancel()
    expect(len(staying.live(datasource, acked["at"])) > 10, "the stream was not lively")
    note(f"last data {max(0.0, max(late)) * 1000:.0f} ms after the ack")


async def _publish_on(smoke: Smoke, topic: str) -> None:
    """Five values a second: more would meet the cold starts of as many functions at once."""
    while True:
        await smoke.publish(topic, smoke.payload())
        await asyncio.sleep(0.2)


# --- refusals ----------------------------------------------------------------------------------------------


@row("refused: viewer without rights")
async def test_no_rights(smoke: Smoke, note: Note) -> None:
    not_shared = smoke.dashboard(mqtt("telemetry", smoke.stack["demo"]["brokers"]["members"], f"{OWN}/secret"))
    status = smoke.mint_status(smoke.user("viewer"), not_shared)
    expect(status == 403, f"mint answered {status}")
    forged = smoke.forge(sub="somebody", dashboardId=not_shared["dashboardId"])
    refused = await smoke.refused(forged, not_shared["dashboardId"])
    expect(refused["errorCode"] == "STREAM_AUTH_FAILED", f"{refused}")
    expect(refused["retryable"] is False, f"{refused}")
    note(f"mint 403, {refused['errorCode']}")


@row("refused: broker profile without public use")
async def test_members_broker(smoke: Smoke, note: Note) -> None:
    demo = smoke.stack["demo"]["public"]
    status = smoke.mint_status(smoke.anonymous(), demo, "members")
    expect(status == 403, f"mint answered {status}")
    other = jwt.decode(smoke.mint(smoke.anonymous(), demo), options={"verify_signature": False})
    forged = smoke.forge(
        sub="public",
        dashboardId=demo["dashboardId"],
        datasourceId="members",
        shareTokenVersion=other["shareTokenVersion"],
    )
    refused = await smoke.refused(forged, demo["dashboardId"], "members")
    expect(refused["errorCode"] == "STREAM_AUTH_FAILED", f"{refused}")
    note(f"mint 403, {refused['errorCode']}")


@row("refused: expired token")
async def test_expired(smoke: Smoke, note: Note) -> None:
    demo = smoke.stack["demo"]["public"]
    now = int(time.time())
    forged = smoke.forge(sub="public", dashboardId=demo["dashboardId"], iat=now - 100, exp=now - 1)
    refused = await smoke.refused(forged, demo["dashboardId"])
    expect(refused["errorCode"] == "STREAM_AUTH_FAILED" and refused["retryable"] is True, f"{refused}")
    note(refused["errorCode"])


def _shared_by_link(smoke: Smoke) -> tuple[dict[str, Any], str]:
    """A dashboard shared by link and its topic. The demo's own link must work after the run, so it is not rotated."""
    topic = f"{OWN}/rotated/{time.time_ns()}"
    return smoke.dashboard(mqtt("telemetry", smoke.stack["demo"]["brokers"]["public"], topic), "link"), topic


def _rotate(smoke: Smoke, shared: dict[str, Any]) -> dict[str, Any]:
    """Rotate the share token; returns the dashboard with the new one."""
    rotated = smoke.user("editor").call("POST", f"/api/dashboards/{shared['dashboardId']}/share-token:rotate")
    return shared | {"shareToken": rotated["shareToken"]}


@row("refused: token of before a rotation")
async def test_before_rotation(smoke: Smoke, note: Note) -> None:
    shared, _ = _shared_by_link(smoke)
    token = smoke.mint(smoke.anonymous(), shared)
    _rotate(smoke, shared)
    status = smoke.mint_status(smoke.anonymous(), shared)
    expect(status == 403, f"mint with the old link answered {status}")
    refused = await smoke.refused(token, shared["dashboardId"])
    expect(refused["errorCode"] == "STREAM_AUTH_FAILED" and refused["retryable"] is False, f"{refused}")
    note(f"{refused['errorCode']}, {refused['message']}")


@row("refused: token of another dashboard")
async def test_other_dashboard(smoke: Smoke, note: Note) -> None:
    public, link = smoke.stack["demo"]["public"], smoke.stack["demo"]["link"]
    refused = await smoke.refused(smoke.mint(smoke.anonymous(), public), link["dashboardId"])
    expect(refused["errorCode"] == "STREAM_AUTH_FAILED", f"{refused}")
    note(refused["errorCode"])


@row("no data one second after a rotation")
async def test_after_rotation(smoke: Smoke) -> None:
    """Fan-out asks the access item, so a running viewer gets nothing a second after the change."""
    shared, topic = _shared_by_link(smoke)
    viewer = await smoke.subscribed(smoke.mint(smoke.anonymous(), shared), shared)
    first = smoke.payload()
    await smoke.publish(topic, first)
    await viewer.data(first)
    rotated = _rotate(smoke, shared)
    await asyncio.sleep(1.0)  # the bound itself is what is checked
    second = smoke.payload()
    fresh = await smoke.subscribed(smoke.mint(smoke.anonymous(), rotated), rotated)
    await smoke.publish(topic, second)
    await fresh.data(second)
    expect(all(frame.get("payload") != second for frame in viewer.frames), "a revoked viewer received data")
    await viewer.close()
    await fresh.close()


@row("refused: 51st subscription of a connection")
async def test_cap(smoke: Smoke, note: Note) -> None:
    """The connection's own cap."""
    editor, broker = smoke.user("editor"), smoke.stack["demo"]["brokers"]["public"]
    datasources = [mqtt(f"d{number}", broker, f"{OWN}/cap/{number}") for number in range(SUBSCRIPTIONS + 1)]
    made = editor.call("POST", "/api/dashboards", document("Cap", datasources))
    user_id = editor.call("GET", "/api/users/me")["id"]
    viewer = await smoke.viewer()

    async def subscribe(number: int) -> Frame:
        token = smoke.forge(sub=user_id, dashboardId=made["id"], datasourceId=f"d{number}", shareTokenVersion=None)
        return await viewer.subscribe(made["id"], f"d{number}", token)

    acks = await asyncio.gather(*(subscribe(number) for number in range(SUBSCRIPTIONS + 1)))
    refused = [ack for ack in acks if not ack["ok"]]
    expect(len(refused) == 1, f"{len(refused)} of {len(acks)} refused, cap {SUBSCRIPTIONS}: {refused[:2]}")
    expect(refused[0]["errorCode"] == "STREAM_RATE_LIMITED", f"{refused[0]}")
    await viewer.close()
    note(refused[0]["errorCode"])


@row("refused: 26th connection of an address")
async def test_address_cap(smoke: Smoke, note: Note) -> None:
    """Connections beyond the cap of one address are refused at the handshake."""
    address, opened, status = smoke.address(), list[Viewer](), 0
    try:
        for _ in range(CONNECTIONS + 1):
            opened.append(await smoke.viewer(address=address))
    except websockets.InvalidStatus as error:
        status = error.response.status_code
    told = Api(smoke.stack["edge_url"], address=address).call("GET", "/api/realtime")["connect"]
    for viewer in opened:
        await viewer.close()
    expect(len(opened) == CONNECTIONS and status in (403, 429), f"{len(opened)} opened, then {status}")
    why = f"Too many open connections from this address: at most {CONNECTIONS}"
    expect(told["state"] == "refused" and told["message"].startswith(why), f"a page that asks is told {told}")
    again = await _eventually_open(smoke, address)
    await again.close()
    note(f"{CONNECTIONS} open, then {status}, and a page that asks is told why")


async def _eventually_open(smoke: Smoke, address: str) -> Viewer:
    """A slot is free again once `$disconnect` has run."""
    until = time.monotonic() + _SLOT_S
    while True:
        try:
            return await smoke.viewer(address=address)
        except websockets.InvalidStatus:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)


@row("malformed messages answered")
async def test_bad_messages(smoke: Smoke, note: Note) -> None:
    viewer = await smoke.viewer()
    cases: list[tuple[str, Callable[[Frame], bool]]] = [
        ("not json", lambda frame: frame.get("message") == "Malformed realtime message"),
        ('{"type":"dance"}', lambda frame: frame.get("message") == "Unsupported realtime message type"),
        ('{"type":"subscribe","requestId":"x1","dashboardId":" "}', lambda frame: frame.get("requestId") == "x1"),
        ('{"type":"unsubscribe","requestId":"x2","datasourceId":7}', lambda frame: frame.get("requestId") == "x2"),
        ('{"type":" Ping ","requestId":"x3"}', lambda frame: frame["type"] == "pong"),
    ]
    for text, wanted in cases:
        await viewer.send(text)
        await viewer.until(wanted)
    await viewer.close()
    note(f"{len(cases)} answered")


@row("internal API hidden")
def test_internal_api_hidden(smoke: Smoke, note: Note) -> None:
    headers = {"Authorization": f"Bearer {smoke.secret('GATEWAY_SERVICE_TOKEN_ARN')}"}
    answer = smoke.anonymous().request("POST", "/internal/gateway/revoked-tokens", {}, headers)
    expect(answer.status_code == 404, f"the edge answered {answer.status_code}")
    note("404 at the edge")


@row("publish to receive")
async def test_latency(smoke: Smoke, note: Note, record_property: Callable[[str, object], None]) -> None:
    demo = smoke.stack["demo"]["public"]
    viewer = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo, "fleet"), demo, "fleet")
    latencies_ms = []
    for number in range(SAMPLES):
        wanted, started = smoke.payload(), time.monotonic()
        # Each is of another device, because values of one topic are kept apart.
        topic = f"{demo['topic']}/fleet/{number}/state"
        publishing = asyncio.create_task(smoke.publish(topic, wanted))
        frame = await viewer.data(wanted)
        await publishing
        latencies_ms.append((frame["at"] - started) * 1000)
    await viewer.close()
    record_property("latencies_ms", latencies_ms)
    ordered = sorted(latencies_ms)
    p95 = ordered[int(len(ordered) * 0.95) - 1]
    note(f"median {statistics.median(ordered):.0f} ms, p95 {p95:.0f} ms, {SAMPLES} messages")
