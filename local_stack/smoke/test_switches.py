"""What an operator switches off while viewers are there: they are told and ended, and nobody comes until it is on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import websockets

from local_stack.checks import expect
from local_stack.relay_workers import (
    API,
    BRIDGE,
    CONNECT,
    MESSAGES,
    RELAY,
    REPLACED_S,
    REVALIDATION,
    LocalRelayWorkers,
)
from local_stack.schedule import paused
from local_stack.smoke.client import Note, Smoke
from local_stack.smoke.rows import row
from local_stack.smoke.test_relay_workers import data_again
from local_stack.viewer import Viewer

#: How long a run of the schedule may take to end everybody, seconds: the two minutes of the docs, without the minute in
#: which the schedule waits.
_ENDED_S = 60.0


@contextmanager
def _off(smoke: Smoke, workers: LocalRelayWorkers, switch: str, *handlers: str) -> Iterator[None]:
    """The switch is off in these functions. No schedule fires meanwhile but the row's: the emulator ends functions that
    are changed while they run, and a full revalidation that is ended keeps its lease."""
    with paused(smoke.stack), workers.settings({switch: "false"}, *handlers):
        yield


async def _ended(viewer: Viewer, text: str) -> float:
    """Await that the subscription ends, and the viewer is told why; returns when, monotonic seconds.

    Before that a relay may tell that its stream is off, for the same reason.
    """
    error = await viewer.until(lambda frame: frame["type"] == "error" and "reason" in frame, _ENDED_S)
    told = {(each["errorCode"], each["message"]) for each in viewer.frames if each["type"] == "error"}
    expect(told == {("STREAM_POLICY_BLOCKED", text)}, f"{told}")
    expect(error["retryable"] is False, f"{error}")
    status = await viewer.until(lambda frame: frame["type"] == "status" and frame["status"] == "error")
    expect(status["errorCode"] == "STREAM_POLICY_BLOCKED", f"{status}")
    return float(error["at"])


async def _receives(smoke: Smoke, viewer: Viewer) -> None:
    """What the device publishes reaches the viewer."""
    wanted = smoke.payload()
    await smoke.publish(smoke.stack["demo"]["public"]["topic"], wanted)
    await viewer.data(wanted)


@row("switched off: MQTT of IoT Core", slow=True)
async def test_mqtt(smoke: Smoke, note: Note) -> None:
    """Nothing but the full revalidation tells these viewers: the bridge only idles. Other protocols go on."""
    workers, demo = LocalRelayWorkers(smoke.stack), smoke.stack["demo"]["public"]
    viewer = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo), demo)
    other = await smoke.watching("public", "sse")
    await _receives(smoke, viewer)
    with _off(smoke, workers, "REALTIME_MQTT_ENABLED", API, MESSAGES, BRIDGE, REVALIDATION):
        ack = await smoke.refused(smoke.mint(smoke.anonymous(), demo), demo["dashboardId"])
        expect(ack["errorCode"] == "STREAM_POLICY_BLOCKED" and ack["retryable"] is False, f"{ack}")
        expect(not [frame for frame in viewer.frames if frame["type"] == "error"], "told before the schedule")
        started = time.monotonic()
        workers.schedule()
        took = await _ended(viewer, "MQTT protocol is disabled") - started
        await data_again(other)
        await viewer.open_still()
    await viewer.close()
    back = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo), demo)
    await _receives(smoke, back)
    await data_again(other)
    expect(not [frame for frame in other.frames if frame["type"] == "error"], "the other protocol was interrupted")
    await back.close()
    await other.close()
    note(f"told {took:.1f} s after the schedule; {ack['errorCode']}; on again, data again")


@row("switched off: realtime", slow=True)
async def test_realtime(smoke: Smoke, note: Note) -> None:
    """Everybody is told, every connection ends, and neither a handshake nor a subscribe succeeds."""
    workers, demo = LocalRelayWorkers(smoke.stack), smoke.stack["demo"]["public"]
    viewer = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo), demo)
    relayed = await smoke.watching("public", "websocket")
    waiting = await smoke.viewer()
    await _receives(smoke, viewer)
    with _off(smoke, workers, "REALTIME_ENABLED", CONNECT, MESSAGES, BRIDGE, RELAY, REVALIDATION):
        token = smoke.mint(smoke.anonymous(), demo)
        ack = await waiting.subscribe(demo["dashboardId"], "telemetry", token)
        expect(not ack["ok"] and ack["errorCode"] == "STREAM_POLICY_BLOCKED", f"{ack}")
        expect(ack["message"] == "Realtime is disabled" and ack["retryable"] is False, f"{ack}")
        try:
            await smoke.viewer()
        except websockets.InvalidStatus as refused:
            handshake = refused.response.status_code
        else:
            handshake = 101
        expect(handshake in (403, 404), f"the handshake was answered {handshake}")  # the emulator makes each a 403
        started = time.monotonic()
        workers.schedule()
        took = max([await _ended(each, "Realtime is disabled") for each in (viewer, relayed)]) - started
        for each in (viewer, relayed, waiting):
            await each.closed(_ENDED_S)
    workers.schedule()
    back = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo), demo)
    await _receives(smoke, back)
    again = await smoke.viewer()
    ack = await again.subscribe(demo["dashboardId"], "websocket", smoke.mint(smoke.anonymous(), demo, "websocket"))
    expect(ack["ok"], f"{ack}")
    await data_again(again, within_s=REPLACED_S)
    await back.close()
    await again.close()
    note(f"told {took:.1f} s after the schedule; handshake {handshake}; on again, data again")
