"""What a device may do, and what the MQTT port takes."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import Counter
from typing import Any

from local_stack.checks import expect
from local_stack.device_queue import gathering
from local_stack.publisher import NotPublished, Publisher
from local_stack.relay_workers import BRIDGE, LocalRelayWorkers
from local_stack.seed import OWN, mqtt
from local_stack.smoke.client import Note, Smoke
from local_stack.smoke.rows import row
from local_stack.viewer import Viewer

#: How long the port may take to end a connection, seconds.
_END_S = 10.0
#: Of the crowd: its viewers, the values that are published, and the send quota: sends a second.
CROWD, VALUES, QUOTA = 40, 50, 200
#: Topics of the batched row, and values of each.
FAST_TOPICS, FAST_VALUES = 5, 3
#: MQTT 3.1.1 CONNECT: clean session, keep-alive 30 s, client id "demo-device".
_CONNECT = b"\x10\x17\x00\x04MQTT\x04\x02\x00\x1e\x00\x0bdemo-device"


@row("refused: device that publishes for another")
async def test_for_another(smoke: Smoke, note: Note) -> None:
    """The policy ties topics to the thing. The viewer of all things sees its own values only."""
    part = f"scene/{time.time_ns()}"
    thing = smoke.stack["mqtt"]["client_id"]
    demo = smoke.dashboard(mqtt("telemetry", smoke.stack["demo"]["brokers"]["public"], f"demo/+/{part}"))
    viewer = await smoke.subscribed(smoke.mint(smoke.user("editor"), demo), demo)
    forged, own = smoke.payload(), smoke.payload()

    def forge() -> str:
        with Publisher(smoke.stack["mqtt"]) as device:
            try:
                device.publish(f"demo/another/{part}", str(forged))
            except NotPublished as error:
                return str(error)
        return ""

    refusal = await asyncio.to_thread(forge)
    expect(refusal, "the broker took a message for another thing")
    await smoke.publish(f"demo/{thing}/{part}", own)
    await viewer.data(own)
    received = [frame for frame in viewer.frames if frame["type"] == "data"]
    expect(len(received) == 1, f"{received}")
    await viewer.close()
    note(refusal)


@row("refused: MQTT without a certificate")
async def test_no_certificate(smoke: Smoke, note: Note) -> None:
    """The very CONNECT that is taken from the demo device is not even read from who has no certificate."""
    settings = smoke.stack["mqtt"]
    anonymous = ssl.create_default_context(cafile=settings["ca"])
    device = ssl.create_default_context(cafile=settings["ca"])
    device.load_cert_chain(settings["certificate"], settings["private_key"])

    def answer_to(context: ssl.SSLContext) -> bytes:
        address = (settings["host"], settings["port"])
        try:
            with (
                socket.create_connection(address, timeout=_END_S) as plain,
                context.wrap_socket(plain, server_hostname=settings["host"]) as secured,
            ):
                secured.sendall(_CONNECT)
                return secured.recv(4)
        except (ssl.SSLError, ConnectionError):
            return b""

    taken = await asyncio.to_thread(answer_to, device)
    expect(taken == b"\x20\x02\x00\x00", f"the demo device was answered {taken!r}")
    refused = await asyncio.to_thread(answer_to, anonymous)
    expect(not refused, f"answered {refused!r}")
    note("no answer")


@row("a batched topic: several topics in one message")
async def test_batched(smoke: Smoke, note: Note) -> None:
    """By rule, queue and bridge: the newest value of each topic, to who asked for batch frames and who did not."""
    own = f"{OWN}/fast/{time.time_ns()}"
    demo = smoke.dashboard(mqtt("telemetry", smoke.stack["demo"]["brokers"]["public"], f"{own}/+"))
    token = smoke.mint(smoke.user("editor"), demo)
    viewers = [await smoke.viewer(batch=batch) for batch in (True, False)]
    for viewer in viewers:
        ack = await viewer.subscribe(demo["dashboardId"], "telemetry", token)
        expect(ack["ok"], f"{ack}")
    batching, plain = viewers
    with gathering(smoke.stack, FAST_TOPICS * FAST_VALUES):
        for number in range(FAST_VALUES):
            for topic in range(FAST_TOPICS):
                await smoke.publish(f"{own}/{topic}", str(number))
    newest = {f"{own}/{topic}": FAST_VALUES - 1 for topic in range(FAST_TOPICS)}
    # A catch-up may bring the values before the batch does, in a message that counts for nothing here.
    for viewer, most in ((batching, 2), (plain, 0)):
        await viewer.until(
            lambda _, viewer=viewer, most=most: _last(viewer) == newest and _batched(viewer) >= most,  # type: ignore[misc]
            30,
        )
    expect(not plain.batches, "a batch frame for somebody who did not ask for any")
    together, published = _batched(batching), FAST_VALUES * FAST_TOPICS
    note(f"{published} published, {len(plain.live('telemetry'))} seen, up to {together} in one message")
    for viewer in viewers:
        await viewer.close()


@row("a quiet device beside a crowded one", slow=True)
async def test_quiet_beside_crowded(smoke: Smoke, note: Note) -> None:
    """The crowd wants twice the send quota. It sees fewer values, and the newest last; the quiet one is not delayed."""
    broker = smoke.stack["demo"]["brokers"]["public"]
    crowd, quiet = (smoke.dashboard(mqtt("telemetry", broker, f"{OWN}/{name}")) for name in ("crowd", "quiet"))
    editor = smoke.user("editor")
    workers = LocalRelayWorkers(smoke.stack)
    with workers.settings({"REALTIME_MAX_SENDS_PER_SECOND": str(QUOTA)}, BRIDGE):
        watching = await smoke.subscribed(smoke.mint(editor, quiet), quiet)
        token = smoke.mint(editor, crowd)
        viewers = [await smoke.subscribed(token, crowd) for _ in range(CROWD)]
        alone = [await _delay(smoke, watching, number) for number in range(3)]
        busy = asyncio.create_task(_publish_steadily(smoke))
        beside: list[float] = []
        while not busy.done():
            beside.append(await _delay(smoke, watching, 100 + len(beside)))
            await asyncio.sleep(0.3)
        await busy
        for viewer in viewers:
            await viewer.until(lambda frame: frame["type"] == "data" and frame["payload"] == VALUES - 1, 20)
    for viewer in viewers:
        shown = [frame["payload"] for frame in viewer.frames if frame["type"] == "data" and not frame.get("retained")]
        expect(shown == sorted(shown), f"an older value after a newer one: {shown}")
    seen = [len([frame for frame in viewer.frames if frame["type"] == "data"]) for viewer in viewers]
    expect(max(seen) < VALUES, "there was no shortage")
    expect(sorted(beside)[len(beside) // 2] < 1, f"{beside}")
    for viewer in (*viewers, watching):
        await viewer.close()
    middle = [sorted(delays)[len(delays) // 2] * 1000 for delays in (alone, beside)]
    note(f"{middle[0]:.0f} ms alone, {middle[1]:.0f} ms beside; the crowd saw {min(seen)} to {max(seen)} of {VALUES}")


def _last(viewer: Viewer) -> dict[str, Any]:
    """The value of each topic that the viewer was sent last."""
    return {frame["topic"]: frame["payload"] for frame in viewer.frames if frame["type"] == "data"}


def _batched(viewer: Viewer) -> int:
    """Most values that came in one message, if that were several; else 0."""
    together = Counter(frame["at"] for frame in viewer.live("telemetry"))
    most = max(together.values(), default=0)
    return most if most > 1 else 0


async def _publish_steadily(smoke: Smoke) -> None:
    """Ten values a second."""
    for number in range(VALUES):
        began = time.monotonic()
        await smoke.publish(f"{OWN}/crowd", str(number))
        await asyncio.sleep(max(0.0, began + 0.1 - time.monotonic()))


async def _delay(smoke: Smoke, watching: Viewer, number: int) -> float:
    """From publishing a value of the quiet device until it is there, seconds."""
    began = time.monotonic()
    await smoke.publish(f"{OWN}/quiet", str(number))
    frame = await watching.until(lambda frame: frame["type"] == "data" and frame["payload"] == number, 20)
    return float(frame["at"]) - began
