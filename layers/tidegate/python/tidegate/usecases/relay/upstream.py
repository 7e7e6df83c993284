"""One upstream of the relay: connect, read, conflate, deliver, and connect again after a pause with full jitter.

Invariant of this file: nothing is delivered unless the worker's lease holds at that moment. A standby reads, and keeps
what it read. When it takes over, it drops what its predecessor has delivered already, as far as the upstream's message
ids show that.

Whether a connection has proved itself, and when viewers are told, is decided in `domain.connects`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice, repeat
from typing import TypeVar

from tidegate.domain.backoff import delay_ms
from tidegate.domain.conflation import Conflator
from tidegate.domain.connects import HELD_S, Connects, Told
from tidegate.domain.history import History
from tidegate.domain.subscriptions import Fault, LastValue, Stream
from tidegate.errors import Unavailable
from tidegate.ports.gateway import LastValueStore
from tidegate.ports.relay import (
    MqttRequest,
    NobodyListens,
    Opened,
    Oversize,
    RetryAfter,
    SignOfLife,
    UpstreamEvent,
    UpstreamFault,
    UpstreamMessage,
    UpstreamRequest,
    Upstreams,
)
from tidegate.ports.runtime import Clock, Observer
from tidegate.protocol.messages import ErrorCode
from tidegate.protocol.payloads import Unparsable, parsed
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.relay.reading import Readings

T = TypeVar("T")

#: Messages that are kept while they wait. A standby keeps the last ones until it takes over. Without conflation they
#: wait for a sender that is behind; when this many wait, reading stops, and the upstream is slowed down.
_KEPT = 1000

#: How long a worker that takes over waits until it has read what its predecessor delivered last, seconds. A source may
#: not repeat what it sent to another connection, so it is not waited for longer.
_BEHIND_S = 2.0

#: Pauses between tries of a message that could not be delivered because a store did not answer, seconds. It is tried
#: again only while it is the newest.
_AGAIN_S = (0.2, 0.5, 1.0, 2.0, 4.0)

#: Pause before the next try when nobody is subscribed, seconds. Without a subscriber the request cannot be made.
_NOBODY_S = 0.5

#: Runs blocking work of the stream on a thread. The work of one stream is done in order.
InOrder = Callable[[Callable[[], T]], Awaitable[T]]


class Upstream:
    """The upstream of one stream. `run` goes on until it is cancelled.

    Attributes:
        connected: set while the upstream is connected.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        upstreams: Upstreams,
        request: Callable[[], Awaitable[UpstreamRequest | MqttRequest]],
        last_values: LastValueStore,
        fan_out: FanOut,
        in_order: InOrder[object],
        note: Callable[[bool, Fault | None], bool],
        reconnect_ms: tuple[int, int],
        per_second: int,
        chance: Callable[[], float],
        clock: Clock,
        observer: Observer,
    ) -> None:
        """
        Args:
            request: says what to connect to. Called before every connect; see `ports.relay.UpstreamRequests`.
            in_order: runs blocking work of this stream.
            note: stores whether the stream is connected, and if not, why; see `ports.gateway.StreamStore.note_status`.
                It does nothing when the lease does not hold.
            reconnect_ms: least and most length of a pause before connecting again, milliseconds.
            per_second: most values that are delivered in a second; 0 delivers all.
            chance: returns random numbers in [0, 1).
        """
        self._stream = stream
        self._upstreams = upstreams
        self._readings = Readings(request=request, connect=self._connect, take=self._take, replaced=self._replaced)
        self._last_values = last_values
        self._fan_out = fan_out
        self._in_order = in_order
        self._note = note
        self._reconnect_ms = reconnect_ms
        self._conflator: Conflator[UpstreamMessage] | None = Conflator(per_second) if per_second else None
        self._chance = chance
        self._clock = clock
        self._observer = observer
        self._waiting: deque[UpstreamMessage] = deque()
        self._changed = asyncio.Condition()
        self._standby = False
        self._delivering = False
        self._last_id = ""  # of what was delivered
        self._received_id = ""  # of what was read: where a reconnect goes on
        self._began_id = ""  # where the first connect went on
        self._kept_all = True  # of what was read as a standby
        self._meanwhile: deque[str] = deque(maxlen=_KEPT)  # ids that were read while another connection was opened
        self._repeats: set[str] = set()  # ids that this other connection may bring again
        self._last_ms = 0
        self._connects = Connects()
        self._proving: asyncio.Task[None] | None = None
        self._announced = False  # whether it counts as connected, as viewers are told
        self._told = Told()  # faults of the upstream
        self._complained = Told()  # faults of messages
        self._requested_at = stream.last_requested_at
        self._requested = asyncio.Event()
        self._retry_after_ms = 0  # the pause that the upstream asked for
        self._fault: Fault | None = None  # why it is not connected
        self._untold = asyncio.Event()  # the status could not be stored or told
        self._telling = asyncio.Lock()
        self._only_a_change = False  # the predecessor may have told the same status
        self.connected = asyncio.Event()

    async def run(self, *, standby: bool) -> None:
        """Keep the upstream connected and deliver. A standby delivers nothing until `take_over`."""
        self._standby = standby
        await self._recall()
        self._received_id = self._began_id = self._last_id
        # If one task breaks, the others end too: a connected upstream that delivers nothing would go unnoticed.
        async with asyncio.TaskGroup() as both:
            both.create_task(self._send())
            both.create_task(self._keep_connected())
            both.create_task(self._tell_again())

    async def take_over(self) -> None:
        """Deliver from now on.

        First comes what was read and was not delivered by the predecessor, as far as message ids show that. With
        conflation only the newest of each topic is delivered: otherwise an upstream without ids would repeat all that
        waits.
        """
        await self._recall()
        await self._read_up_to_last()
        async with self._changed:
            ids = [message.message_id for message in self._waiting]
            if self._last_id and self._last_id in ids:
                for _ in range(ids.index(self._last_id) + 1):
                    self._waiting.popleft()
            if self._conflator is not None:
                newest = {message.topic: message for message in self._waiting}
                self._waiting = deque(message for message in self._waiting if newest[message.topic] is message)
            self._standby = False
            self._changed.notify_all()
        # What changed while this worker stood by was told by nobody.
        self._only_a_change = True
        self._untold.set()

    async def _read_up_to_last(self) -> None:
        """Wait until what the predecessor delivered last has been read here as well, if that can be awaited.

        On a busy machine a standby may be behind. What it reads next was delivered already, and would come twice.
        """
        if self._last_id and self._received_id == self._began_id:
            self._received_id = self._last_id  # nothing was read: a connection that is opened from now on is not behind
        if not self._kept_all or not self.connected.is_set() or self._last_id in ("", self._began_id):
            return

        def is_read() -> bool:
            return any(message.message_id == self._last_id for message in self._waiting)

        with suppress(TimeoutError):
            async with self._changed, asyncio.timeout(_BEHIND_S):
                await self._changed.wait_for(is_read)

    async def pause(self) -> None:
        """Finish the delivery that is going on, then deliver nothing more. What is read is kept. For handing over."""
        async with self._changed:
            self._standby = True
            await self._changed.wait_for(lambda: not self._delivering)

    def requested(self, at: int) -> None:
        """Note that somebody has subscribed (epoch seconds). They hear of a fault that others were told already.

        An upstream that is over is connected again.
        """
        self._requested_at = at
        self._requested.set()

    def note_history(self, history: History | None) -> None:
        """Note what is kept of the stream's values from now on."""
        self._stream = replace(self._stream, history=history)

    def note_secret(self, revision: int | None) -> None:
        """Note the revision of the stored secret; None: its profile is gone.

        A connection with an older one is replaced. Viewers notice nothing, unless the new one fails.
        """
        self._readings.note_secret(revision)

    async def _recall(self) -> None:
        """Read where the stream was. Its order goes on from there, whatever this machine's clock says."""
        newest: list[LastValue] = []
        await self._blocking(lambda: newest.extend(self._last_values.newest(self._stream.stream_key)))
        if newest:
            self._last_ms, self._last_id = newest[0].timestamp_ms, newest[0].message_id

    # --- connecting and reading -----------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        while True:
            self._requested.clear()
            fault = await self._read()
            if fault is None:
                await asyncio.sleep(_NOBODY_S)
                continue
            await self._faulted(fault)
            low, high = self._reconnect_ms
            least = max(low, min(max(self._retry_after_ms, fault.retry_after_ms), high))
            delay = delay_ms(self._connects.failed, self._chance(), least, high, refused=fault.refused)
            await self._readings.pause(delay / 1000, refused=fault.refused)
            if fault.over:
                await self._requested.wait()

    async def _read(self) -> UpstreamFault | None:
        """Read one connection until it ends. Returns why it ended.

        None when nobody seems to be subscribed: the first viewer's row may not be in the index yet.
        """
        self._connects.begin()
        try:
            await self._readings.read()
        except NobodyListens:
            return None
        except UpstreamFault as error:
            return self._more_exactly(error)
        except Unavailable:
            return UpstreamFault(ErrorCode.CONNECT_FAILED, "Upstream could not be prepared")
        finally:
            await self._stop_proving()
        return self._more_exactly(UpstreamFault(ErrorCode.CONNECT_FAILED, "Upstream ended"))

    async def _connect(self, request: UpstreamRequest | MqttRequest) -> AsyncIterator[UpstreamEvent]:
        """Open a connection that goes on behind the message that was read last.

        While a standby connects, its predecessor may deliver more and hand over. Then the connection would begin with
        what was delivered already, and is made anew.
        """
        self._meanwhile.clear()
        reopen = True
        while reopen:
            reopen, behind = False, self._received_id
            events = self._upstreams.open(request, behind)
            try:
                async for event in events:
                    reopen = isinstance(event, Opened) and self._received_id != behind
                    if reopen:
                        break
                    yield event
            finally:
                if isinstance(events, AsyncGenerator):
                    await events.aclose()

    async def _replaced(self) -> None:
        """A connection with another secret takes the place of the one before. It is no news to viewers."""
        await self._stop_proving()
        self._connects.begin()
        self._repeats = set(self._meanwhile)
        self._observer.count("upstreams_replaced", protocol=self._stream.protocol)

    def _is_repeated(self, message_id: str) -> bool:
        """Whether the connection before has brought this already. Its last messages come again first."""
        if not message_id or message_id not in self._repeats:
            if message_id:
                self._repeats.clear()
            return False
        self._repeats.discard(message_id)
        return True

    async def _take(self, event: UpstreamEvent) -> None:
        match event:
            case Opened():
                self._connects.open()
                self._proving = asyncio.create_task(self._prove())
                await self._opened()
            case UpstreamMessage():
                self._connects.bring()
                await self._announce()
                await self._received(event)
            case SignOfLife(message_id):
                self._connects.speak()
                if not self._is_repeated(message_id):
                    self._received_id = message_id or self._received_id
            case Oversize():
                self._connects.speak()
                await self._complain(ErrorCode.MESSAGE_TOO_LARGE, "Message exceeded size limit")
            case RetryAfter(milliseconds):
                self._retry_after_ms = milliseconds

    def _more_exactly(self, fault: UpstreamFault) -> UpstreamFault:
        """The same fault, or that the upstream ended before anything came."""
        if fault.code is ErrorCode.CONNECT_FAILED and self._connects.was_empty:
            return UpstreamFault(fault.code, "Upstream closed the connection at once", refused=fault.refused)
        return fault

    async def _prove(self) -> None:
        """Wait until the connection has held."""
        await asyncio.sleep(HELD_S)
        self._connects.hold()
        await self._announce()

    async def _stop_proving(self) -> None:
        if self._proving is None:
            return
        proving, self._proving = self._proving, None
        proving.cancel()
        await asyncio.wait([proving])
        if not proving.cancelled():
            proving.result()  # raises what broke it

    async def _opened(self) -> None:
        self.connected.set()
        self._observer.count("upstreams_connected", protocol=self._stream.protocol)
        await self._announce()

    async def _announce(self) -> None:
        """Tell viewers, once, that the upstream is connected, as soon as that can be relied on."""
        if self._announced or not self._connects.reliable:
            return
        self._announced, self._fault = True, None
        self._told.forget()
        if not self._standby:
            await self._changed_status()

    async def _faulted(self, fault: UpstreamFault) -> None:
        was = self.connected.is_set()
        self.connected.clear()
        self._announced = False
        self._connects.fail()
        self._fault = Fault(fault.code.value, fault.text)
        self._observer.count("upstream_faults", code=fault.code.value)
        new = self._told.is_new(fault.code, fault.text, self._requested_at, self._clock.now())
        if new and not self._standby:
            await self._changed_status()
        if was:
            self._observer.info("upstream ended", stream=self._stream.stream_key, code=fault.code.value)

    async def _changed_status(self) -> None:
        self._only_a_change = False
        try:
            told = await self._told_status()
        except asyncio.CancelledError:  # its connection was replaced meanwhile; the status holds all the same
            self._untold.set()
            raise
        if not told:
            self._untold.set()

    async def _complain(self, code: ErrorCode, text: str) -> None:
        """Notify viewers of a message that cannot be delivered: once, until a value is delivered."""
        if not self._standby and self._complained.is_new(code, text, self._requested_at, self._clock.now()):
            await self._notify(code, text)

    async def _tell_again(self) -> None:
        """Tell the status that a store's failure or the time as a standby kept from being told, until it is told."""
        while True:
            await self._untold.wait()
            self._untold.clear()
            for pause_s in chain(_AGAIN_S, repeat(_AGAIN_S[-1])):
                if self._standby or await self._told_status():
                    break
                await asyncio.sleep(pause_s)

    async def _told_status(self) -> bool:
        """Store the status as it is now, then tell it to the viewers. False when a store did not answer.

        It is stored first: whoever is not in the audience yet reads it, at the latest by a catch-up.
        """
        async with self._telling:  # one after the other, so that the last one told is the last one there was
            connected, fault = self._announced, self._fault
            if not connected and fault is None:
                return True  # it is still being opened for the first time
            try:
                changed = await self._blocking(lambda: self._note(connected, fault))
                if not changed and self._only_a_change:
                    return True
                self._only_a_change = False  # it is stored now, so a repetition would not see that it is new
                if connected:
                    await self._blocking(lambda: self._fan_out.connected(self._stream))
                elif fault is not None:
                    code, text = ErrorCode(fault.code), fault.text
                    await self._blocking(lambda: self._fan_out.notify(self._stream, code, text, status=True))
            except Unavailable:
                return False
            return True

    async def _notify(self, code: ErrorCode, text: str) -> None:
        if self._standby:
            return
        with suppress(Unavailable):
            await self._blocking(lambda: self._fan_out.notify(self._stream, code, text))

    # --- delivering -----------------------------------------------------------------------------------------

    async def _received(self, message: UpstreamMessage) -> None:
        if self._is_repeated(message.message_id):
            return
        self._received_id = message.message_id or self._received_id
        async with self._changed:
            if self._conflator is None or self._standby:
                if not self._standby:
                    await self._changed.wait_for(lambda: len(self._waiting) < _KEPT)
                elif len(self._waiting) >= _KEPT:
                    self._waiting.popleft()
                    self._kept_all = False
                self._waiting.append(message)
            else:
                await self._changed.wait_for(lambda: len(self._waiting) < _KEPT)
                ready = self._conflator.offer(message, self._clock.monotonic(), message.topic)
                if ready is not None:
                    self._newest(ready)
            self._changed.notify_all()
        if self._readings.replacing and message.message_id:
            self._meanwhile.append(message.message_id)

    def _newest(self, message: UpstreamMessage) -> None:
        """Replace the message of the topic that waits by a newer one, or add it.

        The first in the queue stays: it may be on its way already.
        """
        for place in range(1, len(self._waiting)):
            if self._waiting[place].topic == message.topic:
                self._waiting[place] = message
                return
        self._waiting.append(message)

    def _is_overtaken(self, message: UpstreamMessage) -> bool:
        """Whether a newer message of the topic takes the place of `message`, the first in the queue.

        Without conflation none does: every message is to be delivered.
        """
        return self._conflator is not None and any(
            other.topic == message.topic for other in islice(self._waiting, 1, None)
        )

    async def _send(self) -> None:
        while True:
            message = await self._next()
            try:
                for pause_s in _AGAIN_S:
                    if await self._deliver(message) or self._standby or self._is_overtaken(message):
                        break
                    await asyncio.sleep(pause_s)
                else:
                    await self._deliver(message)
            finally:
                async with self._changed:
                    self._delivering = False
                    self._waiting.popleft()
                    self._changed.notify_all()

    async def _next(self) -> UpstreamMessage:
        """The next message to deliver. It stays in the queue until it was delivered."""
        async with self._changed:
            self._take_due()
            while self._standby or not self._waiting:
                wait_s = None
                if not self._standby and self._conflator is not None and self._conflator.next_at is not None:
                    wait_s = max(0.0, self._conflator.next_at - self._clock.monotonic())
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
                self._take_due()
            self._delivering = True
            return self._waiting[0]

    def _take_due(self) -> None:
        """Put what the conflator has held back into the queue, as far as its time has come."""
        if self._conflator is None or self._standby:
            return
        while (due := self._conflator.due(self._clock.monotonic())) is not None:
            self._newest(due)

    async def _deliver(self, message: UpstreamMessage) -> bool:
        """Deliver one message. False when a store did not answer, so that it should be tried again."""
        try:
            payload = "null" if message.deleted else parsed(message.payload, self._stream.parser)
        except Unparsable:
            self._observer.count("messages_unparsable")
            await self._complain(ErrorCode.PROTOCOL_ERROR, "Payload parsing failed")
            return True
        # Values are ordered by arrival. The time never goes back, even if another worker's clock was ahead.
        self._last_ms = max(int(self._clock.now() * 1000), self._last_ms + 1)
        self._last_id = message.message_id or self._last_id
        topic = message.topic if self._stream.by_topic else None
        value = LastValue(payload, self._last_ms, message.message_id, topic, message.deleted)
        try:
            await self._blocking(lambda: self._fan_out.deliver(self._stream, value))
        except Unavailable as error:
            self._observer.fault("message not delivered", error, stream=self._stream.stream_key)
            return False
        self._complained.forget()
        return True

    async def _blocking(self, work: Callable[[], object]) -> object:
        return await self._in_order(work)
