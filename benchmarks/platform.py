"""A stand-in for the platform's management API, in a process of its own so that its CPU is not counted.

Answers every POST and GET with 200 and every DELETE with 204, as fast as one Python process can. Prints its port.
`GET /counters` reports what was posted, see `Counters`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from fixtures.fake_upstreams import certificate

_ANSWERS = {
    b"POST": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"GET": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    b"DELETE": b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
}
_COUNTERS = b"/counters"
_DATA = b'{"type":"data"'


@dataclass(frozen=True, slots=True)
class Counters:
    """What was posted since the stand-in started.

    Attributes:
        data: connection id -> `data` frames it was sent.
        last: connection id -> the last of them, as it was posted.
        others: posts of anything else, to all connections together.
        cpu_s: CPU seconds of the stand-in.
    """

    data: Mapping[str, int]
    last: Mapping[str, str]
    others: int
    cpu_s: float

    @property
    def deliveries(self) -> int:
        """`data` frames of all connections."""
        return sum(self.data.values())


class _Posted:
    """Keeps what the counters are made of, by the request's target: nothing is decoded before somebody asks."""

    def __init__(self) -> None:
        self._data: Counter[bytes] = Counter()
        self._last: dict[bytes, bytes] = {}
        self._others = 0

    def note(self, target: bytes, body: bytes) -> None:
        if body.startswith(_DATA):
            self._data[target] += 1
            self._last[target] = body
        else:
            self._others += 1

    def report(self) -> bytes:
        """The answer to `GET /counters`."""
        data = {_connection(target): number for target, number in self._data.items()}
        last = {_connection(target): body.decode() for target, body in self._last.items()}
        counters = {"data": data, "last": last, "others": self._others, "cpu_s": time.process_time()}
        body = json.dumps(counters).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _connection(target: bytes) -> str:
    return unquote(target.rpartition(b"/")[2].decode())


class _Answering(asyncio.Protocol):
    def __init__(self, delay_s: float, posted: _Posted) -> None:
        self._posted = posted
        self._received = b""
        self._delay_s = delay_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._received) < end + 4 + length:
                return
            method, target, _ = self._received[:end].split(b" ", 2)
            body = self._received[end + 4 : end + 4 + length]
            self._received = self._received[end + 4 + length :]
            if target == _COUNTERS:
                self._transport.write(self._posted.report())
                continue
            if method == b"POST":
                self._posted.note(target, body)
            if self._delay_s:
                asyncio.get_running_loop().call_later(self._delay_s, self._transport.write, _ANSWERS[method])
            else:
                self._transport.write(_ANSWERS[method])


async def _serve(delay_s: float, tls: ssl.SSLContext | None) -> None:
    loop, posted = asyncio.get_running_loop(), _Posted()
    server = await loop.create_server(lambda: _Answering(delay_s, posted), "127.0.0.1", 0, backlog=1024, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def platform(delay_ms: int = 0, *, certificates: Path | None = None) -> Iterator[str]:
    """Its base URL while it runs; every answer takes `delay_ms`.

    With `certificates`, a folder, it speaks TLS, and `ca.pem` there is whom to trust.
    """
    command = [sys.executable, "-m", "benchmarks.platform", str(delay_ms)]
    command += [] if certificates is None else [str(certificates)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"{'http' if certificates is None else 'https'}://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


def counters(url: str) -> Counters:
    """The counters of the stand-in at a base URL."""
    with urllib.request.urlopen(f"{url}/counters", timeout=10) as answer:
        return Counters(**json.loads(answer.read()))


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]) / 1000, certificate.make(Path(sys.argv[2]))[1] if sys.argv[2:] else None))
