"""Deliver a device's MQTT message, as an IoT rule hands it over, to the streams whose topic filter matches.

Invariants of this file:

- Only streams of the rule's own allowed topic are looked at. So allowed topics that overlap never deliver a message
  twice.
- The last value that is sent is the newest: `settle` sees to it after each send. What fails is handled again, because
  the failure is raised.
- A message that arrives after a stream was registered finds the stream. For this the version of the allowed topic's
  streams is read, strongly consistent, for every message or batch. A list that is cached for a second would lose the
  message: it would not even become the stream's last value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidegate.domain.subscriptions import LastValue, Stream
from tidegate.ports.gateway import SourceStreams, StreamStore
from tidegate.ports.runtime import Clock, Observer
from tidegate.protocol.messages import ErrorCode
from tidegate.protocol.payloads import Unparsable, parsed
from tidegate.protocol.topics import matches
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.delivery.senders import Patience
from tidegate.usecases.delivery.settle import Settle

#: How often the list of streams is read again although its version is the same, seconds. Streams that nobody requested
#: for a day disappear without a new version.
FORGET_S = 60.0
#: An outdated message that comes so late may be a repetition, seconds: the invocation before it may have sent the value
#: and died before it looked again. So the newest value is sent again. AWS repeats an invocation after a minute.
REPEATED_S = 30.0


@dataclass(frozen=True, slots=True)
class DeviceMessage:
    """One message that a device published.

    Attributes:
        allowed_topic: the allowed topic whose rule fired.
        topic: the topic as published.
        payload: the raw bytes.
        timestamp_ms: when the broker received it, epoch milliseconds.
        message_id: orders messages of the same millisecond, and tells a repetition from a new message.
    """

    allowed_topic: str
    topic: str
    payload: bytes
    timestamp_ms: int
    message_id: str


@dataclass(frozen=True, slots=True)
class BatchedValue:
    """A value of a stream, and the message it came with."""

    message: DeviceMessage
    stream: Stream
    value: LastValue


class Bridge:
    """The use case behind the MQTT bridge."""

    def __init__(
        self,
        *,
        enabled: bool,
        max_payload_bytes: int,
        streams: StreamStore,
        fan_out: FanOut,
        settle: Settle,
        clock: Clock,
        observer: Observer,
        patience: Patience | None = None,
        together: Callable[[Sequence[BatchedValue]], Sequence[BatchedValue]] | None = None,
    ) -> None:
        """
        Args:
            patience: that of the sender, where it has a pace.
            together: delivers values that came together, of each topic the newest: see `together`. None where values
                are not conflated: then each message is delivered by itself, in order.
        """
        self._together = together
        self._enabled = enabled
        self._max_bytes = max_payload_bytes
        self._streams = streams
        self._fan_out = fan_out
        self._settle = settle
        self._clock = clock
        self._observer = observer
        self._patience = patience
        #: (stream key, topic) -> when it was settled after a late message
        self._settled: dict[tuple[str, str | None], float] = {}
        self._kept: dict[str, tuple[float, SourceStreams]] = {}

    def __call__(self, message: DeviceMessage) -> int:
        """Deliver the message. Returns how many viewers received it.

        A failure of one stream never keeps the message from another. The first failure is raised at the end.
        """
        if self._patience is not None:
            self._patience.begin()
        return self._handle(message)

    def _handle(self, message: DeviceMessage, follow: int = 0) -> int:
        """Deliver the message. `follow`: how many come after it, in the same time."""
        self._observer.count("device_messages")
        if not self._enabled:
            return 0
        received, failure = 0, None
        streams = _matching(self._of_source(message.allowed_topic), message)
        for done, stream in enumerate(streams):
            if self._patience is not None:
                self._patience.share(len(streams) - done + follow)
            try:
                received += self._deliver(stream, message)
            except Exception as error:  # raised again below
                failure = failure or error
        if failure is not None:
            raise failure
        return received

    def batch(self, messages: Sequence[DeviceMessage]) -> Sequence[DeviceMessage]:
        """Deliver messages that came together: where values are conflated, the newest of each topic.

        Returns those that failed. They are to be handled again.
        """
        if self._patience is not None:
            self._patience.begin()
        if self._together is None:
            return self._each(sorted(messages, key=_order))
        wanted = _newest(messages)
        self._observer.count("device_messages", len(messages))
        if conflated := len(messages) - len(wanted):
            self._observer.count("messages_conflated", conflated)
        values, failed = list[BatchedValue](), list[DeviceMessage]()
        listed = dict[str, Sequence[Stream]]()  # read once: all messages were there before
        for message in wanted if self._enabled else ():
            try:
                if message.allowed_topic not in listed:
                    listed[message.allowed_topic] = self._of_source(message.allowed_topic)
                for stream in _matching(listed[message.allowed_topic], message):
                    if (value := self._value(stream, message)) is not None:
                        values.append(BatchedValue(message, stream, value))
            except Exception as error:  # the others do not wait for it
                self._observer.fault("device message failed", error)
                failed.append(message)
        again = self._together(values)
        return [*failed, *dict.fromkeys(each.message for each in again if each.message not in failed)]

    def _each(self, messages: Sequence[DeviceMessage]) -> Sequence[DeviceMessage]:
        """Deliver each message by itself. Returns those that failed."""
        failed = []
        for done, message in enumerate(messages, start=1):
            try:
                self._handle(message, len(messages) - done)
            except Exception as error:  # the others do not wait for it
                self._observer.fault("device message failed", error)
                failed.append(message)
        return failed

    def _value(self, stream: Stream, message: DeviceMessage) -> LastValue | None:
        """The message as a value of the stream. None when it is none: then viewers are told."""
        if len(message.payload) > self._max_bytes:
            self._fan_out.notify(stream, ErrorCode.MESSAGE_TOO_LARGE, "MQTT payload exceeded size limit")
            return None
        try:
            payload = parsed(message.payload, stream.parser)
        except Unparsable:
            self._observer.count("messages_unparsable")
            self._fan_out.notify(stream, ErrorCode.PROTOCOL_ERROR, "MQTT payload parsing failed")
            return None
        topic = message.topic if stream.by_topic else None
        return LastValue(payload, message.timestamp_ms, message.message_id, topic)

    def _deliver(self, stream: Stream, message: DeviceMessage) -> int:
        if (value := self._value(stream, message)) is None:
            return 0
        topic = value.topic
        delivered = self._fan_out.deliver(stream, value)
        if delivered.sent is not None and not delivered.settled:
            self._settle.after(stream, delivered.sent)
        elif delivered.outdated and self._may_repeat(stream, topic, message):
            started = self._clock.monotonic()
            self._settle(stream, topic)
            self._settled[stream.stream_key, topic] = started
        return delivered.count

    def _may_repeat(self, stream: Stream, topic: str | None, message: DeviceMessage) -> bool:
        """Whether an outdated message may be a repetition after an invocation that sent it and died.

        That invocation ended at least `REPEATED_S` ago. So one settling makes up for all that come within that time,
        and messages that are late because there are too many cost no more than that.
        """
        now = self._clock.monotonic()
        if self._clock.now() - message.timestamp_ms / 1000 < REPEATED_S:
            return False
        self._settled = {key: at for key, at in self._settled.items() if now - at < REPEATED_S}
        return (stream.stream_key, topic) not in self._settled

    def _of_source(self, allowed_topic: str) -> Sequence[Stream]:
        started = self._clock.monotonic()
        kept = self._kept.get(allowed_topic)
        if kept and started - kept[0] < FORGET_S and kept[1].version == self._streams.version_of(allowed_topic):
            return kept[1].streams
        kept = (started, self._streams.of_source(allowed_topic))
        self._kept[allowed_topic] = kept
        return kept[1].streams


def _matching(streams: Sequence[Stream], message: DeviceMessage) -> Sequence[Stream]:
    return [
        stream for stream in streams if stream.topic_filter is not None and matches(stream.topic_filter, message.topic)
    ]


def _order(message: DeviceMessage) -> tuple[int, str]:
    return message.timestamp_ms, message.message_id


def _newest(messages: Sequence[DeviceMessage]) -> Sequence[DeviceMessage]:
    """The newest message of each topic, in order. Overlapping allowed topics are apart, as their streams are."""
    newest = {(message.allowed_topic, message.topic): message for message in sorted(messages, key=_order)}
    return sorted(newest.values(), key=_order)
