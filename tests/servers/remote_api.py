"""A remote API on a real socket, whose answers the tests choose: it can fail, be slow, drip, and hang up."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.body)
        return loaded


@dataclass(frozen=True)
class Answer:
    """One answer.

    `how`: `whole`; `close` (whole, and the connection ends); `late` (not before the server is closed); `drip` and
    `drip_head` (a byte of the body or of the headers now and then, without end); `hang_up` (none); `cut_off` (half).
    """

    status: int = 200
    body: object = None
    how: str = "whole"

    @property
    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body or {}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    api: RemoteApiServer

    def handle_error(self, *_args: object) -> None:
        return  # clients that hang up are what the tests are about


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def _api(self) -> RemoteApiServer:
        assert isinstance(self.server, _Server)
        return self.server.api

    def setup(self) -> None:
        super().setup()
        self._api.came(connections=1)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        self._api.came(request)
        self._send(self._api.answer(request))

    def _send(self, answer: Answer) -> None:
        if answer.how == "late":
            self._api.closing.wait()
        if answer.how in ("late", "hang_up"):
            self.close_connection = True
            return
        if answer.how == "drip_head":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
            self._drip()
        body = answer.encoded
        self.send_response(answer.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if answer.how == "close":
            self.send_header("connection", "close")
        self.end_headers()
        if answer.how == "drip":
            self._drip()
        elif answer.how == "cut_off":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _drip(self) -> None:
        while not self._api.closing.wait(0.02):
            self.wfile.write(b"x")

    def log_message(self, *_args: object) -> None:
        return


class RemoteApiServer:
    """`answer(request)` decides; `requests` are those that came; `closing` is set when the server ends."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.answer: Callable[[Request], Answer] = lambda request: Answer()
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_port}/base"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def came(self, *requests: Request, connections: int = 0) -> None:
        """Note what came."""
        with self._lock:
            self.requests += requests
            self.connections += connections

    def asked(self, path: str) -> list[Request]:
        """The requests whose path ends so."""
        return [request for request in self.requests if request.path.endswith(path)]

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
