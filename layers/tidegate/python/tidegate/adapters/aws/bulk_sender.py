"""Sends many messages at once, with one thread over kept-alive sockets. A message is sent by an HTTP POST.

Each socket carries one request at a time. A selector tells which sockets have an answer. This is our own code because
it is the product's hot path: an SDK spends tens of times the CPU on a POST.

A message that is not answered soon keeps no other message waiting: more sockets are opened, and in the end the message
is given up.

Invariant of this file: a socket whose answer was not read whole is closed and never reused. So an answer is never
taken for the answer to another message.
"""

from __future__ import annotations

import heapq
import random
import re
import selectors
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

from tidegate.adapters.aws.http import NotAnswered, tls_context
from tidegate.ports.delivery import Delivery, M, OutboundQueue, Sendable

_ATTEMPTS = 4
_BASE_DELAY_S = 0.05
#: How long an answer may take, seconds. After that nobody knows whether the message was delivered, so it is not sent
#: again.
ANSWER_S = 3.0
_CONNECT_S = 3.0
#: A message without an answer for so long, seconds, is stuck: its socket is not expected to be free soon.
_STUCK_S = 0.05
#: Sockets that are not stuck. With a server that takes 10 ms they carry some 16,000 messages a second, which is more
#: than one core signs and sends.
BUSY_SOCKETS = 192
#: All sockets, stuck ones included. A function has 1,024 file descriptors for everything.
_MAX_SOCKETS = 320
#: Messages per socket before another socket is opened.
_POSTS_PER_SOCKET = 4
_NEVER = float("inf")

#: The headers of an answer that say where it ends. The head is in lower case.
_HEADERS = re.compile(rb"\r\n(content-length|connection|transfer-encoding):[ \t]*([^\r\n]*[^\r\n \t])")

_BY_STATUS = {
    200: Delivery.DELIVERED,
    403: Delivery.FORBIDDEN,
    410: Delivery.GONE,
    413: Delivery.TOO_LARGE,
    429: Delivery.THROTTLED,
}


class _Channel:
    """One socket, and the message on it that waits for its answer; None when the socket is idle.

    `tries` counts how often the message was sent, this time included. `last` is the result of the time before.
    """

    __slots__ = ("incoming", "last", "message", "outgoing", "reused", "socket", "started", "tries")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.message: Sendable | None = None
        self.tries = 0
        self.last = Delivery.FAILED
        self.outgoing = b""
        self.incoming = b""
        self.reused = False
        self.started = 0.0

    def flush(self) -> bool:
        """Write as much as the socket takes. True when all is written."""
        while self.outgoing:
            try:
                sent = self.socket.send(self.outgoing)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return False
            self.outgoing = self.outgoing[sent:]
        return True

    def answer(self) -> tuple[int, bool] | None:
        """(status, keep alive) once the whole answer is here; None before that.

        Raises:
            ConnectionError: the server closed the socket, or sent what is not an answer to our request.
        """
        while True:
            try:
                chunk = self.socket.recv(16_384)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            if not chunk:
                raise ConnectionError("closed by the server")
            if self.message is None:
                raise ConnectionError("an answer nobody asked for")
            self.incoming += chunk
            parsed = parse_answer(self.incoming)
            if parsed is not None:
                status, keep, length = parsed
                keep = keep and length == len(self.incoming)
                self.incoming = b""
                return status, keep


def parse_answer(data: bytes) -> tuple[int, bool, int] | None:
    """(status, keep alive, bytes) of the HTTP/1.x answer that `data` begins with; None while it is not whole.

    Raises:
        ConnectionError: it is not an HTTP/1.x answer, or states no length.
    """
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        if len(data) > 65_536:
            raise ConnectionError("answer head too long")
        return None
    head = data[: head_end + 2].lower()
    # Nearly all answers are like this. To look for two words anywhere costs half of reading the headers.
    if (
        head.startswith(b"http/1.1 200 ")
        and b"\r\ncontent-length: 0\r\n" in head
        and b"close" not in head
        and b"chunked" not in head
    ):
        return 200, True, head_end + 4
    if not head.startswith(b"http/1.") or head[8:9] != b" " or not head[9:12].isdigit() or head[12:13].isalnum():
        raise ConnectionError("not an HTTP answer")
    status, body_start = int(head[9:12]), head_end + 4
    headers = dict(_HEADERS.findall(head))
    keep = head[7:8] == b"1" and headers.get(b"connection") != b"close"
    length = headers.get(b"content-length", b"")
    if headers.get(b"transfer-encoding") == b"chunked":
        end = _chunks_end(data, body_start)
        return None if end is None else (status, keep, end)
    if not length.isdigit():
        if status == 204:
            return status, keep, body_start
        raise ConnectionError("answer without a length")
    body_end = body_start + int(length)
    return (status, keep, body_end) if len(data) >= body_end else None


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


class _Retry(NamedTuple):
    """A message to be sent again. The one that is due first compares as the smallest.

    `due` is monotonic seconds. `number` orders messages that are due at the same moment. `tries` and `last` are as on
    a channel.
    """

    due: float
    number: int
    message: Sendable
    tries: int
    last: Delivery


class BulkSender:
    """The sockets to one address. `send` is for one thread at a time."""

    def __init__(self, host: str, port: int, *, tls: bool, encoded: Callable[[Sendable], bytes]) -> None:
        """`encoded` makes the HTTP request for a message. Its `NotAnswered` is tried again, as a lost message is."""
        self._address = (host, port)
        self._tls = tls
        self._encoded = encoded
        self._selector: selectors.BaseSelector | None = None
        self._idle: list[_Channel] = []
        self._flying: dict[_Channel, None] = {}  # with a request under way, in the order they started
        self._retries: list[_Retry] = []
        self._retried = 0
        self._asleep = False
        self._waking: tuple[socket.socket, socket.socket] | None = None

    def send(self, outgoing: OutboundQueue[M], deadline: float = _NEVER) -> None:
        """Send until the queue has ended and all is answered. At `deadline` (monotonic seconds) give up the messages
        that were taken and not yet answered."""
        if self._selector is None:
            self._begin()
        self._progress(0)  # drops the sockets that the server closed meanwhile
        try:
            while True:
                now = monotonic()
                self._expire(outgoing, now)
                self._start(outgoing, now)
                if self._finished(outgoing, now):
                    return
                if now >= deadline:
                    return
                self._wait(outgoing, now, deadline)
        finally:
            self._give_up(outgoing)

    def wake(self) -> None:
        """Make a waiting `send` look at its queue again. Safe from any thread."""
        waking = self._waking
        if self._asleep and waking is not None:
            self._asleep = False
            with suppress(OSError):  # the pipe is full, so it is awake already; or the sender was ended meanwhile
                waking[1].send(b"\0")

    def end(self) -> None:
        """Close all sockets. The next `send` opens new ones."""
        if self._selector is None or self._waking is None:
            return
        for channel in self._idle:
            channel.socket.close()
        for waking in self._waking:
            waking.close()
        self._selector.close()
        self._idle, self._selector, self._waking = [], None, None

    # --- starting -----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._waking = socket.socketpair()
        for end in self._waking:
            end.setblocking(False)
        self._selector.register(self._waking[0], selectors.EVENT_READ, None)

    def _finished(self, outgoing: OutboundQueue[Any], now: float) -> bool:
        nothing_under_way = not self._flying and not self._retries
        return nothing_under_way and outgoing.ended and not outgoing.ready(now) and outgoing.due is None

    def _start(self, outgoing: OutboundQueue[Any], now: float) -> None:
        while self._retries and self._retries[0].due <= now and self._room(outgoing, now):
            retry = heapq.heappop(self._retries)
            self._try(outgoing, retry.message, retry.tries, retry.last, now)
        while True:
            # Sockets that are idle may all be used. Without one, each message is worth a look whether to open it.
            count = min(len(self._idle), BUSY_SOCKETS - len(self._flying)) or self._room(outgoing, now)
            if count < 1:
                return
            for _ in range(count):
                message = outgoing.take(now)
                if message is None:
                    return
                self._try(outgoing, message, 0, Delivery.FAILED, now)

    def _room(self, outgoing: OutboundQueue[Any], now: float) -> bool:
        """Whether another message may be under way."""
        flying, limit = len(self._flying), BUSY_SOCKETS
        if not self._idle:  # it would need a new socket
            limit = min(limit, 1 + (outgoing.ready(now) + len(self._retries) + flying) // _POSTS_PER_SOCKET)
        return flying < limit or flying < min(limit + self._stuck(now), _MAX_SOCKETS)

    def _stuck(self, now: float) -> int:
        count = 0
        for channel in self._flying:
            if channel.started > now - _STUCK_S:
                break
            count += 1
        return count

    def _try(self, outgoing: OutboundQueue[Any], message: Sendable, tries: int, last: Delivery, now: float) -> None:
        sent: Sendable | None = outgoing.before(message)
        if sent is None:
            return
        try:
            request = self._encoded(sent)
            channel = self._idle.pop() if self._idle else self._open()
        except (OSError, NotAnswered):
            self._again(outgoing, sent, tries + 1, Delivery.FAILED)
            return
        channel.message, channel.tries, channel.last = sent, tries + 1, last
        channel.outgoing, channel.started = request, now
        self._flying[channel] = None
        try:
            if not channel.flush():
                self._watch(channel, selectors.EVENT_READ | selectors.EVENT_WRITE)
        except OSError:
            self._lost(outgoing, channel)

    def _open(self) -> _Channel:
        """Raises `OSError`."""
        connected = socket.create_connection(self._address, timeout=_CONNECT_S)
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connected = tls_context().wrap_socket(connected, server_hostname=self._address[0])
            connected.setblocking(False)
        except OSError:
            connected.close()
            raise
        channel = _Channel(connected)
        assert self._selector is not None
        self._selector.register(connected, selectors.EVENT_READ, channel)
        return channel

    def _watch(self, channel: _Channel, events: int) -> None:
        assert self._selector is not None
        self._selector.modify(channel.socket, events, channel)

    # --- waiting ------------------------------------------------------------------------------------------

    def _wait(self, outgoing: OutboundQueue[Any], now: float, deadline: float) -> None:
        self._asleep = True  # set before the queue is looked at: what is added after that look wakes us
        until = deadline
        if self._retries and self._room(outgoing, now):
            until = min(until, self._retries[0].due)
        if (due := outgoing.due) is not None:
            until = min(until, due)
        if self._flying:
            until = min(until, next(iter(self._flying)).started + ANSWER_S)
            if outgoing.ready(now) or self._retries:  # when the next socket gets stuck, another one may be opened
                stuck = self._stuck(now)
                waited = next((channel.started for n, channel in enumerate(self._flying) if n == stuck), _NEVER)
                until = min(until, waited + _STUCK_S)
        if self._finished(outgoing, now) or (outgoing.ready(now) and self._room(outgoing, now)):
            until = now
        self._progress(max(0.0, until - monotonic()) if until < _NEVER else None, outgoing)
        self._asleep = False

    def _progress(self, timeout: float | None, outgoing: OutboundQueue[Any] | None = None) -> None:
        assert self._selector is not None and self._waking is not None
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._waking[0].recv(4096)
            else:
                self._advance(key.data, outgoing)

    def _advance(self, channel: _Channel, outgoing: OutboundQueue[Any] | None) -> None:
        try:
            if channel.outgoing:
                if not channel.flush():
                    return
                self._watch(channel, selectors.EVENT_READ)
            answered = channel.answer()
        except (OSError, ssl.SSLError):
            self._lost(outgoing, channel)
            return
        if answered is None:
            return
        status, keep = answered
        message, tries = channel.message, channel.tries
        assert message is not None and outgoing is not None
        self._flying.pop(channel, None)
        if keep and len(self._idle) < BUSY_SOCKETS:
            channel.message, channel.reused = None, True
            self._idle.append(channel)
        else:
            self._drop(channel)
        delivery = _BY_STATUS.get(status, Delivery.FAILED)
        if status == 429:
            outgoing.throttled()
        if status == 429 or status >= 500:
            self._again(outgoing, message, tries, delivery)
        else:
            outgoing.answered(message, delivery)

    # --- what goes wrong ----------------------------------------------------------------------------------

    def _drop(self, channel: _Channel) -> None:
        assert self._selector is not None
        self._selector.unregister(channel.socket)
        channel.socket.close()
        self._flying.pop(channel, None)

    def _lost(self, outgoing: OutboundQueue[Any] | None, channel: _Channel) -> None:
        """The socket ended without an answer. A reused one was most likely closed before the server read the request,
        so this try does not count."""
        message = channel.message
        self._drop(channel)
        if message is None:
            self._idle.remove(channel)
            return
        assert outgoing is not None
        self._again(outgoing, message, channel.tries - channel.reused, Delivery.FAILED)

    def _again(self, outgoing: OutboundQueue[Any], message: Sendable, tries: int, outcome: Delivery) -> None:
        if tries >= _ATTEMPTS:
            outgoing.answered(message, outcome)
            return
        due = monotonic() + random.uniform(0, _BASE_DELAY_S * 2**tries)
        self._retried += 1
        heapq.heappush(self._retries, _Retry(due, self._retried, message, tries, outcome))

    def _expire(self, outgoing: OutboundQueue[Any], now: float) -> None:
        while self._flying:
            channel = next(iter(self._flying))
            if channel.started > now - ANSWER_S:
                return
            self._abandon(outgoing, channel)

    def _abandon(self, outgoing: OutboundQueue[Any], channel: _Channel) -> None:
        assert channel.message is not None
        self._drop(channel)
        outgoing.answered(channel.message, channel.last)

    def _give_up(self, outgoing: OutboundQueue[Any]) -> None:
        """Give up all that is under way or waits to be sent again: the time is over, or an error ended `send`."""
        for channel in list(self._flying):
            self._abandon(outgoing, channel)
        retries, self._retries = self._retries, []
        for retry in retries:
            outgoing.answered(retry.message, retry.last)
