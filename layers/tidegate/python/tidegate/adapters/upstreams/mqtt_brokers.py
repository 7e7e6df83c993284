"""External MQTT brokers as upstreams, over aiomqtt. All streams of a broker and credential share one connection.

Streams share topic filters too. The first stream that uses a filter subscribes; the last one that leaves it
unsubscribes. When a connection breaks, all of its streams get the fault. The first of them that tries again makes the
next connection, and the others join it. Between two attempts there is a pause, so that a hundred streams of a broker
that is down do not make a hundred attempts.

Invariant of this file: a socket is made only to an address that the egress policy admitted in the same connect. The
client is given that address. It is given the broker's name only for SNI and for checking the certificate.
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

#: CONNACK codes for a bad user name or password, and for not authorized: the numbers of MQTT 3.1.1, and the reason
#: codes that the client makes of them.
_NOT_ADMITTED = frozenset({4, 5, 134, 135})
#: SUBACK codes from this one on mean that the filter was refused (MQTT 3.1.1, section 3.9.3).
_FILTER_REFUSED = 0x80
#: Events kept for a stream that is slow to take them. Beyond that the oldest is dropped.
_KEPT = 1000
#: Connects that may be under way at once. Each occupies a thread of the loop's executor for as long as the broker makes
#: it wait. Leases are renewed on such threads, so `functions/relay/worker` makes more threads than this.
CONNECTS = 16


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """The operator's settings.

    Attributes:
        max_qos: highest QoS of a subscription.
        max_connections: most connections (distinct credentials) for a broker profile. All streams of a broker profile
            are in one partition, so the partition's worker can count them.
        idle_s: how long a connection without streams is kept, seconds.
        max_bytes: largest payload, bytes.
        pause_s: seconds between two attempts to connect: after a fault, and after a refusal, which would be repeated.
    """

    max_qos: int
    max_connections: int
    idle_s: float
    max_bytes: int
    pause_s: tuple[float, float]


class MqttUpstreams(UpstreamsFor["MqttRequest"]):
    """Opens streams of brokers. It is made and used in one event loop."""

    def __init__(
        self,
        policy: EgressPolicy,
        limits: BrokerLimits,
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
        self._open: set[_Connection] = set()  # those in `_connections`, and those that are closing
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
        await asyncio.gather(*(connection.close() for connection in list(self._open)))

    def _connection(self, request: MqttRequest) -> _Connection:
        broker = request.broker
        existing = self._connections.get(broker)
        if existing is not None:
            return existing
        until, fault = self._failed.get(broker, (0.0, None))
        if fault is not None and _now() < until:
            raise _again(fault)
        self._failed = {failed: entry for failed, entry in self._failed.items() if entry[0] > _now()}
        self._make_room(broker)
        connection = _Connection(
            broker,
            connect=lambda: self._connect(request),
            left=lambda: self._left(broker, connection),
            ended=lambda fault: self._ended(broker, connection, fault),
            limits=self._limits,
            answer_s=self._connect_timeout_s,
        )
        self._connections[broker] = connection
        self._open.add(connection)
        return connection

    def _make_room(self, broker: Broker) -> None:
        others = [other for other in self._connections if other.profile_id == broker.profile_id]
        if len(others) < self._limits.max_connections:
            return
        for other in others:
            if self._connections[other].idle:
                self._connections[other].abandon()
                return
        raise UpstreamFault(ErrorCode.RATE_LIMITED, "MQTT broker connection pool limit reached")

    def _left(self, broker: Broker, connection: _Connection) -> None:
        """Give this connection to no further stream. There may be a newer one for the broker by now, which stays."""
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
        except (OSError, ValueError) as error:  # the name does not resolve, or the profile's CA is no certificate
            raise UpstreamFault(ErrorCode.CONNECT_FAILED, "MQTT broker connection failed") from error
        for address in addresses:
            client = aiomqtt.Client(
                address,
                destination.port,
                # Unique: a broker keeps only one client of a name, and during a hand-over two workers are connected.
                identifier=f"tidegate-{uuid.uuid4().hex[:14]}",
                username=broker.username,
                password=broker.password,
                keepalive=request.keepalive_s,
                timeout=self._connect_timeout_s + 1,  # answers have our own bound, which is shorter
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
                continue  # try the broker's next address
            return client
        raise UpstreamFault(ErrorCode.CONNECT_FAILED, "MQTT broker connection failed")


async def _entered(client: aiomqtt.Client) -> None:
    """Connect the client. It connects on a thread that cannot be stopped. So when this is cancelled, it waits for the
    thread and then closes the connection."""
    entering = asyncio.ensure_future(client.__aenter__())
    try:
        await asyncio.shield(entering)
    except asyncio.CancelledError:
        with suppress(aiomqtt.MqttError, OSError, ValueError):
            await entering
            await client.__aexit__(None, None, None)
        raise
    # The library forgets a disconnect that comes together with CONNACK, and says nothing of it ever after.
    if not client._client.is_connected():
        raise aiomqtt.MqttError("closed together with CONNACK")


class _NamedTls(ssl.SSLContext):
    """Checks the certificate against the broker's name, although the client only knows the broker's address."""

    name: str

    @classmethod
    def made(cls, name: str, ca: str, insecure: bool) -> _NamedTls:
        """`ca`: certificates of further authorities, PEM; empty for none. Raises `ssl.SSLError` or `ValueError`."""
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
    """A topic filter in use. `last` is the newest message, for a stream that joins later."""

    streams: set[_Stream] = field(default_factory=set)
    qos: int = -1
    last: UpstreamMessage | None = None


class _Stream:
    """The events of a stream that were received and not taken yet."""

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
    """A connection to a broker with one credential. It connects at once, and lives until it breaks or is closed.

    It is closed when it has had no streams for `BrokerLimits.idle_s`, and when another credential needs its place.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        connect: Callable[[], Coroutine[Any, Any, aiomqtt.Client]],
        left: Callable[[], None],
        ended: Callable[[UpstreamFault | None], None],
        limits: BrokerLimits,
        answer_s: float,
    ) -> None:
        self._connect = connect
        self._answer_s = answer_s
        self._left = left
        self._ended = ended
        self._limits = limits
        self._filters: dict[str, _Filter] = {}
        self._streams: set[_Stream] = set()
        self._client: aiomqtt.Client | None = None
        self._fault: UpstreamFault | None = None
        self._settled = asyncio.Event()  # set once it is connected, or has failed
        self._subscribing = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._run(), name=f"broker {broker.profile_id}")

    @property
    def idle(self) -> bool:
        return not self._streams

    def enter(self, stream: _Stream) -> None:
        """Add a stream, before anything is awaited for it."""
        self._streams.add(stream)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    async def subscribe(self, stream: _Stream, topic: str, qos: int) -> None:
        """Let the stream get the messages that the filter matches. Raises `UpstreamFault`."""
        await self._settled.wait()
        async with self._subscribing:
            if self._fault is not None or self._client is None:
                raise _again(self._fault or _disconnected())
            subscribed = self._filters.setdefault(topic, _Filter())
            subscribed.streams.add(stream)
            if subscribed.last is not None:
                stream.put(subscribed.last)
            if qos <= subscribed.qos:
                return
            try:
                async with asyncio.timeout(self._answer_s):
                    codes = await self._client.subscribe(topic, qos)
            except (aiomqtt.MqttError, TimeoutError, ValueError) as error:
                self._break(_mute() if isinstance(error, TimeoutError) else _disconnected())
                raise _again(self._fault or _disconnected()) from error
            if any(_code(code) >= _FILTER_REFUSED for code in codes):
                raise UpstreamFault(ErrorCode.AUTH_FAILED, "MQTT broker rejected the topic", refused=True)
            subscribed.qos = qos

    def leave(self, stream: _Stream) -> None:
        """Remove a stream. Harmless when it never subscribed."""
        self._streams.discard(stream)
        for topic, subscribed in self._filters.items():
            subscribed.streams.discard(stream)
            if not subscribed.streams and self._fault is None:
                task = asyncio.create_task(self._unsubscribe(topic))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
        if self.idle and not self._task.done():
            self._idle_timer = asyncio.get_running_loop().call_later(self._limits.idle_s, self.abandon)

    async def _unsubscribe(self, topic: str) -> None:
        async with self._subscribing:
            subscribed = self._filters.get(topic)
            if subscribed is None or subscribed.streams or self._client is None:
                return
            del self._filters[topic]
            try:
                async with asyncio.timeout(self._answer_s):
                    await self._client.unsubscribe(topic)
            except (aiomqtt.MqttError, TimeoutError, ValueError) as error:
                self._break(_mute() if isinstance(error, TimeoutError) else _disconnected())

    def _break(self, fault: UpstreamFault) -> None:
        """End the connection: a broker that does not answer a request is not asked anything else on it."""
        if self._fault is None:
            self._fault = fault
        self.abandon()

    def abandon(self) -> None:
        """Close the connection. No further stream enters it."""
        self._left()
        self._cancel()

    async def close(self) -> None:
        for task in self._leaving:
            task.cancel()
        self._cancel()
        await asyncio.gather(*self._leaving, self._task, return_exceptions=True)

    def _cancel(self) -> None:
        """Cancel the task, but only once: a second time would interrupt its closing."""
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
                self._tell()
                with suppress(aiomqtt.MqttError, TimeoutError):
                    async with asyncio.timeout(self._answer_s):
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
            self._fault = self._fault or _disconnected()  # cancelled: a stream that entered just now will try again
            self._settled.set()
            self._tell()

    def _tell(self) -> None:
        """Give the connection to nobody, and tell its streams that it ended, before its end is waited for."""
        self._left()
        for stream in self._streams:
            stream.put(_again(self._fault or _disconnected()))

    def _came(self, message: aiomqtt.Message) -> None:
        payload = message.payload
        data = payload if isinstance(payload, bytes) else b"" if payload is None else str(payload).encode()
        topic = str(message.topic)
        event = Oversize() if len(data) > self._limits.max_bytes else UpstreamMessage(data)
        for topic_filter, subscribed in self._filters.items():
            if not matches(topic_filter, topic):
                continue
            if isinstance(event, UpstreamMessage):
                subscribed.last = event
            for stream in subscribed.streams:
                stream.put(event)


def _code(code: Any) -> int:
    """A reason code as a number. Versions of the client differ in the type they use for it."""
    return int(getattr(code, "value", code) or 0)


def _disconnected() -> UpstreamFault:
    return UpstreamFault(ErrorCode.CONNECT_FAILED, "MQTT broker disconnected")


def _mute() -> UpstreamFault:
    return UpstreamFault(ErrorCode.CONNECT_TIMEOUT, "MQTT broker did not answer")


def _again(fault: UpstreamFault) -> UpstreamFault:
    """The same fault, to be raised in another place."""
    return UpstreamFault(fault.code, fault.text, refused=fault.refused)


def _now() -> float:
    return asyncio.get_running_loop().time()
