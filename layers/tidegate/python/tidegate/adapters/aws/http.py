"""A pooled, blocking HTTP/1.1 client, and where AWS endpoints are.

Invariants of this file: a connection goes back to the pool only after its answer was read whole; in any doubt it is
closed. A deadline holds for the whole call, however slowly the server sends.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
from collections.abc import Mapping
from functools import cache
from time import monotonic
from typing import NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    """Status and body of an HTTP answer."""

    status: int
    body: bytes


class NotAnswered(Exception):
    """There was no usable answer.

    Attributes:
        sent: whether the request may have reached the server.
        late: whether time ran out.
    """

    def __init__(self, reason: str, *, sent: bool, late: bool = False) -> None:
        super().__init__(reason)
        self.sent = sent
        self.late = late


def endpoint_url(service: str, region: str, env: Mapping[str, str] | None = None) -> str:
    """Base URL of a service.

    It is taken from `AWS_ENDPOINT_URL_<SERVICE>` or `AWS_ENDPOINT_URL`, the variables that SDKs use as well. Without
    them it is the region's own endpoint.
    """
    env = os.environ if env is None else env
    override = env.get(f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}") or env.get("AWS_ENDPOINT_URL")
    if override:
        return override.rstrip("/")
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://{service}.{region}.{suffix}"


@cache
def tls_context() -> ssl.SSLContext:
    """The default context, which verifies certificates. Made once: loading the trust store takes milliseconds."""
    return ssl.create_default_context()


class _TimedSocket:
    """The part of a socket that `http.client` uses. No wait is longer than the time left for the call.

    A socket's own timeout is for a single read. A server that sends a byte now and then would keep a call for ever.
    """

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self.deadline = 0.0

    def sendall(self, data: bytes) -> None:
        self.wait()
        self._inner.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        # `http.client` closes the socket before it reads an answer that ends the connection. The socket stays open
        # until this file is closed as well.
        raw = self._inner.makefile("rb", buffering=0)
        assert isinstance(raw, io.RawIOBase)
        return io.BufferedReader(_Incoming(self, raw))

    def close(self) -> None:
        self._inner.close()

    def wait(self) -> None:
        """Let the next operation wait for the time that is left. Raises `TimeoutError` when none is left."""
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        self._inner.settimeout(left)


class _Incoming(io.RawIOBase):
    def __init__(self, timed: _TimedSocket, raw: io.RawIOBase) -> None:
        self._timed = timed
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        self._timed.wait()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class HttpClient:
    """Requests to one origin, over kept-alive connections. Safe to use from several threads."""

    def __init__(self, base_url: str, *, connect_timeout_s: float = 2.0, max_body: int | None = None) -> None:
        """`max_body`: largest accepted answer, bytes. None accepts any size."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http(s) URL: {base_url!r}")
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port or (443 if self._tls else 80)
        self._connect_timeout_s = connect_timeout_s
        self._max_body = max_body
        self._idle: list[tuple[http.client.HTTPConnection, _TimedSocket]] = []
        self.host = parts.netloc.rpartition("@")[2]
        self.prefix = parts.path.rstrip("/")

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: float,
        *,
        kept_alive_s: float | None = None,
    ) -> Answer:
        """Send one request. An answer that is lost is not asked for again.

        Args:
            deadline: monotonic seconds by which the answer must be there.
            kept_alive_s: most seconds for an answer over a kept-alive connection; None for all the time there is. A
                connection that takes longer is closed, and with it all that are idle, because what silenced one has
                probably silenced them too. The next request opens a fresh one.

        Raises:
            NotAnswered: the connection was refused, lost or too slow, or the answer was cut off or too large.
        """
        kept = self._take()
        while True:
            if monotonic() >= deadline:
                raise NotAnswered("deadline passed", sent=False, late=True)
            connection, timed = kept or self._connect(deadline)
            timed.deadline = deadline
            if kept and kept_alive_s is not None:
                timed.deadline = min(deadline, monotonic() + kept_alive_s)
            try:
                connection.request(method, path, body=body, headers=dict(headers))
                response = connection.getresponse()
                answer = Answer(response.status, self._body_of(response))
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
                connection.close()
                if not kept:
                    raise NotAnswered(type(error).__name__, sent=True) from error
                # The server had already closed the kept-alive connection, so it did not read the request.
                kept = None
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                raise self._lost(error, kept is not None) from error
            else:
                if response.will_close:
                    connection.close()
                else:
                    self._idle.append((connection, timed))
                return answer

    def _lost(self, error: Exception, kept: bool) -> NotAnswered:
        late = isinstance(error, TimeoutError)
        if late and kept:
            while (idle := self._take()) is not None:
                idle[0].close()
        return NotAnswered(type(error).__name__, sent=True, late=late)

    def _body_of(self, response: http.client.HTTPResponse) -> bytes:
        if self._max_body is None:
            return response.read()
        body = response.read(self._max_body + 1)
        if len(body) > self._max_body:
            raise http.client.HTTPException("answer too large")
        if response.length:  # unlike `read()`, `read(n)` raises no error when bytes are missing
            raise http.client.IncompleteRead(body, response.length)
        return body

    def _take(self) -> tuple[http.client.HTTPConnection, _TimedSocket] | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connect(self, deadline: float) -> tuple[http.client.HTTPConnection, _TimedSocket]:
        connection = (
            http.client.HTTPSConnection(self._host, self._port, context=tls_context())
            if self._tls
            else http.client.HTTPConnection(self._host, self._port)
        )
        try:
            timed = _TimedSocket(self._dial(deadline))
        except OSError as error:
            raise NotAnswered(type(error).__name__, sent=False, late=isinstance(error, TimeoutError)) from error
        connection.sock = timed
        return connection, timed

    def _dial(self, deadline: float) -> socket.socket:
        """Try the host's addresses in turn, within the deadline. `socket.create_connection` would give the full timeout
        to each of them."""
        failure: OSError = TimeoutError()
        for family, kind, protocol, _, address in socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM):
            left = deadline - monotonic()
            if left <= 0:
                break
            dialed = socket.socket(family, kind, protocol)
            try:
                dialed.settimeout(min(left, self._connect_timeout_s))
                dialed.connect(address)
                dialed.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return tls_context().wrap_socket(dialed, server_hostname=self._host) if self._tls else dialed
            except OSError as error:
                dialed.close()
                failure = error
        raise failure
