"""One pooled, blocking HTTP/1.1 client for AWS endpoints, and where those endpoints are.

Invariant of this file: a connection goes back to the pool only after its answer was read whole; any doubt closes it.
"""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from time import monotonic
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of an HTTP answer."""

    status: int
    body: bytes


class NotAnswered(Exception):
    """No usable answer. `sent` tells whether the request may have reached the server."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


def endpoint_url(service: str, region: str, env: Mapping[str, str] | None = None) -> str:
    """Base URL of a service: the SDKs' own `AWS_ENDPOINT_URL_<SERVICE>` and `AWS_ENDPOINT_URL`, else the region's."""
    env = os.environ if env is None else env
    override = env.get(f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}") or env.get("AWS_ENDPOINT_URL")
    if override:
        return override.rstrip("/")
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://{service}.{region}.{suffix}"


@cache
def tls_context() -> ssl.SSLContext:
    """The default, verifying context; made once, because loading the trust store costs milliseconds."""
    return ssl.create_default_context()


class HttpClient:
    """Requests to one origin, over kept-alive connections. Safe to use from several threads."""

    def __init__(self, base_url: str, *, connect_timeout_s: float = 2.0) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http(s) URL: {base_url!r}")
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port or (443 if self._tls else 80)
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[http.client.HTTPConnection] = []
        self.host = parts.netloc.rpartition("@")[2]
        self.prefix = parts.path.rstrip("/")

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes, deadline: float) -> Answer:
        """Send one request, no retry.

        Args:
            deadline: monotonic seconds by which the answer must be there.

        Raises:
            NotAnswered: connection refused, lost, or too slow.
        """
        connection = self._take()
        reused = connection is not None
        while True:
            remaining = deadline - monotonic()
            if remaining <= 0:
                raise NotAnswered("deadline passed", sent=False)
            if connection is None:
                connection = self._connect(min(remaining, self._connect_timeout_s))
            if connection.sock is not None:
                connection.sock.settimeout(remaining)
            try:
                connection.request(method, path, body=body, headers=dict(headers))
                response = connection.getresponse()
                answer = Answer(response.status, response.read())
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
                connection.close()
                connection = None
                if not reused:
                    raise NotAnswered(type(error).__name__, sent=True) from error
                # A kept-alive connection the server had already closed: the request was not read.
                reused = False
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                raise NotAnswered(type(error).__name__, sent=True) from error
            else:
                if response.will_close:
                    connection.close()
                else:
                    self._idle.append(connection)
                return answer

    def _take(self) -> http.client.HTTPConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=tls_context())
            if self._tls
            else http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        )
        try:
            connection.connect()
        except OSError as error:
            raise NotAnswered(type(error).__name__, sent=False) from error
        return connection
