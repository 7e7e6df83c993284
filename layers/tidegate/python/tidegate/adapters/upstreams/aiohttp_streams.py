"""Upstreams with server-sent events or WebSockets, over aiohttp.

Invariant of this file: a socket is made only to an address that the egress policy admitted in the same connect. The URL
is checked first. The resolver checks every address that a name resolves to. Each address is checked once more where
its socket is made, because the library may have it from elsewhere. Redirects are followed by our own code, each as a
new connect. A credential is put into each request anew, and only where its destinations cover the URL.

Every wait for the other side ends by a limit of our own, also where the library has one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import LineTooLong
from multidict import CIMultiDict, CIMultiDictProxy

from tidegate.adapters.upstreams.resolving import Resolve, resolve
from tidegate.domain.egress import EgressPolicy, check_addresses, check_url
from tidegate.domain.upstream_answers import asked_pause_ms, is_event_stream, sendable_id, switches_to_websocket
from tidegate.errors import PolicyBlocked
from tidegate.ports.relay import (
    Opened,
    Oversize,
    RetryAfter,
    SignOfLife,
    UpstreamEvent,
    UpstreamFault,
    UpstreamMessage,
    UpstreamRequest,
    UpstreamsFor,
)
from tidegate.protocol.event_stream import EventStream, ServerSentEvent
from tidegate.protocol.messages import ErrorCode

E = TypeVar("E", bound=BaseException)

#: Headers that belong to the connection. A datasource's document may not set them.
_OWN_HEADERS = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "upgrade", "accept-encoding", "expect", "te"}
)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
#: The only headers that are sent to another origin after a redirect. Any other header may carry a credential.
_ANY_ORIGIN = ("Accept", "Cache-Control", "User-Agent", "Last-Event-ID")
_USER_AGENT = "tidegate-relay"
#: Most bytes of one response header, name and value. Sign-in proxies and content policies send 12 KB and more.
_MOST_HEADER_BYTES = 65_536
#: Most header lines of a response.
_MOST_HEADERS = 256
#: Answers that may be about the `Last-Event-ID`: it cannot be read (400), or is too large (413, 431).
_ABOUT_THE_ID = frozenset({400, 413, 431})
#: A server that closes without an answer may do so because of an id with more bytes than this. Usual ids are shorter.
_SUSPECT_ID_BYTES = 1024
#: How long the end of a connection may take, seconds. After that it is cut.
_CLOSE_S = 2.0


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


class _Response(aiohttp.ClientResponse):
    """An answer whose `Connection` header may name more than the upgrade, as RFC 9110 allows (7.6.1).

    The library compares the whole header, and refuses `keep-alive, Upgrade`.
    """

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        headers = super().headers
        if self.status != 101 or not switches_to_websocket(headers.getall("Connection", [])):
            return headers
        upgrading = CIMultiDict(headers)
        upgrading["Connection"] = "Upgrade"
        return CIMultiDictProxy(upgrading)


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
            ssl_shutdown_timeout=_CLOSE_S,
        )
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(_no_redirect)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            trace_configs=[trace],
            auto_decompress=True,
            response_class=_Response,
            max_line_size=_MOST_HEADER_BYTES,
            max_field_size=_MOST_HEADER_BYTES,
            max_headers=_MOST_HEADERS,
        )
        # The library asks again at once when a connection ends without an answer. Our own pauses come first.
        self._session._retry_connection = False

    async def close(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._session.close()

    async def open(self, request: UpstreamRequest, last_id: str) -> AsyncIterator[UpstreamEvent]:
        try:
            # Closed by name: whoever leaves this iterator must not leave a connection behind.
            async with aclosing(self._events(request, last_id)) as events:
                async for event in events:
                    yield event
        except TimeoutError as error:
            raise UpstreamFault(ErrorCode.CONNECT_TIMEOUT, "Upstream connect timeout") from error
        except aiohttp.WSServerHandshakeError as error:
            raise _no_websocket(error) from error
        except (PolicyBlocked, aiohttp.ClientError, OSError, ValueError) as error:
            # The error's text may name addresses, or hold the URL with a credential in it. So it is not passed on.
            raise _fault(error) from None

    def _events(self, request: UpstreamRequest, last_id: str) -> AsyncGenerator[UpstreamEvent, None]:
        return self._sse(request, last_id) if request.protocol == "sse" else self._websocket(request)

    # --- server-sent events ---------------------------------------------------------------------------------

    async def _sse(self, request: UpstreamRequest, last_id: str) -> AsyncGenerator[UpstreamEvent, None]:
        last_id = sendable_id(last_id)
        async with asyncio.timeout(self._connect_timeout_s):
            response, last_id = await self._get(request, last_id)
        try:
            _check_event_stream(response)
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
                        yield _message(event.data.encode("utf-8", "replace"), event.event_id)
                    else:
                        yield Oversize()
        finally:
            response.close()

    async def _get(self, request: UpstreamRequest, last_id: str) -> tuple[aiohttp.ClientResponse, str]:
        """The answer, and the id that it goes on behind.

        An id may be why a server refuses. Then it is asked once more without, as otherwise it would refuse for ever.
        """
        try:
            response = await self._follow(request, last_id)
        except aiohttp.ClientConnectorError:
            raise  # it was not even asked
        except (aiohttp.ClientConnectionError, ConnectionError):
            if len(last_id.encode()) <= _SUSPECT_ID_BYTES:
                raise
        else:
            if not last_id or response.status not in _ABOUT_THE_ID:
                return response, last_id
            response.close()
        return await self._follow(request, ""), ""

    async def _follow(self, request: UpstreamRequest, last_id: str) -> aiohttp.ClientResponse:
        """Connect, and follow redirects. Each URL is checked like the first, and so is where the credential may go."""
        own = {"Accept": "text/event-stream", "Cache-Control": "no-cache", "User-Agent": _USER_AGENT}
        if last_id:
            own["Last-Event-ID"] = last_id
        taken = {name.lower() for name in own} | {"last-event-id"}
        url = request.url
        headers = {name: value for name, value in request.headers.items() if name.lower() not in taken} | own
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
                headers = {name: headers[name] for name in _ANY_ORIGIN if name in headers}
            url = further
        raise UpstreamFault(ErrorCode.CONNECT_REFUSED, "Upstream redirects too often", refused=True)

    # --- WebSockets -----------------------------------------------------------------------------------------

    async def _websocket(self, request: UpstreamRequest) -> AsyncGenerator[UpstreamEvent, None]:
        check_url(request.url, "websocket", self._policy)
        url, headers = _sent(request, request.url, request.headers)
        async with asyncio.timeout(self._connect_timeout_s):
            connection = await self._session.ws_connect(
                url,
                protocols=request.protocols,
                headers=headers | {"User-Agent": _USER_AGENT},
                autoping=False,  # a pong must not wait longer than `idle_timeout_s` for a reader that does not read
                heartbeat=self._ping_interval_s,
                max_msg_size=self._max_bytes,
            )
        async with _closing(connection):
            yield Opened()
            while True:
                try:
                    async with asyncio.timeout(request.idle_timeout_s):
                        message = await connection.receive()
                        if message.type is aiohttp.WSMsgType.PING:
                            await connection.pong(message.data)
                except TimeoutError as error:
                    raise UpstreamFault(ErrorCode.IDLE_TIMEOUT, "WebSocket upstream idle timeout") from error
                match message.type:
                    case aiohttp.WSMsgType.TEXT:
                        yield _message(message.data.encode())
                    case aiohttp.WSMsgType.BINARY:
                        yield _message(bytes(message.data))
                    case aiohttp.WSMsgType.PING | aiohttp.WSMsgType.PONG:
                        yield SignOfLife()
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


@asynccontextmanager
async def _closing(connection: aiohttp.ClientWebSocketResponse) -> AsyncGenerator[None, None]:
    """Close the connection in the end. The library alone would wait for as long as the other side goes on sending."""
    try:
        yield
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await connection.close()


async def _no_redirect(*_: object) -> None:
    """Refuse a redirect that the library is about to follow, as it would in a WebSocket's handshake."""
    raise UpstreamFault(ErrorCode.CONNECT_REFUSED, "Upstream rejected connection", refused=True)


def _message(payload: bytes, message_id: str = "") -> UpstreamMessage | SignOfLife:
    """What a message stands for. One without content has no value: sources send it to keep the connection open."""
    return UpstreamMessage(payload, message_id) if payload.strip() else SignOfLife(message_id)


def _check_event_stream(response: aiohttp.ClientResponse) -> None:
    """Raises `UpstreamFault` unless the answer declares an event stream, as the WHATWG HTML standard asks (9.2.3)."""
    if response.status == 204:
        raise UpstreamFault(ErrorCode.CONNECT_REFUSED, "Upstream has ended the stream", over=True)
    if not 200 <= response.status < 300:
        raise _refused(response.status, response.headers)
    if response.status != 200 or not is_event_stream(response.headers.get("Content-Type", "")):
        raise UpstreamFault(ErrorCode.PROTOCOL_ERROR, "Upstream is not an event stream")


def _no_websocket(error: aiohttp.WSServerHandshakeError) -> UpstreamFault:
    if error.status == 101 or 200 <= error.status < 300:
        return UpstreamFault(ErrorCode.PROTOCOL_ERROR, "Upstream is not a WebSocket")
    return _refused(error.status, error.headers or {})


def _refused(status: int, headers: Mapping[str, str]) -> UpstreamFault:
    code = ErrorCode.AUTH_FAILED if status in (401, 403) else ErrorCode.CONNECT_REFUSED
    pause_ms = asked_pause_ms(headers.get("Retry-After", ""), headers.get("Date", ""))
    refused = 400 <= status < 500
    return UpstreamFault(code, "Upstream rejected connection", refused=refused, retry_after_ms=pause_ms)


def _fault(error: Exception) -> UpstreamFault:
    """What viewers are told of an error of the network or of the library."""
    blocked = _cause(error, PolicyBlocked)
    if blocked is not None:
        return UpstreamFault(ErrorCode.POLICY_BLOCKED, blocked.message, refused=True)
    if _cause(error, LineTooLong) is not None:
        return UpstreamFault(ErrorCode.PROTOCOL_ERROR, "Upstream sends headers that are too large")
    if _cause(error, aiohttp.ClientSSLError) is not None or _cause(error, ssl.SSLError) is not None:
        return UpstreamFault(ErrorCode.CONNECT_FAILED, "Upstream's TLS or its certificate is not valid")
    if _cause(error, aiohttp.ClientConnectorDNSError) is not None:
        return UpstreamFault(ErrorCode.CONNECT_FAILED, "Upstream's name has no address")
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamFault(ErrorCode.PROTOCOL_ERROR, "Upstream does not speak HTTP as it should")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return UpstreamFault(ErrorCode.CONNECT_FAILED, "Upstream closed the connection without an answer")
    return UpstreamFault(ErrorCode.CONNECT_FAILED, "Upstream connection failed")


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


def _cause(error: BaseException | None, kind: type[E]) -> E | None:
    """The error of this kind that the error is or was caused by; None when there is none."""
    while error is not None:
        if isinstance(error, kind):
            return error
        error = error.__cause__ or error.__context__
    return None
