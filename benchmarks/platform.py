"""A stand-in for the platform's management API, in a process of its own so that its CPU is not counted.

Answers every POST and GET with 200 and every DELETE with 204, as fast as one Python process can. Prints its port.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_ANSWERS = {
    b"POST": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"GET": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    b"DELETE": b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
}


class _Answering(asyncio.Protocol):
    def __init__(self, delay_s: float) -> None:
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
            method = self._received.split(b" ", 1)[0]
            self._received = self._received[end + 4 + length :]
            if self._delay_s:
                asyncio.get_running_loop().call_later(self._delay_s, self._transport.write, _ANSWERS[method])
            else:
                self._transport.write(_ANSWERS[method])


async def _serve(delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answering(delay_s), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def platform(delay_ms: int = 0) -> Iterator[str]:
    """Its base URL while it runs; every answer takes `delay_ms`."""
    command = [sys.executable, "-m", "benchmarks.platform", str(delay_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]) / 1000))
