"""What a device may do, and what the MQTT port takes."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

from local_stack.checks import expect
from local_stack.publisher import NotPublished, Publisher
from local_stack.seed import mqtt
from local_stack.smoke.client import Note, Smoke
from local_stack.smoke.rows import row

#: How long the port may take to end a connection, seconds.
_END_S = 10.0
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
