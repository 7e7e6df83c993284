"""What sources really do wrong, and what becomes of it: SSE and WebSockets against the fake upstreams."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from aiohttp import web

from tests.contracts.test_upstreams import fault_of, request, sources, take, upstreams
from tests.contracts.test_upstreams import run as bounded
from tests.fake_upstreams.tools import FAST, RunningUpstreams, run
from tidegate.adapters.upstreams import aiohttp_streams
from tidegate.adapters.upstreams.aiohttp_streams import AiohttpUpstreams
from tidegate.adapters.upstreams.resolving import LOOKUPS, resolve
from tidegate.domain.egress import EgressPolicy
from tidegate.ports.relay import Opened, SignOfLife, UpstreamEvent, UpstreamFault, UpstreamMessage, UpstreamRequest
from tidegate.protocol.messages import ErrorCode

SECRET = "s3cret-of-the-sources"
PAGE = (ErrorCode.PROTOCOL_ERROR, "Upstream is not an event stream", False)


@asynccontextmanager
async def adapter(running: RunningUpstreams) -> AsyncIterator[AiohttpUpstreams]:
    async with upstreams(int(urlsplit(running.at.sse_url).port or 0)) as made:
        yield made


def sse(running: RunningUpstreams, query: str = f"?rate={FAST['rate']}") -> UpstreamRequest:
    return request(running.at.sse_url + query)


def websocket(running: RunningUpstreams) -> UpstreamRequest:
    return request(f"{running.at.websocket_url}?rate={FAST['rate']}", "websocket")


def told(fault: UpstreamFault) -> tuple[ErrorCode, str, bool]:
    return fault.code, fault.text, fault.refused


def messages(events: list[UpstreamEvent]) -> list[UpstreamMessage]:
    return [event for event in events if isinstance(event, UpstreamMessage)]


@asynccontextmanager
async def answering(
    handle: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[tuple[str, AiohttpUpstreams]]:
    """(URL, adapter) of a server with this handler."""
    app = web.Application()
    app.router.add_get("/", handle)
    async with sources(app) as (port, _), upstreams(port) as made:
        yield f"http://127.0.0.1:{port}/", made


@asynccontextmanager
async def wire(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """The port of a server of bytes. Connections that are open at the end are cut."""
    open_now: list[asyncio.StreamWriter] = []

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.append(writer)
        with suppress(ConnectionError):
            await serve(reader, writer)

    server = await asyncio.start_server(count, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in open_now:
            writer.transport.abort()


async def upgraded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a WebSocket's handshake."""
    head = await reader.readuntil(b"\r\n\r\n")
    key = next(
        line.partition(b":")[2].strip() for line in head.splitlines() if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(
        hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    )
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    await writer.drain()


# --- what the peer sends does not poison the next request ---------------------------------------------------


@pytest.mark.parametrize("fault", ["poison-id", "long-id"])
def test_an_id_that_cannot_be_sent_ends_nothing(tmp_path: Path, fault: str) -> None:
    """Also the next worker, which reads it from the last value, connects."""

    async def test(running: RunningUpstreams) -> None:
        async with adapter(running) as made:
            await running.fault("sse", fault, **{"for": 1})
            (first,) = messages(await take(made, sse(running), 2))
            assert (first.message_id and not first.message_id.isdigit()) or len(first.message_id) == 9_000
            opened, further = await take(made, sse(running), 2, last_id=first.message_id)
            assert opened == Opened() and isinstance(further, UpstreamMessage)
            assert further.message_id.isdigit()

    run(tmp_path, test)


@pytest.mark.parametrize("status", [400, 413, 431])
def test_a_server_that_refuses_an_id_is_asked_once_without(status: int) -> None:
    async def work() -> None:
        asked: list[str | None] = []

        async def handle(asking: web.Request) -> web.StreamResponse:
            asked.append(asking.headers.get("Last-Event-ID"))
            if asked[-1] is not None:
                return web.Response(status=status)
            return web.Response(text="data: 1\n\n", content_type="text/event-stream")

        async with answering(handle) as (url, made):
            assert await take(made, request(url), 2, last_id="7") == [Opened(), UpstreamMessage(b"1")]
        assert asked == ["7", None]

    bounded(work)


def test_a_server_that_closes_on_a_large_id_is_asked_once_without() -> None:
    async def work() -> None:
        asked: list[bool] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(b"last-event-id" in (await reader.readuntil(b"\r\n\r\n")).lower())
            if not asked[-1]:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
                await writer.drain()
            writer.close()

        async with wire(serve) as port, upstreams(port) as made:
            url = f"http://127.0.0.1:{port}/"
            assert await take(made, request(url), 2, last_id="7" * 2000) == [Opened(), UpstreamMessage(b"1")]
            assert asked == [True, False]
            with pytest.raises(UpstreamFault, match="without an answer"):
                await take(made, request(url), 1, last_id="7")
            assert asked == [True, False, True], "a usual id is not what it closes on"

    bounded(work)


def test_an_id_arrives_as_it_was_given() -> None:
    async def work() -> None:
        asked: list[str | None] = []

        async def handle(asking: web.Request) -> web.StreamResponse:
            asked.append(asking.headers.get("Last-Event-ID"))
            return web.Response(text="data: 1\n\n", content_type="text/event-stream")

        async with answering(handle) as (url, made):
            for last_id in ("7", "é/ü 5", "", "a\x7fb", " a"):
                await take(made, request(url, headers={"last-event-id": "of the datasource"}), 1, last_id=last_id)
        assert asked == ["7", "é/ü 5", None, None, None]

    bounded(work)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_last_id_survives_a_redirect_to_another_host_and_headers_do_not(tmp_path: Path, status: int) -> None:
    async def test(running: RunningUpstreams) -> None:
        port = int(urlsplit(running.at.sse_url).port or 0)

        async def here(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        policy = EgressPolicy((), (port,), allow_private=True, production=False)
        made = AiohttpUpstreams(policy, connect_timeout_s=2, ping_interval_s=5, max_bytes=1000, resolve=here)
        target = quote(f"http://b.example.com:{port}/stream?rate=200&after=5")
        url = f"http://a.example.com:{port}/redirect?to={target}&status={status}"
        asked = request(url, headers={"Authorization": f"Bearer {SECRET}"})
        (first,) = messages(await take(made, asked, 2, last_id="400"))
        await made.close()
        assert first.message_id == "401"
        report = await running.report("sse")
        assert report["last_event_id"] == "400" and report["authorization"] == {"with": 0, "without": 1}

    run(tmp_path, test)


# --- what the peer declares ---------------------------------------------------------------------------------


def test_a_page_is_no_event_stream(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with adapter(running) as made:
            await running.fault("sse", "html")
            assert told(await fault_of(made, sse(running))) == PAGE
            await running.fault("websocket", "html")
            fault = await fault_of(made, websocket(running))
            assert told(fault) == (ErrorCode.PROTOCOL_ERROR, "Upstream is not a WebSocket", False)

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("status", "content_type", "is_stream"),
    [
        (200, "text/event-stream", True),
        (200, "Text/Event-Stream;charset=utf-8", True),
        (200, "text/event-stream ; charset=UTF-8; x=y", True),
        (200, "text/event-streams", False),
        (200, "application/json", False),
        (200, "", False),
        (202, "text/event-stream", False),
        (206, "text/event-stream", False),
    ],
)
def test_an_event_stream_is_declared(status: int, content_type: str, is_stream: bool) -> None:
    async def work() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            declared = f"Content-Type: {content_type}\r\n" if content_type else ""
            writer.write(f"HTTP/1.1 {status} OK\r\n{declared}\r\ndata: 1\n\n".encode())
            await writer.drain()
            writer.close()

        async with wire(serve) as port, upstreams(port) as made:
            asked = request(f"http://127.0.0.1:{port}/")
            if is_stream:
                assert await take(made, asked, 2) == [Opened(), UpstreamMessage(b"1")]
            else:
                assert told(await fault_of(made, asked)) == PAGE

    bounded(work)


def test_204_is_the_end(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with adapter(running) as made:
            await running.fault("sse", "refuse", status=204)
            fault = await fault_of(made, sse(running))
            assert fault.over and fault.text == "Upstream has ended the stream"

    run(tmp_path, test)


@pytest.mark.parametrize("status", [429, 503])
def test_who_is_refused_hears_for_how_long(tmp_path: Path, status: int) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with adapter(running) as made:
            for upstream, asked in (("sse", sse(running)), ("websocket", websocket(running))):
                await running.fault(upstream, "refuse", status=status, retryAfter=20)
                assert (await fault_of(made, asked)).retry_after_ms == 20_000
                await running.fault(upstream, "refuse", status=status)
                assert (await fault_of(made, asked)).retry_after_ms == 0

    run(tmp_path, test)


def test_retry_after_may_be_a_date() -> None:
    async def work() -> None:
        async def handle(_: web.Request) -> web.StreamResponse:
            now = datetime(1999, 1, 1, tzinfo=UTC)
            later = format_datetime(now + timedelta(seconds=20), usegmt=True)
            headers = {"Date": format_datetime(now, usegmt=True), "Retry-After": later}
            return web.Response(status=503, headers=headers)

        async with answering(handle) as (url, made):
            assert (await fault_of(made, request(url))).retry_after_ms == 20_000

    bounded(work)


def test_large_headers_are_taken(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with adapter(running) as made:
            for upstream, asked in (("sse", sse(running)), ("websocket", websocket(running))):
                await running.fault(upstream, "large-headers")
                assert len(messages(await take(made, asked, 2))) == 1

    run(tmp_path, test)


@pytest.mark.parametrize(("size", "taken"), [(64_000, True), (70_000, False)])
def test_headers_have_a_limit_that_is_told(size: int, taken: bool) -> None:
    async def work() -> None:
        async def handle(_: web.Request) -> web.StreamResponse:
            return web.Response(text="data: 1\n\n", content_type="text/event-stream", headers={"X": "x" * size})

        async with answering(handle) as (url, made):
            if taken:
                assert await take(made, request(url), 2) == [Opened(), UpstreamMessage(b"1")]
            else:
                fault = await fault_of(made, request(url))
                text = "Upstream sends headers that are too large"
                assert told(fault) == (ErrorCode.PROTOCOL_ERROR, text, False)

    bounded(work)


@pytest.mark.parametrize("fault", ["none", "keep-alive"])
def test_an_upgrade_may_stand_beside_other_options(tmp_path: Path, fault: str) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with adapter(running) as made:
            await running.fault("websocket", fault)
            assert len(messages(await take(made, websocket(running), 2))) == 1

    run(tmp_path, test)


def test_what_went_wrong_is_told() -> None:
    async def work() -> None:
        async def nowhere(_host: str, _port: int) -> list[str]:
            raise OSError("no such name")

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.close()

        async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
            writer.close()

        async with wire(silent) as port, upstreams(port, resolver=nowhere) as lost, upstreams(port) as made:
            gone = await fault_of(made, request(f"http://127.0.0.1:{port}/"))
            name = await fault_of(lost, request(f"http://nowhere.example.com:{port}/"))
            tls = await fault_of(made, request(f"https://127.0.0.1:{port}/"))
        async with wire(nonsense) as port, upstreams(port) as made:
            not_tls = await fault_of(made, request(f"https://127.0.0.1:{port}/"))
            not_http = await fault_of(made, request(f"http://127.0.0.1:{port}/"))
        assert told(gone) == (ErrorCode.CONNECT_FAILED, "Upstream closed the connection without an answer", False)
        assert told(name) == (ErrorCode.CONNECT_FAILED, "Upstream's name has no address", False)
        for fault in (tls, not_tls):
            assert fault.code is ErrorCode.CONNECT_FAILED
        assert not_tls.text == "Upstream's TLS or its certificate is not valid"
        assert told(not_http) == (ErrorCode.PROTOCOL_ERROR, "Upstream does not speak HTTP as it should", False)

    bounded(work)


# --- signs of life ------------------------------------------------------------------------------------------


def test_what_is_empty_is_a_sign_of_life(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with adapter(running) as made:
            await running.fault("sse", "empty", **{"for": 2})
            events = await take(made, sse(running), 4)
            assert [type(event) for event in events] == [Opened, SignOfLife, SignOfLife, UpstreamMessage]
            ids = [int(event.message_id) for event in events[1:] if not isinstance(event, Opened)]  # type: ignore[union-attr]
            assert ids == [ids[0], ids[0] + 1, ids[0] + 2], "a reconnect goes on behind it"
            await running.fault("websocket", "empty", **{"for": 1})
            events = await take(made, websocket(running), 3)
            assert [type(event) for event in events] == [Opened, SignOfLife, UpstreamMessage]

    run(tmp_path, test)


# --- every wait has an end ----------------------------------------------------------------------------------


def test_a_websocket_that_never_stops_sending_can_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not answer the close, and sends on. Only the other side's silence ended the library's wait."""
    monkeypatch.setattr(aiohttp_streams, "_CLOSE_S", 0.3)

    async def work() -> None:
        left = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await upgraded(reader, writer)
            try:
                while True:
                    writer.write(b"\x81\x01x")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            finally:
                left.set()

        async with wire(talk) as port, upstreams(port) as made:
            events = made.open(request(f"ws://127.0.0.1:{port}/", "websocket"), "")
            assert [await anext(events), await anext(events)] == [Opened(), UpstreamMessage(b"x")]
            async with asyncio.timeout(5):
                await events.aclose()  # type: ignore[attr-defined]
                await left.wait()

    bounded(work)


def test_a_websocket_that_pings_and_does_not_read_is_idle() -> None:
    """Nothing reads the pongs, so at some time one cannot be written."""

    async def work() -> None:
        async def ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await upgraded(reader, writer)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            while True:
                writer.write((b"\x89\x7d" + b"p" * 125) * 500)
                await writer.drain()

        async with wire(ping) as port, upstreams(port) as made:
            asked = request(f"ws://127.0.0.1:{port}/", "websocket", idle_timeout_s=0.5)
            with pytest.raises(UpstreamFault) as fault:
                async for _ in made.open(asked, ""):
                    pass
            assert fault.value.code is ErrorCode.IDLE_TIMEOUT

    bounded(work)


def test_name_servers_that_do_not_answer_leave_threads_for_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    resolved = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]

    def hang(*_args: object, **_options: object) -> list[Any]:
        assert answered.wait(20)
        return resolved

    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        lookups = [asyncio.create_task(resolve("slow.example.com", 80)) for _ in range(2 * LOOKUPS)]
        await asyncio.sleep(0)  # each has asked
        try:
            async with asyncio.timeout(5):
                assert await asyncio.to_thread(lambda: "renewed") == "renewed"
        finally:
            answered.set()
        assert await asyncio.gather(*lookups) == [["127.0.0.1"]] * (2 * LOOKUPS)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    bounded(work)
