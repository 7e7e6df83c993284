"""MQTT brokers of the outside, over aiomqtt: one connection per broker and credential, whatever streams use it.

Streams share topic filters too: the first that wants one subscribes, the last that lets go unsubscribes. A connection
that breaks tells all of its streams; whichever comes back first makes the next one, and the others join it. Between two
attempts lies a pause, so that a hundred streams of a broker that is down do not knock a hundred times.

Invariant of this file: a socket is only ever made to an address that the egress policy admitted in that very connect;
the client is given that address, and the broker's name only for SNI and the certificate.
"""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiomqtt

from tidegate.adapters.upstreams.resolving import Resolve, resolve
from tidegate.domain.egress import EgressPolicy, check_addresses, check_url
from tidegate.errors import PolicyBlocked
from tidegate.ports.relay import (
    Broker,
    MqttRequest,
    Opened,
    Oversize,
    UpstreamEvent,
    UpstreamFault,
    UpstreamMessage,
    UpstreamsFor,
)
from tidegate.protocol.messages import ErrorCode
from tidegate.protocol.topics import matches

#: CONNACK: bad user name or password, not authorized. 3.1.1 numbers, and the reason codes the client makes of them.
_NOT_ADMITTED = frozenset({4, 5, 134, 135})
#: SUBACK: from here on the filter was refused (3.1.1, section 3.9.3).
_FILTER_REFUSED = 0x80
#: Events kept for a stream that is slow to take them; then the oldest gives way.
_KEPT = 1000
#: Connects under way at once. Each takes a thread of the loop's for as long as the broker makes it wait, and the lease
#: is renewed on such a thread: see `functions/relay/worker`, which has more of them than this.
CONNECTS = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's settings.

    Attributes:
        max_qos: of any subscription.
        max_connections: distinct credentials per broker profile. All streams of a broker profile are of one shard, so
            its worker counts for all.
        idle_s: how long a connection without streams lives.
        max_bytes: of a payload.
        pause_s: between two attempts to connect, and after a refusal that will be repeated.
    """

    max_qos: int
    max_connections: int
    idle_s: float
    max_bytes: int
    pause_s: tuple[float, float]


class MqttUpstreams(UpstreamsFor["MqttRequest"]):
    """Made and used in one event loop."""

    def __init__(
        self,
        policy: EgressPolicy,
        limits: Limits,
        *,
        connect_timeout_s: float,
        insecure_tls: bool = False,
        resolve: Resolve = resolve,
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._connect_timeout_s = connect_timeout_s
        self._insecure_tls = insecure_tls
        self._resolve = resolve
        self._connections: dict[Broker, _Connection] = {}
        self._open: set[_Connection] = set()  # these, and those that are closing
        self._connects = asyncio.Semaphore(CONNECTS)
        self._failed: dict[Broker, tuple[float, UpstreamFault]] = {}

    async def open(self, request: MqttRequest, _last_id: str) -> AsyncIterator[UpstreamEvent]:
        stream = _Stream()
        connection = self._connection(request)
        connection.enter(stream)
        try:
            await connection.subscribe(stream, request.topic, min(request.qos, self._limits.max_qos))
            yield Opened()
            while True:
                yield await stream.take()
        finally:
            connection.leave(stream)

    async def close(self) -> None:
        await asyncio.gather(*(one.close() for one in list(self._open)))

    def _connection(self, request: MqttRequest) -> _Connection:
        broker = request.broker
        there = self._connections.get(broker)
        if there is not None:
            return there
        until, fault = self._failed.get(broker, (0.0, None))
        if fault is not None and _now() < until:
            raise _again(fault)
        self._failed = {one: entry for one, entry in self._failed.items() if entry[0] > _now()}
        self._make_room(broker)
        connection = _Connection(
            broker,
            connect=lambda: self._connect(request),
            left=lambda: self._left(broker, connection),
            ended=lambda fault: self._ended(broker, connection, fault),
            limits=self._limits,
        )
        self._connections[broker] = connection
        self._open.add(connection)
        return connection

    def _make_room(self, broker: Broker) -> None:
        others = [one for one in self._connections if one.profile_id == broker.profile_id]
        if len(others) < self._limits.max_connections:
            return
        for one in others:
            if self._connections[one].idle:
                self._connections[one].abandon()
                return
        raise UpstreamFault(ErrorCode.RATE_LIMITED, "MQTT broker connection pool limit reached")

    def _left(self, broker: Broker, connection: _Connection) -> None:
        """Nobody is given this one any more; there may be another by now."""
        if self._connections.get(broker) is connection:
            del self._connections[broker]

    def _ended(self, broker: Broker, connection: _Connection, fault: UpstreamFault | None) -> None:
        self._left(broker, connection)
        self._open.discard(connection)
        if fault is not None:
            self._failed[broker] = (_now() + self._limits.pause_s[fault.refused], fault)

    # --- connecting -----------------------------------------------------------------------------------------

    async def _connect(self, request: MqttRequest) -> aiomqtt.Client:
        """A connected client. Raises `UpstreamFault`."""
        broker = request.broker
        try:
            destination = check_url(broker.url, "mqtt", self._policy)
            async with asyncio.timeout(self._connect_timeout_s):
                addresses = check_addresses(await self._resolve(destination.host, destination.port), self._policy)
            tls = None
            if destination.secure:
                tls = await asyncio.to_thread(_NamedTls.made, destination.host, broker.ca, self._insecure_tls)
        except PolicyBlocked as error:
            raise UpstreamFault(ErrorCode.POLICY_BLOCKED, error.message, refused=True) from error
        except TimeoutError as error:
            raise UpstreamFault(ErrorCode.CONNECT_TIMEOUT, "Upstream connect timeout") from error
        except (OSError, ValueError) as error:  # no such name, or a certificate that is none
            raise UpstreamFault(ErrorCode.CONNECT_FAILED, "MQTT broker connection failed") from error
        for address in addresses:
            client = aiomqtt.Client(
                address,
                destination.port,
                # Ours alone: the standby of a hand-over is connected beside us, and a broker keeps one of a name.
                identifier=f"tidegate-{uuid.uuid4().hex[:14]}",
                username=broker.username,
                password=broker.password,
                keepalive=request.keepalive_s,
                timeout=self._connect_timeout_s,
                tls_context=tls,
                tls_insecure=True if tls is not None and self._insecure_tls else None,
            )
            try:
                async with self._connects:
                    await _entered(client)
            except aiomqtt.MqttCodeError as error:
                if _code(error.rc) in _NOT_ADMITTED:
                    text = "MQTT broker rejected connection"
                    raise UpstreamFault(ErrorCode.AUTH_FAILED, text, refused=True) from error
                break
            except (aiomqtt.MqttError, OSError, ValueError):
                continue  # the next of its addresses
            return client
        raise UpstreamFault(ErrorCode.CONNECT_FAILED, "MQTT broker connection failed")


async def _entered(client: aiomqtt.Client) -> None:
    """Connect. The client connects on a thread that cannot be stopped: when cancelled, what it makes is closed."""
    entering = asyncio.ensure_future(client.__aenter__())
    try:
        await asyncio.shield(entering)
    except asyncio.CancelledError:
        with suppress(aiomqtt.MqttError, OSError, ValueError):
            await entering
            await client.__aexit__(None, None, None)
        raise


class _NamedTls(ssl.SSLContext):
    """Checks the certificate against the broker's name, though the client only knows its address."""

    name: str

    @classmethod
    def made(cls, name: str, ca: str, insecure: bool) -> _NamedTls:
        """`ca`: certificates of further authorities, PEM, empty for none. Raises `ssl.SSLError`, `ValueError`."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.name = name
        context.load_default_certs()
        if ca:
            context.load_verify_locations(cadata=ca)
        if insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*args, **(options | {"server_hostname": self.name}))


@dataclass(slots=True)
class _Filter:
    """A topic filter in use. `last` is what came last, for a stream that joins later."""

    streams: set[_Stream] = field(default_factory=set)
    qos: int = -1
    last: UpstreamMessage | None = None


class _Stream:
    """What came for one stream and was not taken yet."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[UpstreamEvent | UpstreamFault] = asyncio.Queue()

    def put(self, event: UpstreamEvent | UpstreamFault) -> None:
        if self._events.qsize() >= _KEPT:
            self._events.get_nowait()
        self._events.put_nowait(event)

    async def take(self) -> UpstreamEvent:
        event = await self._events.get()
        if isinstance(event, UpstreamFault):
            raise event
        return event


class _Connection:
    """One connection to a broker with one credential. It connects at once, and lives until it breaks or is idle."""

    def __init__(
        self,
        broker: Broker,
        *,
        connect: Callable[[], Coroutine[Any, Any, aiomqtt.Client]],
        left: Callable[[], None],
        ended: Callable[[UpstreamFault | None], None],
        limits: Limits,
    ) -> None:
        self._connect = connect
        self._left = left
        self._ended = ended
        self._limits = limits
        self._filters: dict[str, _Filter] = {}
        self._streams: set[_Stream] = set()
        self._client: aiomqtt.Client | None = None
        self._fault: UpstreamFault | None = None
        self._settled = asyncio.Event()  # connected, or not
        self._subscribing = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._run(), name=f"broker {broker.profile_id}")

    @property
    def idle(self) -> bool:
        return not self._streams

    def enter(self, stream: _Stream) -> None:
        """Count a stream in, before anything is awaited for it."""
        self._streams.add(stream)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    async def subscribe(self, stream: _Stream, topic: str, qos: int) -> None:
        """Have the stream get what the filter matches. Raises `UpstreamFault`."""
        await self._settled.wait()
        async with self._subscribing:
            if self._fault is not None or self._client is None:
                raise _again(self._fault or _disconnected())
            wanted = self._filters.setdefault(topic, _Filter())
            wanted.streams.add(stream)
            if wanted.last is not None:
                stream.put(wanted.last)
            if qos <= wanted.qos:
                return
            try:
                codes = await self._client.subscribe(topic, qos)
            except aiomqtt.MqttError as error:
                raise _again(self._fault or _disconnected()) from error
            if any(_code(code) >= _FILTER_REFUSED for code in codes):
                raise UpstreamFault(ErrorCode.AUTH_FAILED, "MQTT broker rejected the topic", refused=True)
            wanted.qos = qos

    def leave(self, stream: _Stream) -> None:
        """Count a stream out. Harmless when it never subscribed."""
        self._streams.discard(stream)
        for topic, wanted in self._filters.items():
            wanted.streams.discard(stream)
            if not wanted.streams and self._fault is None:
                task = asyncio.create_task(self._unsubscribe(topic))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
        if self.idle and not self._task.done():
            self._idle_timer = asyncio.get_running_loop().call_later(self._limits.idle_s, self.abandon)

    async def _unsubscribe(self, topic: str) -> None:
        async with self._subscribing:
            wanted = self._filters.get(topic)
            if wanted is None or wanted.streams or self._client is None:
                return
            del self._filters[topic]
            with suppress(aiomqtt.MqttError):  # it is ending, and its subscriptions with it
                await self._client.unsubscribe(topic)

    def abandon(self) -> None:
        """Close it; nobody enters any more."""
        self._left()
        self._cancel()

    async def close(self) -> None:
        for task in self._leaving:
            task.cancel()
        self._cancel()
        await asyncio.gather(*self._leaving, self._task, return_exceptions=True)

    def _cancel(self) -> None:
        """Once: a second time would interrupt the closing."""
        if not self._task.cancelling():
            self._task.cancel()

    # --- the connection itself ------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            self._client = await self._connect()
            self._settled.set()
            try:
                async for message in self._client.messages:
                    self._came(message)
            finally:
                with suppress(aiomqtt.MqttError):
                    await self._client.__aexit__(None, None, None)
            self._fault = _disconnected()
        except UpstreamFault as error:
            self._fault = error
        except aiomqtt.MqttError:
            self._fault = _disconnected()
        finally:
            if self._idle_timer is not None:
                self._idle_timer.cancel()
            self._ended(self._fault)
            self._fault = self._fault or _disconnected()  # cancelled: whoever came in that moment tries again
            self._settled.set()
            for stream in self._streams:
                stream.put(_again(self._fault))

    def _came(self, message: aiomqtt.Message) -> None:
        payload = message.payload
        data = payload if isinstance(payload, bytes) else b"" if payload is None else str(payload).encode()
        topic = str(message.topic)
        event = Oversize() if len(data) > self._limits.max_bytes else UpstreamMessage(data)
        for topic_filter, wanted in self._filters.items():
            if not matches(topic_filter, topic):
                continue
            if isinstance(event, UpstreamMessage):
                wanted.last = event
            for stream in wanted.streams:
                stream.put(event)


def _code(code: Any) -> int:
    """A reason code as a number, however the client's version has it."""
    return int(getattr(code, "value", code) or 0)


def _disconnected() -> UpstreamFault:
    return UpstreamFault(ErrorCode.CONNECT_FAILED, "MQTT broker disconnected")


def _again(fault: UpstreamFault) -> UpstreamFault:
    """The same fault, to be raised in another place."""
    return UpstreamFault(fault.code, fault.text, refused=fault.refused)


def _now() -> float:
    return asyncio.get_running_loop().time()
