"""Upstreams with server-sent events or WebSockets, over aiohttp.

Invariant of this file: a socket is made only to an address that the egress policy admitted in the same connect. The URL
is checked first. The resolver checks every address that a name resolves to. Each address is checked once more where
its socket is made, because the library may have it from elsewhere. Redirects are followed by our own code, each as a
new connect. A credential is put into each request anew, and only where its destinations cover the URL.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from tidegate.adapters.upstreams.resolving import Resolve, resolve
from tidegate.domain.egress import EgressPolicy, check_addresses, check_url
from tidegate.errors import PolicyBlocked
from tidegate.ports.relay import (
    Opened,
    Oversize,
    RetryAfter,
    UpstreamEvent,
    UpstreamFault,
    UpstreamMessage,
    UpstreamRequest,
    UpstreamsFor,
)
from tidegate.protocol.event_stream import EventStream, ServerSentEvent
from tidegate.protocol.messages import ErrorCode

#: Headers that belong to the connection. A datasource's document may not set them.
_OWN_HEADERS = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "upgrade", "accept-encoding", "expect", "te"}
)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
#: The only headers that are sent to another origin after a redirect. Any other header may carry a credential.
_ANY_ORIGIN = ("Accept", "Cache-Control", "User-Agent")
_USER_AGENT = "tidegate-relay"


class CheckedResolver(AbstractResolver):
    """Resolves a name to its addresses, if every one of them may be connected to."""

    def __init__(self, policy: EgressPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = check_addresses(await self._resolve(host, port), self._policy)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]

    async def close(self) -> None: ...


class AiohttpUpstreams(UpstreamsFor["UpstreamRequest"]):
    """Opens upstreams. It is made and used in one event loop."""

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        connect_timeout_s: float,
        ping_interval_s: float,
        max_bytes: int,
        insecure_tls: bool = False,
        resolve: Resolve = resolve,
    ) -> None:
        self._policy = policy
        self._connect_timeout_s = connect_timeout_s
        self._ping_interval_s = ping_interval_s
        self._max_bytes = max_bytes
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(policy, resolve),
            use_dns_cache=False,
            limit=0,
            force_close=True,
            ssl=_tls(insecure_tls),
            socket_factory=self._checked_socket,
        )
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(_no_redirect)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            trace_configs=[trace],
            auto_decompress=True,
        )

    async def close(self) -> None:
        await self._session.close()

    async def open(self, request: UpstreamRequest, last_id: str) -> AsyncIterator[UpstreamEvent]:
        events = self._sse(request, last_id) if request.protocol == "sse" else self._websocket(request)
        try:
            async for event in events:
                yield event
        except PolicyBlocked as error:
            raise UpstreamFault(ErrorCode.POLICY_BLOCKED, error.message, refused=True) from error
        except TimeoutError as error:
            raise UpstreamFault(ErrorCode.CONNECT_TIMEOUT, "Upstream connect timeout") from error
        except aiohttp.WSServerHandshakeError as error:
            raise _refused(error.status) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The error's text may name addresses, or hold the URL with a credential in it. So it is not passed on.
            blocked = _cause(error, PolicyBlocked)
            if blocked is not None:
                raise UpstreamFault(ErrorCode.POLICY_BLOCKED, blocked.message, refused=True) from None
            raise UpstreamFault(ErrorCode.CONNECT_FAILED, "Upstream connection failed") from None

    # --- server-sent events ---------------------------------------------------------------------------------

    async def _sse(self, request: UpstreamRequest, last_id: str) -> AsyncIterator[UpstreamEvent]:
        async with asyncio.timeout(self._connect_timeout_s):
            response = await self._get(request, last_id)
        async with response:
            if not 200 <= response.status < 300 or response.status == 204:
                raise _refused(response.status)
            yield Opened()
            stream = EventStream(self._max_bytes, last_id)
            retry_ms = None
            while True:
                try:
                    async with asyncio.timeout(request.idle_timeout_s):
                        chunk = await response.content.readany()
                except TimeoutError as error:
                    raise UpstreamFault(ErrorCode.IDLE_TIMEOUT, "Stream idle timeout") from error
                if not chunk:
                    raise UpstreamFault(ErrorCode.CONNECT_FAILED, "Upstream ended")
                events = stream.feed(chunk)
                if stream.retry_ms not in (None, retry_ms):
                    retry_ms = stream.retry_ms
                    yield RetryAfter(int(retry_ms or 0))
                for event in events:
                    if isinstance(event, ServerSentEvent):
                        yield UpstreamMessage(event.data.encode("utf-8", "replace"), event.event_id)
                    else:
                        yield Oversize()

    async def _get(self, request: UpstreamRequest, last_id: str) -> aiohttp.ClientResponse:
        """Connect, and follow redirects. Each URL is checked like the first, and so is where the credential may go."""
        url, headers = request.url, dict(request.headers)
        headers |= {"Accept": "text/event-stream", "Cache-Control": "no-cache", "User-Agent": _USER_AGENT}
        if last_id:
            headers["Last-Event-ID"] = last_id.encode().decode("latin-1")
        for _ in range(_MOST_REDIRECTS + 1):
            check_url(url, "sse", self._policy)
            sent_url, sent_headers = _sent(request, url, headers)
            response = await self._session.get(sent_url, headers=sent_headers, allow_redirects=False)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response
            response.close()
            further = urljoin(url, location)
            if _origin(further) != _origin(url):
                headers = {name: headers[name] for name in _ANY_ORIGIN}
            url = further
        raise UpstreamFault(ErrorCode.CONNECT_REFUSED, "Upstream redirects too often", refused=True)

    # --- WebSockets -----------------------------------------------------------------------------------------

    async def _websocket(self, request: UpstreamRequest) -> AsyncIterator[UpstreamEvent]:
        check_url(request.url, "websocket", self._policy)
        url, headers = _sent(request, request.url, request.headers)
        async with asyncio.timeout(self._connect_timeout_s):
            connection = await self._session.ws_connect(
                url,
                protocols=request.protocols,
                headers=headers | {"User-Agent": _USER_AGENT},
                heartbeat=self._ping_interval_s,
                max_msg_size=self._max_bytes,
            )
        async with connection:
            yield Opened()
            while True:
                try:
                    message = await connection.receive(timeout=request.idle_timeout_s)
                except TimeoutError as error:
                    raise UpstreamFault(ErrorCode.IDLE_TIMEOUT, "WebSocket upstream idle timeout") from error
                match message.type:
                    case aiohttp.WSMsgType.TEXT:
                        yield UpstreamMessage(message.data.encode())
                    case aiohttp.WSMsgType.BINARY:
                        yield UpstreamMessage(bytes(message.data))
                    case aiohttp.WSMsgType.ERROR if connection.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
                        yield Oversize()
                        raise UpstreamFault(ErrorCode.CONNECT_FAILED, "WebSocket upstream disconnected")
                    case _:
                        raise UpstreamFault(ErrorCode.CONNECT_FAILED, "WebSocket upstream disconnected")

    def _checked_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """The last check, of the very address that is connected to."""
        family, kind, proto, _, address = info
        check_addresses([str(address[0])], self._policy)
        made = socket.socket(family, kind, proto)
        made.setblocking(False)
        return made


async def _no_redirect(*_: object) -> None:
    """Refuse a redirect that the library is about to follow, as it would in a WebSocket's handshake."""
    raise UpstreamFault(ErrorCode.CONNECT_REFUSED, "Upstream rejected connection", refused=True)


def _refused(status: int) -> UpstreamFault:
    if status in (401, 403):
        return UpstreamFault(ErrorCode.AUTH_FAILED, "Upstream rejected connection", refused=True)
    return UpstreamFault(ErrorCode.CONNECT_REFUSED, "Upstream rejected connection", refused=400 <= status < 500)


def _sent(request: UpstreamRequest, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The URL and headers of one request of its own, with the credential if it may go there. Raises `PolicyBlocked`."""
    if request.credential is not None:
        url, headers = request.credential.sent(url, headers, request.protocol)
    return url, {name: value for name, value in headers.items() if name.lower() not in _OWN_HEADERS}


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _tls(insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _cause(error: BaseException | None, kind: type[PolicyBlocked]) -> PolicyBlocked | None:
    """The refusal that caused a library's own error; None when there is none."""
    while error is not None:
        if isinstance(error, kind):
            return error
        error = error.__cause__ or error.__context__
    return None
