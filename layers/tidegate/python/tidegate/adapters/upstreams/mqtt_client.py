"""One connection to an MQTT broker: version 5, or 3.1.1 where the broker does not know it.

Invariants of this file:

- Nothing is awaited of the broker without a bound. Connecting has one, TLS included. So has every answer, and every
  write that the broker must take. A connection on which no whole packet comes for a keep-alive and an answer's time is
  dead: a broker that lives answers our pings.
- A connection that has ended says so to whoever waits for it, and to whoever asks later.
- What is kept of a packet is bounded. A larger one is read to its end, and dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tidegate.protocol import mqtt
from tidegate.protocol.mqtt import Malformed, Publish

#: CONNACK codes that say "not this version" [3.1.1: 3.2.2.3; 5: 3.2.2.2].
_OTHER_VERSION = frozenset({1, 0x84})
#: Room for a packet's topic and properties beside its payload, bytes.
_BESIDE_PAYLOAD = 131_072
#: Packets that are handled before others get their turn. Those that have arrived are read without a pause, and who
#: takes the messages would find more than is kept for them.
_IN_A_ROW = 50
#: Bytes of a dropped packet that are read at once.
_CHUNK = 65_536


class MqttEnded(Exception):
    """The connection has ended or could not be made.

    Attributes:
        code: of CONNACK, when the broker refused; 0 otherwise.
        mute: whether the broker did not answer in time.
    """

    def __init__(self, reason: str, *, code: int = 0, mute: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.mute = mute


class WrongVersion(MqttEnded):
    """The broker does not speak the version that it was offered, as far as one can see."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A message beyond the limit. Its payload was not kept."""

    topic: str


@dataclass(frozen=True, slots=True)
class Login:
    """How a client connects.

    Attributes:
        address, port: where the socket is made to.
        tls: None connects in the clear.
        name: the broker's name, for SNI and its certificate.
        keepalive_s: seconds between two pings, unless the broker names its own.
        answer_s: how long the broker may take for each answer, and for connecting, seconds.
        max_bytes: largest payload that is kept, bytes.
    """

    address: str
    port: int
    tls: ssl.SSLContext | None
    name: str
    username: str | None
    password: str | None
    keepalive_s: int
    answer_s: float
    max_bytes: int


class MqttClient:
    """A connected client. Made with `connected`; ended with `close`.

    Attributes:
        version: the protocol level that is spoken.
        identifiers: whether messages name the subscriptions that they are for.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        login: Login,
        came: Callable[[Publish | Dropped], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._login = login
        self._came = came
        self._keepalive_s = float(login.keepalive_s)
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._packet_id = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._ended: asyncio.Future[MqttEnded] = asyncio.get_running_loop().create_future()
        self.version = mqtt.V5
        self.identifiers = False

    @classmethod
    async def connected(
        cls, login: Login, came: Callable[[Publish | Dropped], None], *, version: int = mqtt.V5
    ) -> MqttClient:
        """Connect. `came` gets what is published, in order, and must not raise.

        Raises:
            WrongVersion: to be tried again with 3.1.1.
            MqttEnded: it could not be connected.
        """
        try:
            async with asyncio.timeout(login.answer_s):
                name = login.name if login.tls is not None else None
                reader, writer = await asyncio.open_connection(
                    login.address, login.port, ssl=login.tls, server_hostname=name
                )
                client = cls(reader, writer, login, came)
                try:
                    await client._greet(version)
                except BaseException:
                    writer.transport.abort()
                    raise
        except TimeoutError as error:
            raise MqttEnded("the broker did not answer", mute=True) from error
        except (OSError, ValueError) as error:
            raise MqttEnded("no connection") from error
        client._tasks = [asyncio.create_task(client._run()), asyncio.create_task(client._ping())]
        return client

    @property
    def alive(self) -> bool:
        return not self._ended.done()

    async def subscribe(self, topic_filter: str, qos: int, identifier: int) -> int:
        """The broker's code; from 0x80 on it refuses the filter.

        Raises:
            ValueError: MQTT cannot carry the filter.
            MqttEnded: the connection has ended.
        """
        packet_id = self._next_id()
        return await self._ask(packet_id, mqtt.subscribe(self.version, packet_id, topic_filter, qos, identifier))

    async def unsubscribe(self, topic_filter: str) -> None:
        """Raises `MqttEnded`, and then has ended."""
        packet_id = self._next_id()
        await self._ask(packet_id, mqtt.unsubscribe(self.version, packet_id, topic_filter))

    async def ended(self) -> MqttEnded:
        """Wait for the end of the connection."""
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """End the connection in order, if the broker takes it in time, and in any case. Harmless when it has ended."""
        self._end(MqttEnded("closed"))
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._login.answer_s):
                    await self._writer.wait_closed()
        finally:
            self._writer.transport.abort()

    # --- within -------------------------------------------------------------------------------------------------

    async def _greet(self, version: int) -> None:
        """Send CONNECT and read the answer."""
        login = self._login
        client_id = f"tidegate-{uuid.uuid4().hex[:14]}"  # unique: during a hand-over two workers are connected
        self._writer.write(mqtt.connect(version, client_id, login.keepalive_s, login.username, login.password))
        try:
            first, body = await self._packet()
            if first >> 4 != mqtt.CONNACK or body is None:
                raise Malformed("the first packet is not CONNACK")
            welcome = mqtt.read_connack(version, body)
        except (asyncio.IncompleteReadError, Malformed, ConnectionError) as error:
            # Old brokers close when they are offered a version that they do not know.
            raise (WrongVersion if version == mqtt.V5 else MqttEnded)("no CONNACK") from error
        if welcome.code in _OTHER_VERSION and version == mqtt.V5:
            raise WrongVersion("another version is wanted", code=welcome.code)
        if welcome.code:
            raise MqttEnded("refused", code=welcome.code)
        self.version, self.identifiers = welcome.version, welcome.identifiers
        self._keepalive_s = float(welcome.keepalive_s or self._keepalive_s)
        await self._see_that_it_stays()

    async def _see_that_it_stays(self) -> None:
        """Ping once. A broker that accepts and closes is found here, and is not taken for one that refuses a filter."""
        try:
            await self._write(mqtt.PING)
            first, _ = await self._packet()
            if first >> 4 != mqtt.PINGRESP:
                raise Malformed("the first answer is not to the first question")
        except (asyncio.IncompleteReadError, Malformed, ConnectionError) as error:
            raise MqttEnded("closed at once") from error

    async def _ask(self, packet_id: int, packet: bytes) -> int:
        if self._ended.done():
            raise _again(self._ended.result())
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[packet_id] = answer
        try:
            async with asyncio.timeout(self._login.answer_s):
                await self._write(packet)
                return await answer
        except TimeoutError as error:
            self._end(MqttEnded("the broker did not answer", mute=True))
            raise _again(self._ended.result()) from error
        except OSError as error:
            answer.cancel()
            self._end(MqttEnded("disconnected"))
            raise _again(self._ended.result()) from error
        finally:
            del self._waiting[packet_id]

    async def _run(self) -> None:
        """Read until the connection ends."""
        fault = MqttEnded("disconnected")
        try:
            for number in itertools.count(1):
                async with asyncio.timeout(self._keepalive_s + self._login.answer_s):
                    first, body = await self._packet()
                    await self._handle(first, body)
                if number % _IN_A_ROW == 0:
                    await asyncio.sleep(0)
        except TimeoutError:
            fault = MqttEnded("the broker fell silent", mute=True)
        except (OSError, asyncio.IncompleteReadError):
            pass
        except Malformed as error:
            fault = MqttEnded(f"the broker breaks the protocol: {error}")
        finally:
            self._end(fault)

    async def _handle(self, first: int, body: bytes | None) -> None:
        kind = first >> 4
        if kind == mqtt.PUBLISH and body is not None:
            message = mqtt.read_publish(self.version, first & 0x0F, body)
            dropped = len(message.payload) > self._login.max_bytes
            self._came(Dropped(message.topic) if dropped else message)
            if message.qos:
                await self._write(mqtt.puback(message.packet_id))
        elif kind in (mqtt.SUBACK, mqtt.UNSUBACK) and body is not None:
            packet_id, code = mqtt.read_acknowledgement(self.version, body)
            waiting = self._waiting.get(packet_id)
            if waiting is not None and not waiting.done():
                waiting.set_result(code)
        elif kind == mqtt.DISCONNECT:
            raise ConnectionResetError("the broker disconnects")
        elif kind not in (mqtt.PINGRESP, mqtt.PUBLISH):
            raise Malformed(f"packet type {kind}")

    async def _packet(self) -> tuple[int, bytes | None]:
        """The next packet's first byte and body. The body is None when it was too large to keep.

        Raises `asyncio.IncompleteReadError` at the end, `Malformed`, `OSError`.
        """
        first, length = (await self._reader.readexactly(1))[0], 0
        for shift in (0, 7, 14, 21):
            byte = (await self._reader.readexactly(1))[0]
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            raise Malformed("a length has more than four bytes")
        if length <= self._login.max_bytes + _BESIDE_PAYLOAD:
            return first, await self._reader.readexactly(length)
        if first >> 4 != mqtt.PUBLISH:
            raise Malformed("a packet is too large")
        await self._drop(first, length)
        return first, None

    async def _drop(self, first: int, length: int) -> None:
        """Read a large PUBLISH to its end. Its topic and its id are in its first bytes."""
        head = await self._reader.readexactly(_BESIDE_PAYLOAD)
        left = length - len(head)
        while left:
            left -= len(await self._reader.readexactly(min(left, _CHUNK)))
        reader = mqtt.Reader(head)
        self._came(Dropped(reader.text()))
        if first >> 1 & 3:
            await self._write(mqtt.puback(reader.number(2)))

    async def _ping(self) -> None:
        """Ping the broker, so that something comes. Whether it came is `_run`'s to see."""
        with suppress(OSError):  # `_run` sees it too
            while True:
                await asyncio.sleep(self._keepalive_s)
                try:
                    async with asyncio.timeout(self._login.answer_s):
                        await self._write(mqtt.PING)
                except TimeoutError:
                    return self._end(MqttEnded("the broker fell silent", mute=True))

    async def _write(self, packet: bytes) -> None:
        """Write, and wait until the broker has taken enough of it. The caller has a bound, or is ended by `_run`."""
        self._writer.write(packet)
        await self._writer.drain()

    def _end(self, fault: MqttEnded) -> None:
        """Note the end, the first time, and say it to everybody who waits."""
        if self._ended.done():
            return
        self._ended.set_result(fault)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_again(fault))
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        with suppress(OSError, RuntimeError):
            self._writer.write(mqtt.BYE)
            self._writer.close()

    def _next_id(self) -> int:
        self._packet_id = self._packet_id % 0xFFFF + 1
        return self._packet_id


def _again(fault: MqttEnded) -> MqttEnded:
    """The same fault, to be raised in another place."""
    return MqttEnded(str(fault), code=fault.code, mute=fault.mute)
