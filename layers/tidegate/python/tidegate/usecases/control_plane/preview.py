"""The first messages of a datasource that is not saved yet, for who is writing it.

    saving would refuse it     -> raised, as saving raises it
    a subscribe would be refused, or the source refuses -> a fault, with the code and text that viewers would be told
    otherwise                  -> up to `MOST_MESSAGES`

Sources of the relay are connected to by its own adapters, once, and left again. Nobody can connect to IoT Core from
here. There the stream is registered for a minute, as a subscribe would, so that the bridge keeps its last values from
now on. They are read until there are some. So a device that published once, before anybody asked, shows nothing.

Invariant of this file: every connection is closed when the answer is given, after `PREVIEW_S` and the closing at most.
What is connected to went through the same checks as for a saved datasource, in the same order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from tidegate.domain.audit import AuditEvent
from tidegate.domain.dashboards import Dashboard
from tidegate.domain.documents import check_document
from tidegate.domain.intents import STREAM_TYPES
from tidegate.domain.profiles import BrokerProfile
from tidegate.domain.stream_policy import StreamPolicy, stream_for
from tidegate.domain.subscriptions import Fault, LastValue, Stream
from tidegate.domain.switches import REALTIME_OFF
from tidegate.domain.time_limits import PREVIEW_S
from tidegate.domain.users import User
from tidegate.errors import Disabled, InvalidInput, PolicyBlocked, TidegateError, Unavailable
from tidegate.ports.control_plane import AuditLog
from tidegate.ports.gateway import LastValueStore, StreamStore
from tidegate.ports.profiles import ProfileStore
from tidegate.ports.relay import (
    MqttRequest,
    Oversize,
    UpstreamFault,
    UpstreamMessage,
    UpstreamRequest,
    UpstreamRequests,
    Upstreams,
)
from tidegate.ports.runtime import Clock, Ids
from tidegate.protocol.messages import ErrorCode, code_for, text_for
from tidegate.protocol.payloads import Unparsable, parsed
from tidegate.usecases.control_plane.author_profiles import Opened, check_author
from tidegate.usecases.control_plane.check_topic import check_topic
from tidegate.usecases.control_plane.resolve_intents import ProfilesRead, ResolveIntents
from tidegate.usecases.limits.connection_quota import ConnectionQuota
from tidegate.usecases.limits.look import LookAtLimits

#: Messages of an answer.
MOST_MESSAGES = 5
#: Previews of a user at the same time. A person waits for one; the second is of another tab, or of a dialog that was
#: closed meanwhile.
AT_ONCE = 2
#: How long a stream of IoT Core stays registered, seconds. It is longer than a preview, and than a second one.
_REGISTERED_S = 60
#: How long the store of streams keeps a stream after it was requested, seconds: see `ports.gateway.StreamStore`.
_STREAM_LIFE_S = 86_400
#: How long closing may take, seconds. After that the connection is cut.
_CLOSE_S = 5.0
#: The id of the datasource, which has none yet.
_ID = "preview"


@dataclass(frozen=True, slots=True)
class Shown:
    """One message.

    Attributes:
        payload: JSON text.
        topic: where it was published, with MQTT; else None.
        at: when it came, epoch seconds.
    """

    payload: str
    topic: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Previewed:
    """What came, the oldest first, and why there is nothing or nothing more; None when nothing went wrong."""

    messages: list[Shown]
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class PreviewPolicy:
    """
    Attributes:
        enabled: whether realtime is switched on.
        streams: the operator's policy of streams.
        max_bytes: largest payload.
        longest_s: how long messages are waited for, seconds.
        further_s: how long further messages are waited for after the first one, seconds.
        poll_s: pause between two looks at the last values of a stream of IoT Core, seconds.
    """

    enabled: bool
    streams: StreamPolicy
    max_bytes: int
    longest_s: float = PREVIEW_S
    further_s: float = 1.0
    poll_s: float = 0.5


class Preview:
    """The use case behind `POST /datasources:preview`."""

    def __init__(
        self,
        *,
        policy: PreviewPolicy,
        editable: Opened,
        profiles: ProfileStore,
        resolve: ResolveIntents,
        limits: LookAtLimits,
        quota: ConnectionQuota,
        requests: UpstreamRequests,
        connect: Callable[[], Upstreams],
        streams: StreamStore,
        last_values: LastValueStore,
        audit: AuditLog,
        clock: Clock,
        ids: Ids,
    ) -> None:
        """`connect`: makes the adapters of upstreams, within the event loop that uses them."""
        self._policy = policy
        self._editable = editable
        self._profiles = profiles
        self._resolve = resolve
        self._limits = limits
        self._quota = quota
        self._requests = requests
        self._connect = connect
        self._streams = streams
        self._last_values = last_values
        self._audit = audit
        self._clock = clock
        self._ids = ids

    def __call__(self, user: User, dashboard_id: str, kind: str, settings: Mapping[str, Any]) -> Previewed:
        """Show the first messages.

        Args:
            kind: the datasource's type.
            settings: its settings.

        Raises:
            NotFound, Denied: the user may not edit the dashboard, or may not use a profile.
            InvalidInput: the datasource could not be saved.
            LimitReached: the user has `AT_ONCE` previews.
            Unavailable: a store did not answer.
        """
        dashboard = self._editable(user, dashboard_id)
        cap, holder = f"preview#{user.user_id}", self._ids.new_uuid()
        refusal = f"Too many previews of this user: at most {AT_ONCE} at the same time"
        # A place that is left by a process that died is freed by the next full revalidation, as no connection has it.
        slot = self._quota.take(cap, holder, AT_ONCE, refusal=refusal)
        try:
            return self._preview(user, dashboard, kind, settings)
        finally:
            self._quota.free([slot] if slot else [], holder)

    def _preview(self, user: User, dashboard: Dashboard, kind: str, settings: Mapping[str, Any]) -> Previewed:
        if kind.strip().lower() not in STREAM_TYPES:
            raise InvalidInput(f"type: one of {', '.join(STREAM_TYPES)}")
        entry = {"id": _ID, "type": kind, "settings": settings}
        document = check_document({"schemaVersion": 1, "title": "Preview", "datasources": [entry]})
        profiles = ProfilesRead(self._profiles)
        check_author(user, document, {_ID}, profiles)
        resolved = self._resolve(dashboard.dashboard_id, document, profiles)
        for problem in resolved.problems.values():
            raise InvalidInput(problem.message, code="datasource_unresolved")
        broker, _ = profiles.of(entry)
        now = self._clock.now()
        metadata = {"type": kind.strip().lower()}
        event = AuditEvent("datasource.previewed", user.user_id, "dashboard", dashboard.dashboard_id, int(now * 1000))
        self._audit.record(replace(event, metadata=metadata))
        try:
            stream = self._stream(resolved.intents[_ID], broker, dashboard.owner_id, int(now))
            if not stream.relayed:
                return self._of_iot_core(replace(stream, history=None))
            return asyncio.run(self._of_upstream(stream, self._requests(stream)))
        except Unavailable:
            raise
        except TidegateError as refused:
            return Previewed([], Fault(code_for(refused), text_for(refused)))
        except UpstreamFault as fault:
            return Previewed([], Fault(fault.code, fault.text))

    def _stream(self, intent: Mapping[str, object], broker: BrokerProfile | None, owner_id: str, now: int) -> Stream:
        """The stream that a subscribe would be given now. Raises what a subscribe would raise."""
        if not self._policy.enabled:
            raise Disabled(REALTIME_OFF)
        if broker is not None:
            topic = check_topic(broker, str(intent["topic"]), self._policy.streams)
            if topic.problem is not None:
                raise PolicyBlocked(topic.problem)
        stream = stream_for(intent, broker, self._policy.streams, now)
        if stream.relayed:
            self._limits.upstream(owner_id, stream.stream_key, self._limits.deadline())
        return stream

    # --- sources of the relay -----------------------------------------------------------------------------------

    async def _of_upstream(self, stream: Stream, request: UpstreamRequest | MqttRequest) -> Previewed:
        upstreams = self._connect()
        try:
            return await self._collect(self._received(stream, upstreams, request), answers=True)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await upstreams.close()

    async def _received(
        self, stream: Stream, upstreams: Upstreams, request: UpstreamRequest | MqttRequest
    ) -> AsyncGenerator[Shown | None, None]:
        """Messages, and None for every other event. Raises `UpstreamFault`."""
        events = upstreams.open(request, "")
        try:
            async for event in events:
                too_large = isinstance(event, UpstreamMessage) and len(event.payload) > self._policy.max_bytes
                if too_large or isinstance(event, Oversize):
                    text = f"A message is larger than {self._policy.max_bytes} bytes"
                    raise UpstreamFault(ErrorCode.MESSAGE_TOO_LARGE, text)
                if not isinstance(event, UpstreamMessage) or event.deleted:
                    yield None
                    continue
                try:
                    payload = parsed(event.payload, stream.parser)
                except Unparsable as error:
                    text = "A payload is not JSON. With the parser text it is shown as it is."
                    raise UpstreamFault(ErrorCode.PROTOCOL_ERROR, text) from error
                yield Shown(payload, event.topic or None, self._clock.now())
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    async def _collect(self, came: AsyncGenerator[Shown | None, None], *, answers: bool) -> Previewed:
        """The first messages. `answers`: whether the source says that it is there before its first message."""
        found = Previewed([])
        loop, answered = asyncio.get_running_loop(), not answers
        try:
            async with asyncio.timeout(self._policy.longest_s) as limit:
                async for message in came:
                    answered = True
                    if message is None:
                        continue
                    found.messages.append(message)
                    if len(found.messages) >= MOST_MESSAGES:
                        break
                    if len(found.messages) == 1:
                        limit.reschedule(min(limit.when() or 0.0, loop.time() + self._policy.further_s))
        except TimeoutError:
            if not answered:
                text = f"The source did not answer within {self._policy.longest_s:g} seconds"
                return Previewed([], Fault(ErrorCode.CONNECT_TIMEOUT, text))
        except UpstreamFault as fault:
            return replace(found, fault=Fault(fault.code, fault.text))
        finally:
            await came.aclose()
        return found

    # --- IoT Core -----------------------------------------------------------------------------------------------

    def _of_iot_core(self, stream: Stream) -> Previewed:
        requested = stream.last_requested_at - _STREAM_LIFE_S + _REGISTERED_S
        self._streams.touch(replace(stream, last_requested_at=requested))
        known = self._values(stream)
        if known:
            return Previewed([_shown(stream, value) for value in known[-MOST_MESSAGES:]])
        return asyncio.run(self._collect(self._changed(stream), answers=False))

    async def _changed(self, stream: Stream) -> AsyncGenerator[Shown | None, None]:
        seen: set[tuple[str | None, tuple[int, str]]] = set()
        while True:
            await asyncio.sleep(self._policy.poll_s)
            for value in await asyncio.to_thread(self._values, stream):
                if (value.topic, value.order) not in seen:
                    seen.add((value.topic, value.order))
                    yield _shown(stream, value)

    def _values(self, stream: Stream) -> list[LastValue]:
        """The last values that are there, the oldest first."""
        values = [value for value in self._last_values.newest(stream.stream_key) if not value.deleted]
        return sorted(values, key=lambda value: value.order)


def _shown(stream: Stream, value: LastValue) -> Shown:
    """Where there is one topic only, the values do not name it."""
    return Shown(value.payload, value.topic or stream.topic_filter, value.timestamp_ms / 1000)
