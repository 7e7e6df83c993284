"""External MQTT brokers as upstreams. All streams of a broker and credential share one connection.

Streams share topic filters too. The first stream that uses a filter subscribes; the last one that leaves it
unsubscribes. When a connection breaks, all of its streams get the fault. The first of them that tries again makes the
next connection, and the others join it. Between two attempts there is a pause, so that a hundred streams of a broker
that is down do not make a hundred attempts.

Some brokers close the connection on a topic that they forbid. A filter on which that happened is tried alone, on a
connection of its own, before it comes to the shared one again: see `suspect_filters`.

Invariant of this file: a socket is made only to an address that the egress policy admitted in the same connect. The
client is given that address. It is given the broker's name only for SNI and for checking the certificate.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tidegate.adapters.upstreams.mqtt_client import Dropped, Login, MqttClient, MqttEnded, WrongVersion
from tidegate.adapters.upstreams.mqtt_filters import Filters, Stream
from tidegate.adapters.upstreams.resolving import Resolve, resolve
from tidegate.adapters.upstreams.suspect_filters import SuspectFilters, forbidden
from tidegate.domain.egress import Destination, EgressPolicy, check_addresses, check_url
from tidegate.errors import PolicyBlocked
from tidegate.ports.relay import Broker, MqttRequest, Opened, UpstreamEvent, UpstreamFault, UpstreamsFor
from tidegate.protocol import mqtt
from tidegate.protocol.messages import ErrorCode
from tidegate.protocol.mqtt import Publish

#: CONNACK codes for a bad user name or password, and for not authorized: of MQTT 3.1.1, and of version 5.
_NOT_ADMITTED = frozenset({4, 5, 0x86, 0x87})

_Came = Callable[[Publish | Dropped], None]


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
        self._failed: dict[Broker, tuple[float, UpstreamFault]] = {}
        self._old: set[str] = set()  # URLs of brokers that speak only MQTT 3.1.1
        self._suspects = SuspectFilters(again_s=limits.pause_s[1], now=_now)

    async def open(self, request: MqttRequest, _last_id: str) -> AsyncIterator[UpstreamEvent]:
        await self._try_alone(request)
        stream = Stream()
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
        self._check_pause(broker)
        self._supersede(broker)
        self._make_room(broker)
        connection = _Connection(
            broker,
            connect=lambda came: self._connect(request, came),
            left=lambda: self._left(broker, connection),
            ended=lambda fault: self._ended(broker, connection, fault),
            closed=lambda: self._open.discard(connection),
            broke=lambda topic: self._suspects.broke(broker, topic),
            granted=lambda topic: self._suspects.granted(broker, topic),
            limits=self._limits,
        )
        self._connections[broker] = connection
        self._open.add(connection)
        return connection

    def _supersede(self, broker: Broker) -> None:
        """Let connections with an older secret end with their last stream. They leave their places at once."""
        for other, connection in list(self._connections.items()):
            if other.profile_id == broker.profile_id and other.secret_revision < broker.secret_revision:
                connection.supersede()

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
        if fault is not None:
            self._note_failure(broker, fault)

    def _note_failure(self, broker: Broker, fault: UpstreamFault) -> None:
        self._failed[broker] = (_now() + self._limits.pause_s[fault.refused], fault)

    def _check_pause(self, broker: Broker) -> None:
        """Raises the last fault of the broker as long as the pause after it lasts."""
        until, fault = self._failed.get(broker, (0.0, None))
        if fault is not None and _now() < until:
            raise _again(fault)
        self._failed = {failed: entry for failed, entry in self._failed.items() if entry[0] > _now()}

    async def _try_alone(self, request: MqttRequest) -> None:
        """Find out on a connection of its own whether the broker stands a filter that may have broken one.

        Raises:
            UpstreamFault: it does not, or cannot be asked.
        """
        broker, topic = request.broker, request.topic
        if not self._suspects.suspect(broker, topic):
            return
        async with self._suspects.turn(broker):
            if not self._suspects.suspect(broker, topic):
                return  # another stream has found out meanwhile
            self._check_pause(broker)
            try:
                client = await self._connect(request, lambda _: None)
            except UpstreamFault as fault:
                self._note_failure(broker, fault)
                raise
            try:
                await client.subscribe(topic, min(request.qos, self._limits.max_qos), 0)
            except MqttEnded as error:
                if error.mute:
                    raise _fault(error) from error
                self._suspects.refused(broker, topic)
                raise forbidden() from error
            finally:
                await client.close()
            self._suspects.granted(broker, topic)

    # --- connecting -----------------------------------------------------------------------------------------

    async def _connect(self, request: MqttRequest, came: _Came) -> MqttClient:
        """A connected client. Raises `UpstreamFault`."""
        broker = request.broker
        try:
            destination = check_url(broker.url, "mqtt", self._policy)
            async with asyncio.timeout(self._connect_timeout_s):
                addresses = check_addresses(await self._resolve(destination.host, destination.port), self._policy)
            tls = None
            if destination.secure:
                tls = await asyncio.to_thread(_tls, broker.ca, self._insecure_tls)
        except PolicyBlocked as error:
            raise UpstreamFault(ErrorCode.POLICY_BLOCKED, error.message, refused=True) from error
        except TimeoutError as error:
            raise UpstreamFault(ErrorCode.CONNECT_TIMEOUT, "Upstream connect timeout") from error
        except (OSError, ValueError) as error:  # the name does not resolve, or the profile's CA is no certificate
            raise UpstreamFault(ErrorCode.CONNECT_FAILED, "MQTT broker connection failed") from error
        logins = [self._login(request, destination, address, tls) for address in addresses]
        return await self._first_connected(logins, broker.url, came)

    async def _first_connected(self, logins: list[Login], url: str, came: _Came) -> MqttClient:
        """Try one address after the other, until a broker has answered. Raises `UpstreamFault`."""
        fault = UpstreamFault(ErrorCode.CONNECT_FAILED, "MQTT broker connection failed")
        for login in logins:
            try:
                return await self._connect_to(login, url, came)
            except MqttEnded as error:
                if error.code in _NOT_ADMITTED:
                    text = "MQTT broker rejected connection"
                    raise UpstreamFault(ErrorCode.AUTH_FAILED, text, refused=True) from error
                if error.mute:
                    fault = UpstreamFault(ErrorCode.CONNECT_TIMEOUT, "Upstream connect timeout")
                if error.code:
                    break
        raise fault

    async def _connect_to(self, login: Login, url: str, came: _Came) -> MqttClient:
        """Raises `MqttEnded`."""
        if url not in self._old:
            try:
                return await MqttClient.connected(login, came)
            except WrongVersion:
                pass
        client = await MqttClient.connected(login, came, version=mqtt.V311)
        self._old.add(url)
        return client

    def _login(self, request: MqttRequest, at: Destination, address: str, tls: ssl.SSLContext | None) -> Login:
        return Login(
            address=address,
            port=at.port,
            tls=tls,
            name=at.host,
            username=request.broker.username,
            password=request.broker.password,
            keepalive_s=request.keepalive_s,
            answer_s=self._connect_timeout_s,
            max_bytes=self._limits.max_bytes,
        )


def _tls(ca: str, insecure: bool) -> ssl.SSLContext:
    """`ca`: certificates of further authorities, PEM; empty for none. Raises `ssl.SSLError` or `ValueError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    if ca:
        context.load_verify_locations(cadata=ca)
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class _Connection:
    """A connection to a broker with one credential. It connects at once, and lives until it breaks or is closed.

    It is closed when it has had no streams for `BrokerLimits.idle_s`, and when another credential needs its place. One
    whose secret has changed is closed with its last stream.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        connect: Callable[[_Came], Coroutine[Any, Any, MqttClient]],
        left: Callable[[], None],
        ended: Callable[[UpstreamFault | None], None],
        closed: Callable[[], None],
        broke: Callable[[str], None],
        granted: Callable[[str], None],
        limits: BrokerLimits,
    ) -> None:
        """
        Args:
            left: called when no further stream may enter.
            ended: called at the end, with the fault, before it is told to the streams.
            closed: called when nothing of the connection is left.
            broke: called with the filter on whose SUBSCRIBE the broker closed the connection.
            granted: called with a filter that the broker granted.
        """
        self._connect = connect
        self._left = left
        self._ended = ended
        self._closed = closed
        self._broke = broke
        self._granted = granted
        self._limits = limits
        self._filters = Filters(_now)
        self._streams: set[Stream] = set()
        self._client: MqttClient | None = None
        self._fault: UpstreamFault | None = None
        self._settled = asyncio.Event()  # set once it is connected, or has failed
        self._subscribing = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._superseded = False
        self._task = asyncio.create_task(self._run(), name=f"broker {broker.profile_id}")

    @property
    def idle(self) -> bool:
        return not self._streams

    def enter(self, stream: Stream) -> None:
        """Add a stream, before anything is awaited for it."""
        self._streams.add(stream)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    async def subscribe(self, stream: Stream, topic: str, qos: int) -> None:
        """Let the stream get the messages that the filter matches. Raises `UpstreamFault`."""
        await self._settled.wait()
        async with self._subscribing:
            if self._fault is not None or self._client is None or not self._client.alive:
                raise _again(self._fault or _disconnected())
            subscribed = self._filters.join(topic, stream)
            if qos <= subscribed.qos:
                return
            subscribed.asked = True
            try:
                code = await self._client.subscribe(topic, qos, subscribed.identifier)
            except ValueError as error:
                raise UpstreamFault(ErrorCode.POLICY_BLOCKED, "MQTT topic cannot be sent", refused=True) from error
            except MqttEnded as error:
                self._broke(topic)
                raise _again(self._fault or _fault(error)) from error
            if code >= mqtt.REFUSED:
                raise UpstreamFault(ErrorCode.AUTH_FAILED, "MQTT broker rejected the topic", refused=True)
            self._granted(topic)
            subscribed.qos = qos

    def leave(self, stream: Stream) -> None:
        """Remove a stream. Harmless when it never subscribed."""
        self._streams.discard(stream)
        for topic in self._filters.leave(stream):
            if self._fault is None:
                task = asyncio.create_task(self._unsubscribe(topic))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
        if self.idle and self._superseded:
            self._cancel()
        elif self.idle and not self._task.done():
            self._idle_timer = asyncio.get_running_loop().call_later(self._limits.idle_s, self.abandon)

    async def _unsubscribe(self, topic: str) -> None:
        async with self._subscribing:
            if self._client is not None and self._filters.forget(topic):
                with suppress(MqttEnded):  # the connection has ended, and its subscriptions with it
                    await self._client.unsubscribe(topic)

    def abandon(self) -> None:
        """Close the connection. No further stream enters it."""
        self._left()
        self._cancel()

    def supersede(self) -> None:
        """Its secret has changed: no further stream enters it, and it is not kept when the last one has left."""
        self._superseded = True
        self._left()
        if self.idle:
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
            self._client = await self._connect(self._came)
            self._settled.set()
            self._fault = _fault(await self._client.ended())
        except UpstreamFault as error:
            self._fault = error
        finally:
            if self._idle_timer is not None:
                self._idle_timer.cancel()
            self._end()
            try:
                if self._client is not None:
                    await self._client.close()
            finally:
                self._closed()

    def _end(self) -> None:
        """Give the connection to nobody else, and tell its streams, before its end is awaited."""
        self._ended(self._fault)
        self._fault = self._fault or _disconnected()  # cancelled: a stream that entered just now will try again
        self._settled.set()
        for stream in self._streams:
            stream.put(_again(self._fault))

    def _came(self, message: Publish | Dropped) -> None:
        assert self._client is not None
        self._filters.came(message, by_identifier=self._client.identifiers)


def _fault(ended: MqttEnded) -> UpstreamFault:
    """What viewers are told of an end."""
    if ended.mute:
        return UpstreamFault(ErrorCode.CONNECT_TIMEOUT, "MQTT broker did not answer")
    return _disconnected()


def _disconnected() -> UpstreamFault:
    return UpstreamFault(ErrorCode.CONNECT_FAILED, "MQTT broker disconnected")


def _again(fault: UpstreamFault) -> UpstreamFault:
    """The same fault, to be raised in another place."""
    return UpstreamFault(fault.code, fault.text, refused=fault.refused)


def _now() -> float:
    return asyncio.get_running_loop().time()
