"""The relay: datasources of the outside, shared, and what is refused."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from urllib.parse import urlsplit

import aiomqtt
import pytest

from local_stack.checks import expect, settled
from local_stack.seed import basic_credential, document, external_broker, mqtt, origin, stream
from local_stack.smoke.client import Note, Smoke
from local_stack.smoke.rows import row
from local_stack.viewer import Viewer
from tidegate.domain.connects import HELD_S
from tidegate.protocol import batches
from tidegate.usecases.relay.worker import GRACE_S

#: Viewers of the sharing row; each of its own address.
MANY = 50
#: Viewers who come to a quiet source at the same time.
AT_ONCE = 24
#: How long their last status may be another one, seconds: a worker's start, and the catch-up of a subscribe.
QUIET_S = 20.0


@pytest.mark.parametrize(
    "datasource",
    [
        pytest.param("sse", marks=row("SSE on private, link and public dashboards")),
        pytest.param("websocket", marks=row("WebSocket on private, link and public dashboards")),
        pytest.param("external", marks=row("external MQTT on private, link and public dashboards")),
    ],
)
async def test_numbers_come_in_order(smoke: Smoke, datasource: str) -> None:
    """None comes twice, on every kind of dashboard. (One may be skipped: a newer one wins.)"""
    for visibility in ("private", "link", "public"):
        viewer = await smoke.watching(visibility, datasource)
        await viewer.received(datasource, 5)
        numbers = [payload["n"] for payload in viewer.payloads(datasource)]
        expect(numbers == sorted(set(numbers)), f"numbers {numbers}")
        await viewer.close()


@row("many viewers share one upstream")
async def test_shared(smoke: Smoke, note: Note) -> None:
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
    await only_one_upstream(smoke)
    for viewer in viewers:
        await viewer.close()
    note(f"{MANY} viewers, 1 upstream")


@row("viewers who come at once to a quiet source")
async def test_quiet(smoke: Smoke, note: Note) -> None:
    """Some come before the source is connected, and some while it is told. All end with `connected`."""
    url = f"{smoke.upstreams['sse_url']}?interval_ms=60000&keep_alive_ms=1000&run={time.time_ns()}"
    demo = smoke.dashboard(stream("sse", url, None, "telemetry"))
    token = smoke.mint(smoke.user("editor"), demo)
    viewers = [await smoke.viewer() for _ in range(AT_ONCE)]
    acks = await asyncio.gather(*(viewer.subscribe(demo["dashboardId"], "telemetry", token) for viewer in viewers))
    expect(all(ack["ok"] for ack in acks), f"subscribes refused: {[ack for ack in acks if not ack['ok']]}")

    def statuses(viewer: Viewer) -> list[str]:
        return [frame["status"] for frame in viewer.frames if frame["type"] == "status"]

    def converged() -> bool:
        return all(statuses(viewer)[-1:] == ["connected"] for viewer in viewers)

    await settled(converged, QUIET_S, "every viewer's last status is connected")
    waited = sum("connecting" in statuses(viewer) for viewer in viewers)
    for viewer in viewers:
        await viewer.close()
    note(f"{AT_ONCE} viewers connected, {waited} of them read connecting first")


async def only_one_upstream(smoke: Smoke) -> None:
    """One connection to `/stream`. Those of rows before this one end by and by, since nobody listens to them."""
    await settled(
        lambda: smoke.control()["sse"]["places"]["/stream"]["now"] == 1, 3 * GRACE_S, "one connection to the upstream"
    )


@row("an upstream that drops comes back")
async def test_comes_back(smoke: Smoke, note: Note) -> None:
    """A dropped upstream is told, connected again, and goes on where it was."""
    viewer = await smoke.watching("public", "sse")
    smoke.control({"upstream": "sse", "fault": "drop"})
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
    note(f"back after {back['at'] - dropped:.1f} s")


@row("a source that accepts and closes", slow=True)
async def test_accepts_and_closes(smoke: Smoke, note: Note) -> None:
    """It is met with pauses that grow, told once, and back when it holds."""
    smoke.control({"upstream": "sse", "fault": "accept-close"})
    before, began = smoke.control()["sse"]["ever"], time.monotonic()
    viewer = await smoke.own(stream("sse", f"{smoke.upstreams['sse_url']}?interval_ms=437", None, "telemetry"))
    error = await viewer.until(lambda frame: frame["type"] == "error")
    expect(error["message"] == "Upstream closed the connection at once", f"{error}")
    await settled(lambda: smoke.control()["sse"]["ever"] >= before + 4, 30.0, "four connects")
    took_s = time.monotonic() - began
    told = [frame for frame in viewer.frames if frame["type"] == "error"]
    # Who subscribes in the second in which it is told may hear it twice.
    expect(len(told) <= 2, f"told {len(told)} times")
    smoke.control({"upstream": "sse", "fault": "none"})
    await viewer.until(lambda frame: frame["type"] == "data", timeout_s=30.0)
    healed = time.monotonic()
    await viewer.until(
        lambda frame: frame["type"] == "status" and frame["status"] == "connected" and frame["at"] > error["at"],
        timeout_s=HELD_S + 10.0,
    )
    held_s = time.monotonic() - healed
    await viewer.close()
    note(f"4 connects in {took_s:.0f} s, told {len(told)} times, connected {held_s:.0f} s after the first value")


@row("an upstream that talks garbage")
async def test_garbage(smoke: Smoke, note: Note) -> None:
    """A payload that is not JSON is told; the stream goes on."""
    viewer = await smoke.watching("public", "websocket")
    smoke.control({"upstream": "websocket", "fault": "garbage", "for": 3})
    error = await viewer.until(lambda frame: frame["type"] == "error")
    await viewer.until(lambda frame: frame["type"] == "data" and frame["at"] > error["at"])
    await viewer.close()
    note(error["errorCode"])


@row("credentials of an upstream, right and wrong")
async def test_credential(smoke: Smoke, note: Note) -> None:
    """The right secret opens the upstream, the wrong one is told as such and not hammered."""
    viewer = await smoke.watching("public", "protected")
    await viewer.close()
    wrong = {"name": f"wrong {time.time_ns()}", "type": "bearer", "secret": {"token": "not the secret"}}
    wrong |= {"destinations": [origin(smoke.upstreams["sse_protected_url"])]}
    profile = smoke.user("admin").call("POST", "/api/credential-profiles", wrong | {"allowPublicUse": True})["id"]
    viewer = await smoke.own(stream("sse", smoke.upstreams["sse_protected_url"], profile, "telemetry"))
    error = await viewer.until(lambda frame: frame["type"] == "error")
    expect(error["errorCode"] == "STREAM_AUTH_FAILED", f"{error}")
    expect("not the secret" not in json.dumps(viewer.frames), "the secret was told")
    await viewer.close()
    note(error["errorCode"])


@row("an MQTT broker's password, right and wrong")
async def test_broker_password(smoke: Smoke, note: Note) -> None:
    """Over TLS with the right password there is data; the wrong one is told."""
    await (await smoke.watching("public", "external-protected")).close()
    admin, name = smoke.user("admin"), f"wrong {time.time_ns()}"
    wrong = basic_credential(admin, name, smoke.upstreams["username"], "not the password")
    broker = external_broker(admin, name, smoke.upstreams["mqtt_url"], wrong)
    viewer = await smoke.own(mqtt("telemetry", broker, "site/north/temperature"))
    error = await viewer.until(lambda frame: frame["type"] == "error")
    expect(error["errorCode"] == "STREAM_AUTH_FAILED", f"{error}")
    expect("not the password" not in json.dumps(viewer.frames), "the password was told")
    await viewer.close()
    note(error["errorCode"])


@row("streams of a broker share one connection")
async def test_one_broker_connection(smoke: Smoke, note: Note) -> None:
    """Streams of one broker and credential share one connection, on whatever dashboards they are."""

    def clients() -> set[str]:
        return {connection["id"] for connection in smoke.control()["mqtt"]["open"]}

    broker = external_broker(smoke.user("admin"), f"shared {time.time_ns()}", smoke.upstreams["mqtt_url"])
    before, viewers = clients(), list[Viewer]()
    for topic in ("site/north/temperature", "site/south/temperature", "site/+/temperature"):
        viewer = await smoke.own(mqtt("telemetry", broker, topic))
        await viewer.until(lambda frame: frame["type"] == "data" and not frame.get("retained"))
        viewers.append(viewer)
    more = len(clients() - before)
    expect(more == 1, f"{more} connections")
    for viewer in viewers:
        await viewer.close()
    note(f"{len(viewers)} streams, {more} connection")


@row("a broker that accepts and closes at once")
async def test_broker_closes_at_once(smoke: Smoke, note: Note) -> None:
    """Whom a broker accepts and disconnects, three times, is connected by the fourth attempt, and gets data."""
    broker = external_broker(smoke.user("admin"), f"closes {time.time_ns()}", smoke.upstreams["mqtt_url"])
    smoke.control({"upstream": "mqtt", "fault": "connack-close", "for": 3})
    viewer = await smoke.own(mqtt("telemetry", broker, "site/north/temperature"))
    error = await viewer.until(lambda frame: frame["type"] == "error")
    expect(error["errorCode"] == "STREAM_CONNECT_FAILED", f"{error}")
    data = await viewer.until(lambda frame: frame["type"] == "data" and frame["at"] > error["at"])
    expect(smoke.control()["mqtt"]["fault"]["fault"] == "none", "the broker still closes")
    await viewer.close()
    note(f"data {data['at'] - error['at']:.1f} s after the first fault")


@row("a broker that closes on a forbidden topic")
async def test_broker_closes_on_a_topic(smoke: Smoke, note: Note) -> None:
    """The datasource with the forbidden topic is refused, and another of the same broker goes on without a gap."""
    broker = external_broker(smoke.user("admin"), f"forbids {time.time_ns()}", smoke.upstreams["mqtt_url"])
    other = await smoke.own(mqtt("telemetry", broker, "site/north/temperature"))
    await other.until(lambda frame: frame["type"] == "data")
    viewer = await smoke.own(mqtt("telemetry", broker, "site/forbidden/temperature"))
    refused = await viewer.until(lambda frame: frame.get("errorCode") == "STREAM_AUTH_FAILED")
    fresh = await other.until(lambda frame: frame["type"] == "data" and frame["at"] > refused["at"])
    before = len([frame for frame in other.frames if frame["type"] == "error"])
    await other.until(lambda frame: frame["type"] == "data" and frame["at"] > fresh["at"] + 10)
    numbers = [frame["payload"]["n"] for frame in other.live("telemetry", since=fresh["at"])]
    expect(numbers == list(range(numbers[0], numbers[0] + len(numbers))), f"a gap: {numbers}")
    after = len([frame for frame in other.frames if frame["type"] == "error"])
    expect(after == before <= 1, f"{before} errors, then {after}")
    await viewer.close()
    await other.close()
    note(f"{refused['errorCode']}; {len(numbers)} values beside it, {before} break before")


@row("a retained value: shown to who comes, deleted, and back")
async def test_retained_and_deleted(smoke: Smoke, note: Note) -> None:
    """A value that was published before anybody watched is shown. When it is deleted, viewers are told once, and who
    comes later is shown nothing. A new value is a value."""
    url, topic = smoke.upstreams["mqtt_url"], f"site/{time.time_ns()}/temperature"
    broker = external_broker(smoke.user("admin"), f"retained {time.time_ns()}", url)

    async def publish(payload: bytes) -> None:
        address = urlsplit(url)
        async with aiomqtt.Client(str(address.hostname), address.port or 1883) as publisher:
            await publisher.publish(topic, payload, qos=1, retain=True)

    await publish(b'{"level": 1}')
    demo = smoke.dashboard(mqtt("telemetry", broker, topic))

    async def watch() -> Viewer:
        viewer = await smoke.viewer()
        ack = await viewer.subscribe(demo["dashboardId"], "telemetry", smoke.mint(smoke.user("editor"), demo))
        expect(ack["ok"], f"subscribe refused: {ack}")
        return viewer

    viewer = await watch()
    await viewer.data({"level": 1})
    late = await watch()
    await late.data({"level": 1})
    await publish(b"")
    for each in (viewer, late):
        gone = await each.data(None)
        expect(gone.get("deleted") is True, f"not told as deleted: {gone}")
    after = await watch()
    await after.until(lambda frame: frame["type"] == "status" and frame["status"] == "connected")
    await publish(b'{"level": 2}')
    await after.data({"level": 2})
    shown = [frame["payload"] for frame in after.frames if frame["type"] == "data"]
    expect(shown[0] == {"level": 2}, f"shown what was deleted: {shown}")
    deleted = [frame for frame in viewer.live("telemetry") if frame.get("deleted")]
    expect(len(deleted) == 1, f"told {len(deleted)} times that it is deleted")
    note("deleted once, told to both; who came later was shown the next value only")


@row("batches: what plain viewers get, in fewer messages")
async def test_batched(smoke: Smoke, note: Note) -> None:
    """Who asked for batches gets the streams that the others get, in fewer messages; who did not, never gets one."""
    editor, upstreams = smoke.user("editor"), smoke.upstreams
    broker = external_broker(smoke.user("admin"), f"batch {time.time_ns()}", upstreams["mqtt_url"])
    # Batches are a worker's, and there are two: of five lively streams three are of one, wherever they fall.
    lively = [stream("sse", f"{upstreams['sse_url']}?rate={rate}", None, f"sse{rate}") for rate in (8, 9, 10)]
    lively += [stream("websocket", f"{upstreams['websocket_url']}?rate={rate}", None, f"ws{rate}") for rate in (8, 9)]
    datasources = [*lively, mqtt("external", broker, "site/north/temperature")]
    made = editor.call("POST", "/api/dashboards", document("Batch", datasources))
    names = [str(datasource["id"]) for datasource in datasources]
    plain, batch = await smoke.viewer(), await smoke.viewer(batch=True)
    for name in names:
        token = smoke.mint(editor, {"dashboardId": made["id"]}, name)
        for viewer in (plain, batch):
            ack = await viewer.subscribe(made["id"], name, token)
            expect(ack["ok"], f"subscribe refused: {ack}")
    for viewer in (batch, plain):
        for name in names:
            await viewer.received(name, 3 if name == "external" else 30)
    await plain.close()
    await batch.close()
    conflated = 0
    for name in names:
        both = [[payload["n"] for payload in viewer.payloads(name)] for viewer in (plain, batch)]
        first, last = max(numbers[0] for numbers in both), min(numbers[-1] for numbers in both)
        seen, gathered = ([n for n in numbers if first <= n <= last] for numbers in both)
        for numbers in (gathered, seen):
            expect(numbers == sorted(set(numbers)), f"{name}: not in order, or twice: {numbers}")
        # A lively stream may conflate for one viewer and not for the other, when a send takes long on a busy machine.
        conflated += len(set(gathered) ^ set(seen))
        expect(name != "external" or gathered == seen, f"{name}: {gathered} beside {seen}")
    expect(plain.batches == 0 and len(plain.sizes) == len(plain.frames), f"{plain.batches} batches nobody asked for")
    expect(batch.batches and len(batch.sizes) < len(batch.frames), f"{batch.batches} of {len(batch.sizes)} messages")
    expect(max(batch.sizes) <= batches.MAX_BYTES, f"a message of {max(batch.sizes)} bytes")
    messages = f"{len(batch.frames)} frames in {len(batch.sizes)} messages, the largest {max(batch.sizes)} bytes"
    note(f"{messages}; {conflated} conflated for one of the two")


@row("refused: a port nobody allowed")
async def test_port_refused(smoke: Smoke, note: Note) -> None:
    """A port that is not on the list is refused before anything is connected to."""
    allowed = {urlsplit(smoke.upstreams[name]).port for name in ("sse_url", "mqtt_url", "mqtts_url")}
    port = next(port for port in itertools.count(min(filter(None, allowed))) if port not in allowed)
    url = f"http://127.0.0.1:{port}/stream"
    await (await smoke.own(stream("sse", url, None, "telemetry"), refused=True)).close()
    note("STREAM_POLICY_BLOCKED")


@row("refused: topics outside the allowlists")
async def test_topics_refused(smoke: Smoke, note: Note) -> None:
    """A topic outside the broker's allowlist, and one outside the gateway's."""
    broker = external_broker(smoke.user("admin"), f"topics {time.time_ns()}", smoke.upstreams["mqtt_url"])
    for topic in ("elsewhere/x", "site/north/humidity"):
        await (await smoke.own(mqtt("telemetry", broker, topic), refused=True)).close()
    note("STREAM_POLICY_BLOCKED")


@row("refused: addresses of cloud metadata")
async def test_metadata_refused(smoke: Smoke, note: Note) -> None:
    """Where cloud metadata is nothing connects to, though private addresses are allowed here."""
    for host in ("169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"):
        url = f"http://{host}/latest/meta-data"
        await (await smoke.own(stream("sse", url, None, "telemetry"), refused=True)).close()
    note("STREAM_POLICY_BLOCKED")
