"""The API by which messages are sent to viewers, in front of the emulator's, which takes no more when it is told to."""

from __future__ import annotations

import http.client
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

#: How long the emulator may take for an answer, seconds.
_ANSWER_S = 30.0
#: As API Gateway says that it throttles (PostToConnection, `LimitExceededException`).
_REFUSAL = b'{"message": "Too Many Requests"}'


class BusyPlatform:
    """Listens on loopback as soon as it is made, and passes everything on until it is `busy`.

    Attributes:
        url: where functions find the API.
        busy: set while each message to a viewer is answered 429.
    """

    def __init__(self, target: str) -> None:
        """`target`: the emulator's URL."""
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self.busy = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """The answer to a request."""
        if method == "POST" and self.busy.is_set():
            return 429, _REFUSAL
        asked = http.client.HTTPConnection(*self._target, timeout=_ANSWER_S)
        try:
            asked.request(method, path, body, headers)
            answer = asked.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 502, b""
        finally:
            asked.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_args: object) -> None:
        """A function that has hung up is no news here."""


def _handler_of(platform: BusyPlatform) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes: the second would wait for an acknowledgement

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, answer = platform.answer(self.command, self.path, dict(self.headers.items()), body)
            with suppress(OSError):
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        do_POST = do_GET = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_args: object) -> None:
            return

    return Handler
