"""A stand-in for the management API, whose answers the tests choose: no emulator can say 429 or hang up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

#: What to answer: a status, or None to hang up without an answer.
Answer = Callable[[str, str, int], int | None]


class ManagementServer:
    """`received` maps connection id to bodies; `answer(method, connection id, nth request)` decides."""

    def __init__(self) -> None:
        self.received: dict[str, list[bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.answer: Answer = lambda method, connection_id, nth: 200
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes: the second would wait for an acknowledgement

            def setup(self) -> None:
                super().setup()
                with outer._lock:
                    outer.connections += 1

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                connection_id = unquote(self.path.rpartition("/")[2])
                with outer._lock:
                    outer.paths.append(self.path)
                    outer.requests.append((self.command, connection_id))
                    outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                    nth = outer.requests.count((self.command, connection_id))
                status = outer.answer(self.command, connection_id, nth)
                if status is None:
                    self.close_connection = True
                    return
                if status == 200 and self.command == "POST":
                    with outer._lock:
                        outer.received.setdefault(connection_id, []).append(body)
                self.send_response(status)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_GET = do_DELETE = _handle  # noqa: N815

            def log_message(self, *_args: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_args: object) -> None:
                return

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/live"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def starts(self, function: str) -> int:
        """How often a function was asked for, where this also stands in for Lambda."""
        with self._lock:
            return self.paths.count(f"/2015-03-31/functions/{function}/invocations")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
