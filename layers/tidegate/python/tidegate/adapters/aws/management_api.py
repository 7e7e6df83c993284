"""The managed WebSocket's management API (`@connections`): post, look, close; one at a time or many at once.

Many at once is one thread over many kept-alive sockets: each socket carries one request at a time, an epoll tells
which answered. Why our own: this is the product's hot path, and an SDK spends some forty times the CPU on a post.

Invariant of this file: a socket whose answer was not read whole is closed, never reused, so an answer can never be
taken for another post's.
"""

from __future__ import annotations

import heapq
import random
import selectors
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic, time
from urllib.parse import quote, urlsplit

from tidegate.adapters.aws.http import HttpClient, NotAnswered, tls_context
from tidegate.adapters.aws.sigv4 import Credentials, Signer
from tidegate.domain.errors import CouldNotCheck
from tidegate.ports import Delivery, Observer, Post, Posted

_SERVICE = "execute-api"
_TIMEOUT_S = 10.0
_ATTEMPTS = 4
_BASE_DELAY_S = 0.05
#: With a server that takes 10 ms, more sockets than these gain little and cost memory on the far side.
_MAX_SOCKETS = 128
#: Posts a socket should have to do before another one is opened.
_POSTS_PER_SOCKET = 4

_BY_STATUS = {
    200: Delivery.DELIVERED,
    403: Delivery.FORBIDDEN,
    410: Delivery.GONE,
    413: Delivery.TOO_LARGE,
    429: Delivery.THROTTLED,
}


def _delivery(status: int) -> Delivery:
    return _BY_STATUS.get(status, Delivery.FAILED)


@dataclass(order=True, slots=True)
class _Attempt:
    """One post on its way. Ordered by when it is due, monotonic seconds."""

    due: float
    number: int
    post: Post = field(compare=False)
    tries: int = field(default=0, compare=False)
    last: Delivery = field(default=Delivery.FAILED, compare=False)


class _Channel:
    """One socket and the answer it is waiting for."""

    __slots__ = ("attempt", "incoming", "outgoing", "reused", "socket")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.attempt: _Attempt | None = None
        self.outgoing = b""
        self.incoming = b""
        self.reused = False

    def flush(self) -> bool:
        """Write what fits. True when all is written."""
        while self.outgoing:
            try:
                sent = self.socket.send(self.outgoing)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return False
            self.outgoing = self.outgoing[sent:]
        return True

    def answer(self) -> tuple[int, bool] | None:
        """(status, keep alive) once the whole answer is here, None before. Raises `ConnectionError` when it ended."""
        while True:
            try:
                chunk = self.socket.recv(16_384)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            if not chunk:
                raise ConnectionError("closed by the server")
            self.incoming += chunk
            parsed = parse_answer(self.incoming)
            if parsed is not None:
                status, keep, length = parsed
                keep = keep and length == len(self.incoming)
                self.incoming = b""
                return status, keep


def parse_answer(data: bytes) -> tuple[int, bool, int] | None:
    """(status, keep alive, bytes it took) of a whole HTTP/1.1 answer at the head of `data`, None when more is needed.

    Raises:
        ConnectionError: not an HTTP/1.x answer, or without a length.
    """
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        if len(data) > 65_536:
            raise ConnectionError("answer head too long")
        return None
    lines = data[:head_end].lower().split(b"\r\n")
    parts = lines[0].split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"http/1.") or not parts[1].isdigit():
        raise ConnectionError("not an HTTP answer")
    status = int(parts[1])
    headers = dict(line.split(b":", 1) for line in lines[1:] if b":" in line)
    keep = headers.get(b"connection", b"").strip() != b"close" and parts[0] == b"http/1.1"
    body_start = head_end + 4
    if headers.get(b"transfer-encoding", b"").strip() == b"chunked":
        end = _chunks_end(data, body_start)
        return None if end is None else (status, keep, end)
    length = headers.get(b"content-length", b"").strip()
    if not length.isdigit():
        if status == 204:
            return status, keep, body_start
        raise ConnectionError("answer without a length")
    end = body_start + int(length)
    return (status, keep, end) if len(data) >= end else None


def _chunks_end(data: bytes, at: int) -> int | None:
    while True:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return None
        try:
            size = int(data[at:line_end].split(b";")[0], 16)
        except ValueError as error:
            raise ConnectionError("bad chunk") from error
        at = line_end + 2 + size + 2
        if len(data) < at:
            return None
        if size == 0:
            return at


class ManagementApi:
    """`ports.Sender`."""

    def __init__(self, endpoint: str, *, region: str, credentials: Credentials, observer: Observer) -> None:
        """`endpoint` is the stage's callback URL, for example `https://id.execute-api.eu-west-1.amazonaws.com/live`."""
        self._http = HttpClient(endpoint)
        self._signer = Signer(credentials, region, _SERVICE)
        self._observer = observer
        parts = urlsplit(endpoint)
        self._tls = parts.scheme == "https"
        self._address = (parts.hostname or "", parts.port or (443 if self._tls else 80))
        self._idle: list[_Channel] = []

    # --- one at a time ------------------------------------------------------------------------------------

    def post(self, connection_id: str, body: bytes) -> Delivery:
        return self.post_many([Post(connection_id, body)])[0].delivery

    def exists(self, connection_id: str) -> bool:
        """Raises `CouldNotCheck` when the platform did not say."""
        try:
            status = self._request("GET", connection_id)
        except NotAnswered as error:
            raise CouldNotCheck("The platform did not answer") from error
        if status in (200, 410):
            return status == 200
        raise CouldNotCheck("The platform did not say", code=f"status_{status}")

    def close(self, connection_id: str) -> None:
        try:
            status = self._request("DELETE", connection_id)
        except NotAnswered:
            status = 0
        if status not in (200, 204, 410):
            # Closing is a courtesy; whoever needs it certain asks again (the full pass does).
            self._observer.count("connections_not_closed")

    def _request(self, method: str, connection_id: str) -> int:
        path = self._path(connection_id)
        headers = self._signer.headers(method, self._http.host, path, b"", time())
        return self._http.request(method, path, headers, b"", monotonic() + _TIMEOUT_S).status

    # --- many at once -------------------------------------------------------------------------------------

    def post_many(
        self,
        posts: Iterable[Post],
        *,
        before_each: Callable[[Post], Post | None] | None = None,
        deadline: float | None = None,
    ) -> Sequence[Posted]:
        """See `ports.Sender`. Without `deadline` (monotonic seconds) ten seconds are enough for all."""
        waiting = [_Attempt(0.0, number, post) for number, post in enumerate(posts)]
        if not waiting:
            return []
        run = _Run(self, waiting, before_each, monotonic() + _TIMEOUT_S if deadline is None else deadline)
        return run.all()

    def _path(self, connection_id: str) -> str:
        return f"{self._http.prefix}/@connections/{quote(connection_id, safe='')}"

    def encoded(self, post: Post) -> bytes:
        """The signed request as bytes."""
        path = self._path(post.connection_id)
        headers = self._signer.headers("POST", self._http.host, path, post.body, time())
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {path} HTTP/1.1\r\n{lines}content-length: {len(post.body)}\r\n\r\n".encode() + post.body

    def take_channel(self) -> _Channel | None:
        while self._idle:
            channel = self._idle.pop()
            try:  # a server that closed meanwhile left an end of file, or something nobody asked for
                channel.socket.recv(1)
            except (BlockingIOError, ssl.SSLWantReadError):
                channel.reused = True
                return channel
            except OSError:
                pass
            channel.socket.close()
        return None

    def open_channel(self, deadline: float) -> _Channel:
        """Raises `OSError`."""
        timeout = max(0.001, min(_TIMEOUT_S, deadline - monotonic()))
        connected = socket.create_connection(self._address, timeout=timeout)
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connected = tls_context().wrap_socket(connected, server_hostname=self._address[0])
            connected.setblocking(False)
        except OSError:
            connected.close()
            raise
        return _Channel(connected)

    def give_back(self, channel: _Channel) -> None:
        channel.attempt = None
        if len(self._idle) < _MAX_SOCKETS:
            self._idle.append(channel)
        else:
            channel.socket.close()


class _Run:
    """One `post_many`."""

    def __init__(
        self,
        api: ManagementApi,
        waiting: list[_Attempt],
        before_each: Callable[[Post], Post | None] | None,
        deadline: float,
    ) -> None:
        self._api = api
        self._before_each = before_each
        self._deadline = deadline
        self._total = len(waiting)
        self._attempts = tuple(waiting)
        self._waiting = waiting  # a heap by due time; sorted as given, so valid from the start
        self._results: list[Posted | None] = [None] * self._total
        self._done = 0
        self._selector = selectors.DefaultSelector()
        self._busy = 0
        self._wanted = min(_MAX_SOCKETS, 1 + (self._total - 1) // _POSTS_PER_SOCKET)

    def all(self) -> list[Posted]:
        with self._selector:
            try:
                while self._done < self._total and monotonic() < self._deadline:
                    self._start_due()
                    self._wait()
            finally:
                for key in list(self._selector.get_map().values()):
                    key.data.socket.close()
        for attempt in self._attempts:
            self._finish(attempt, attempt.last)
        return [result for result in self._results if result is not None]

    def _start_due(self) -> None:
        now = monotonic()
        while self._waiting and self._busy < self._wanted and self._waiting[0].due <= now:
            attempt = heapq.heappop(self._waiting)
            post = attempt.post if self._before_each is None else self._before_each(attempt.post)
            if post is None:
                self._finish(attempt, Delivery.WITHHELD)
            else:
                self._start(attempt, post)

    def _start(self, attempt: _Attempt, post: Post) -> None:
        attempt.tries += 1
        try:
            channel = self._api.take_channel() or self._api.open_channel(self._deadline)
        except OSError:
            self._retry(attempt, Delivery.FAILED)
            return
        channel.attempt, channel.outgoing = attempt, self._api.encoded(post)
        try:
            written = channel.flush()
        except OSError:
            channel.socket.close()
            self._lost(channel)
            return
        events = selectors.EVENT_READ if written else selectors.EVENT_READ | selectors.EVENT_WRITE
        self._selector.register(channel.socket, events, channel)
        self._busy += 1

    def _wait(self) -> None:
        if self._done == self._total:
            return
        until = self._deadline
        if self._waiting and self._busy < self._wanted:
            until = min(until, self._waiting[0].due)
        timeout = max(0.0, until - monotonic())
        for key, _ in self._selector.select(timeout):
            self._progress(key.data)

    def _progress(self, channel: _Channel) -> None:
        try:
            if channel.outgoing:
                if not channel.flush():
                    return
                self._selector.modify(channel.socket, selectors.EVENT_READ, channel)
            answered = channel.answer()
        except (OSError, ssl.SSLError):
            self._drop(channel)
            self._lost(channel)
            return
        if answered is None:
            return
        status, keep = answered
        attempt = channel.attempt
        assert attempt is not None
        if keep:
            self._selector.unregister(channel.socket)
            self._busy -= 1
            self._api.give_back(channel)
        else:
            self._drop(channel)
        delivery = _delivery(status)
        if delivery in (Delivery.THROTTLED, Delivery.FAILED) and (status >= 500 or status == 429):
            self._retry(attempt, delivery)
        else:
            self._finish(attempt, delivery)

    def _drop(self, channel: _Channel) -> None:
        self._selector.unregister(channel.socket)
        channel.socket.close()
        self._busy -= 1

    def _lost(self, channel: _Channel) -> None:
        """The socket ended without an answer. A kept one was most likely closed before it read the request."""
        attempt = channel.attempt
        assert attempt is not None
        if channel.reused:
            attempt.tries -= 1
        self._retry(attempt, Delivery.FAILED)

    def _retry(self, attempt: _Attempt, outcome: Delivery) -> None:
        attempt.last = outcome
        if attempt.tries >= _ATTEMPTS:
            self._finish(attempt, outcome)
            return
        attempt.due = monotonic() + random.uniform(0, _BASE_DELAY_S * 2**attempt.tries)
        heapq.heappush(self._waiting, attempt)

    def _finish(self, attempt: _Attempt, outcome: Delivery) -> None:
        if self._results[attempt.number] is None:
            self._results[attempt.number] = Posted(attempt.post, outcome)
            self._done += 1
