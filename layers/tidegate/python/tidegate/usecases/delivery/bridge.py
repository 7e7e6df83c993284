"""A device's MQTT message, as an IoT rule hands it over, to the streams whose topic filter matches.

Invariants of this file: only streams of the rule's own allowed topic are looked at, so overlapping entries never
deliver a message twice; and a message that arrives after a stream was announced finds it, because the version of the
entry's streams is read, strongly, for every message. (A list merely cached for a second would lose the message
altogether: it would not even become the stream's last value.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.domain.subscriptions import LastValue, Stream
from tidegate.ports.gateway import SourceStreams, StreamStore
from tidegate.ports.runtime import Clock, Observer
from tidegate.protocol.messages import ErrorCode
from tidegate.protocol.payloads import Unparsable, parsed
from tidegate.protocol.topics import matches
from tidegate.usecases.delivery.fan_out import FanOut

#: Streams that nobody wanted for a day disappear without a new version; the list is read again this often, seconds.
FORGET_S = 60.0


@dataclass(frozen=True, slots=True)
class DeviceMessage:
    """One publish.

    Attributes:
        entry: the allowed topic whose rule fired.
        topic: as published.
        payload: the raw bytes.
        timestamp_ms: epoch milliseconds, when the broker had it.
        message_id: orders messages of the same millisecond and tells repetitions apart.
    """

    allowed_topic: str
    topic: str
    payload: bytes
    timestamp_ms: int
    message_id: str


class Bridge:
    """The use case behind the MQTT bridge."""

    def __init__(
        self,
        *,
        enabled: bool,
        max_payload_bytes: int,
        streams: StreamStore,
        fan_out: FanOut,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._enabled = enabled
        self._max_bytes = max_payload_bytes
        self._streams = streams
        self._fan_out = fan_out
        self._clock = clock
        self._observer = observer
        self._entries: dict[str, tuple[float, SourceStreams]] = {}

    def __call__(self, message: DeviceMessage) -> int:
        """Deliver the message. Returns how many viewers received it.

        One stream's failure never keeps the message from another; the first is raised at the end.
        """
        self._observer.count("device_messages")
        if not self._enabled:
            return 0
        received, failure = 0, None
        for stream in self._of_source(message.allowed_topic):
            if stream.topic_filter is None or not matches(stream.topic_filter, message.topic):
                continue
            try:
                received += self._one(stream, message)
            except Exception as error:  # raised again below
                failure = failure or error
        if failure is not None:
            raise failure
        return received

    def _one(self, stream: Stream, message: DeviceMessage) -> int:
        if len(message.payload) > self._max_bytes:
            text = "MQTT payload exceeded size limit"
            return self._fan_out.notify(stream, ErrorCode.MESSAGE_TOO_LARGE, text).count
        try:
            payload = parsed(message.payload, stream.parser)
        except Unparsable:
            self._observer.count("messages_unparsable")
            self._fan_out.notify(stream, ErrorCode.PROTOCOL_ERROR, "MQTT payload parsing failed")
            return 0
        value = LastValue(payload, message.timestamp_ms, message.message_id)
        return self._fan_out.deliver(stream, value).count

    def _of_source(self, allowed_topic: str) -> Sequence[Stream]:
        started = self._clock.monotonic()
        kept = self._entries.get(allowed_topic)
        if kept and started - kept[0] < FORGET_S and kept[1].version == self._streams.version_of(allowed_topic):
            return kept[1].streams
        kept = (started, self._streams.of_source(allowed_topic))
        self._entries[allowed_topic] = kept
        return kept[1].streams
