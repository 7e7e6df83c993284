"""A server of the browser protocol and of the API, in memory, for the Python client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from aiohttp import WSMsgType, web

Frame = dict[str, Any]
ALLOWED: Frame = {"state": "allowed", "errorCode": None, "message": None, "retryable": None, "retryAfterMs": None}


def refused(code: str, message: str, *, retryable: bool, retry_after_ms: int | None = None) -> Frame:
    """A verdict of `GET /api/realtime`."""
    return {
        "state": "refused",
        "errorCode": code,
        "message": message,
        "retryable": retryable,
        "retryAfterMs": retry_after_ms,
    }


def accept(datasource_id: str, _message: Frame) -> list[Frame]:
    """What the server usually answers."""
    return [
        {"type": "ack", "datasourceId": datasource_id, "ok": True},
        {"type": "status", "datasourceId": datasource_id, "status": "connected"},
    ]


@dataclass
class Server:
    """What it does is set by the test.

    Attributes:
        on_subscribe: the frames that answer a subscribe, of each datasource. None: the message is lost.
        handshake: the status of a handshake; 101 accepts.
        session: answers a call for a token: a status and a body. None: a new token.
        points: of the history; None: none is kept.
        deaf: it reads, and answers nothing.
        asked: the calls of the API, by the last part of the path, with their bodies.
        subscribes: the messages that came, over all connections.
        sockets: the connections, in order.
    """

    on_subscribe: Callable[[str, Frame], list[Frame]] = accept
    handshake: int = 101
    session: Callable[[], tuple[int, Frame]] | None = None
    verdict: Frame = field(default_factory=lambda: {"connect": ALLOWED, "subscribe": ALLOWED})
    points: list[Frame] | None = field(default_factory=list)
    deaf: bool = False
    ahead: timedelta = timedelta()
    life: timedelta = timedelta(seconds=300)
    url: str = ""
    asked: list[tuple[str, Any]] = field(default_factory=list)
    subscribes: list[Frame] = field(default_factory=list)
    pings: int = 0
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    numbers: Any = field(default_factory=lambda: count(1))

    def now(self, later: timedelta = timedelta()) -> str:
        return (datetime.now(UTC) + self.ahead + later).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def count(self, what: str) -> int:
        return len([1 for name, _ in self.asked if name == what])

    @property
    def socket(self) -> web.WebSocketResponse:
        return self.sockets[-1]

    async def push(self, *frames: Frame) -> None:
        """Send frames on the newest connection: in one batch when there are several."""
        await self.send(self.socket, *frames)

    async def send(self, socket: web.WebSocketResponse, *frames: Frame) -> None:
        stamped = [{"timestamp": self.now(), **frame} for frame in frames]
        await socket.send_json(stamped[0] if len(stamped) == 1 else {"type": "batch", "messages": stamped})

    async def value(self, payload: object, datasource_id: str = "temp", **more: object) -> None:
        number = f"{next(self.numbers):015}-m"
        await self.push({"type": "data", "datasourceId": datasource_id, "payload": payload, "seq": number, **more})

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(("handshake", None))
        if self.handshake != 101:
            return web.Response(status=self.handshake)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT and not self.deaf:
                await self._answer(socket, json.loads(message.data))
        return socket

    async def _answer(self, socket: web.WebSocketResponse, message: Frame) -> None:
        if message["type"] == "ping":
            self.pings += 1
            return await self.send(socket, {"type": "pong"})
        self.subscribes.append(message)
        frames = [frame for each in message["datasourceIds"] for frame in self.on_subscribe(each, message)]
        for frame in frames:
            if frame["type"] == "ack":
                frame["requestId"] = message["requestId"]
        if frames:
            await self.send(socket, *frames)
        return None

    async def _session(self, request: web.Request) -> web.Response:
        self.asked.append(("session", await request.json()))
        if self.session is not None:
            status, body = self.session()
            return web.json_response(body, status=status)
        return web.json_response(
            {
                "token": f"token-{self.count('session')}",
                "expiresAt": self.now(self.life),
                "refreshAfter": self.now(self.life * 0.6),
                "serverTime": self.now(),
            }
        )

    async def _verdict(self, request: web.Request) -> web.Response:
        self.asked.append(("realtime", request.headers.get("Authorization")))
        return web.json_response(self.verdict)

    async def _history(self, request: web.Request) -> web.Response:
        self.asked.append(("history", dict(request.query)))
        if self.points is None:
            return web.json_response({"error": {"code": "no_history", "message": "None is kept"}}, status=404)
        return web.json_response({"points": self.points})


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    """The server on a free port of loopback."""
    app = web.Application()
    app.router.add_get("/gateway/realtime", server._realtime)
    app.router.add_post("/api/dashboards/{id}/session", server._session)
    app.router.add_get("/api/dashboards/{id}/history", server._history)
    app.router.add_get("/api/realtime", server._verdict)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await asyncio.gather(*(socket.close() for socket in server.sockets if not socket.closed))
        await runner.cleanup()
