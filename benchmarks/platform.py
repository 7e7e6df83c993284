"""A stand-in for the platform's management API, in a process of its own so that its CPU is not counted.

Answers every POST and GET with 200 and every DELETE with 204, as fast as one Python process can. With an `Account` it
answers 429 to what is more than the account may do. Prints its port. `GET /counters` reports what was posted, see
`Counters`.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote

from fixtures.fake_upstreams import certificate

_ANSWERS = {
    b"POST": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"GET": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    b"DELETE": b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
}
_THROTTLED = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"
_COUNTERS = b"/counters"
_DATA = b'{"type":"data"'
#: A moment that is counted by itself, seconds: as long as a window of the send quota.
MOMENT_S = 0.1


@dataclass(frozen=True, slots=True)
class Account:
    """What an account may do, and whose messages are looked at more closely.

    Attributes:
        per_second: POSTs that are answered with 200. Half a second's may come at once, as with API Gateway, which has a
            bucket of 5,000 for 10,000 a second (Amazon API Gateway, "Quotas").
        watched: ids of connections of which each message is kept.
    """

    per_second: int
    watched: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Counters:
    """What was posted since the stand-in started.

    Attributes:
        data: connection id -> `data` frames it was sent.
        last: connection id -> the last of them, as it was posted.
        others: posts of anything else, to all connections together.
        cpu_s: CPU seconds of the stand-in.
        throttled: posts that were answered with 429. They are in no other figure.
        moments: number of a moment of `MOMENT_S`, counted from the epoch -> posts that were answered with 200. Only of
            an `Account`.
        watched: connection id -> when each `data` frame came, epoch seconds, and the frame.
    """

    data: Mapping[str, int]
    last: Mapping[str, str]
    others: int
    cpu_s: float
    throttled: int
    moments: Mapping[str, int]
    watched: Mapping[str, Sequence[tuple[float, str]]]

    @property
    def deliveries(self) -> int:
        """`data` frames of all connections."""
        return sum(self.data.values())


class _Posted:
    """Keeps what the counters are made of, by the request's target: nothing is decoded before somebody asks."""

    def __init__(self, account: Account | None) -> None:
        self._data: Counter[bytes] = Counter()
        self._last: dict[bytes, bytes] = {}
        self._others = self._throttled = 0
        self._moments: Counter[int] = Counter()
        self._watched: dict[str, list[tuple[float, str]]] = {name: [] for name in (account.watched if account else ())}
        self._per_second = account.per_second if account else 0
        self._left, self._filled_at = self._per_second / 2, time.time()

    def admits(self) -> bool:
        """Whether the account may do one more."""
        if not self._per_second:
            return True
        now = time.time()
        gained = (now - self._filled_at) * self._per_second
        self._left, self._filled_at = min(self._per_second / 2, self._left + gained), now
        if self._left < 1:
            self._throttled += 1
            return False
        self._left -= 1
        self._moments[int(now / MOMENT_S)] += 1
        return True

    def note(self, target: bytes, body: bytes) -> None:
        if body.startswith(_DATA):
            if self._watched and (frames := self._watched.get(_connection(target))) is not None:
                frames.append((time.time(), body.decode()))
            self._data[target] += 1
            self._last[target] = body
        else:
            self._others += 1

    def report(self) -> bytes:
        """The answer to `GET /counters`."""
        data = {_connection(target): number for target, number in self._data.items()}
        last = {_connection(target): body.decode() for target, body in self._last.items()}
        counters = Counters(
            data,
            last,
            self._others,
            time.process_time(),
            self._throttled,
            {str(at): count for at, count in self._moments.items()},
            self._watched,
        )
        body = json.dumps(asdict(counters)).encode()
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
            answer = _ANSWERS[method]
            if method == b"POST" and not self._posted.admits():
                answer = _THROTTLED
            elif method == b"POST":
                self._posted.note(target, body)
            if self._delay_s:
                asyncio.get_running_loop().call_later(self._delay_s, self._transport.write, answer)
            else:
                self._transport.write(answer)


async def _serve(delay_s: float, tls: ssl.SSLContext | None, account: Account | None) -> None:
    loop, posted = asyncio.get_running_loop(), _Posted(account)
    server = await loop.create_server(lambda: _Answering(delay_s, posted), "127.0.0.1", 0, backlog=1024, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def platform(delay_ms: int = 0, *, certificates: Path | None = None, account: Account | None = None) -> Iterator[str]:
    """Its base URL while it runs; every answer takes `delay_ms`.

    With `certificates`, a folder, it speaks TLS, and `ca.pem` there is whom to trust. Without an `account` it answers
    whatever comes.
    """
    command = [sys.executable, "-m", "benchmarks.platform", str(delay_ms), str(certificates or "")]
    command += [] if account is None else [json.dumps(asdict(account))]
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


def _main(delay_ms: str, certificates: str, account: str = "null") -> None:
    tls = certificate.make(Path(certificates))[1] if certificates else None
    given = json.loads(account)
    asyncio.run(_serve(int(delay_ms) / 1000, tls, Account(**given) if given else None))


if __name__ == "__main__":
    _main(*sys.argv[1:])
