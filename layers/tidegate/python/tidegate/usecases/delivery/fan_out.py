"""Deliver one message of a stream to its subscriptions.

This file decides what is sent, and in what order values come. A value is stored as the newest before it is sent, and a
value that is older than the stored one is dropped. Who may receive it at that moment is decided by the send queue.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidegate.domain.client_queues import Frame
from tidegate.domain.crowds import parts
from tidegate.domain.subscriptions import Fault, LastValue, Stream, Subscription
from tidegate.errors import Unavailable
from tidegate.ports.delivery import CrowdQueue, Delivery
from tidegate.ports.gateway import LastValueStore, Verdict
from tidegate.ports.runtime import Clock, Observer
from tidegate.protocol import messages
from tidegate.protocol.messages import ErrorCode, Status
from tidegate.usecases.delivery.audiences import Audiences
from tidegate.usecases.delivery.interval import Interval
from tidegate.usecases.delivery.topic_cap import TopicCap
from tidegate.usecases.gateway.stream_frames import value_frame

if TYPE_CHECKING:
    from tidegate.usecases.delivery.carry import Carry


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of one message.

    Attributes:
        outcomes: the number of viewers per outcome, as far as it is known yet.
        outdated: nothing was sent, because a newer value is stored.
        sent: the value that was sent: the one that was to be delivered, or a newer one in its place. None when it was
            left to somebody else, or is no value.
        settled: it was the newest value once it was sent, and nothing was noted. This was looked at.
        left: another call carries the topic, and was left the rest.
    """

    outcomes: Mapping[Delivery, int]
    outdated: bool = False
    sent: LastValue | None = None
    settled: bool = False
    left: bool = False

    @property
    def count(self) -> int:
        return self.outcomes.get(Delivery.DELIVERED, 0)


class FanOut:
    """Delivers messages to the audience as it was read a moment ago."""

    def __init__(
        self,
        *,
        audiences: Audiences,
        last_values: LastValueStore,
        send: Callable[[Sequence[Frame]], Mapping[Delivery, int]],
        max_message_bytes: int,
        clock: Clock,
        observer: Observer,
        interval: Interval | None = None,
        crowds: CrowdQueue | None = None,
        carry: Carry | None = None,
        keep: Callable[[Stream, LastValue], object] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`send` is a `OneShotSender` or a `BackgroundSender`. `max_message_bytes`: largest frame.

        Args:
            interval: keeps values of a topic apart; None sends each at once.
            crowds: where the parts of an audience are asked for that is not read as a whole. None where each is.
            carry: for a one-shot sender with a pace, where values are conflated at all.
            keep: keeps the values of streams with a history: see `keep_history`. It may raise `Unavailable`.
            chance: as for `TopicCap`.
        """
        self._audiences = audiences
        self._last_values = last_values
        self._send = send
        self._max_bytes = max_message_bytes
        self._clock = clock
        self._observer = observer
        self._interval = interval
        self._crowds = crowds
        self._keep = keep
        self._carry = carry
        self._cap_topics = TopicCap(last_values, chance, observer)

    def deliver(self, stream: Stream, value: LastValue) -> Delivered:
        """Store the value as the stream's newest, and send it to every viewer who may receive it.

        A value that is older than the stored one is dropped.

        Raises:
            Unavailable: a store did not answer, and nothing was sent. Or the value was sent, and its history could not
                be written. The message is to be handled again.
        """
        if not self.fits(value):
            return self.notify(stream, ErrorCode.MESSAGE_TOO_LARGE, messages.TOO_LARGE)
        wanted = self._stored(stream, value)
        if wanted is Verdict.OUTDATED:
            self._observer.count("messages_outdated")
            # A late message may be a repetition, because its history could not be written.
            if (failure := self.kept(stream, value)) is not None:
                raise failure
            return Delivered({}, outdated=True)
        self.cap(stream, value)
        if not isinstance(wanted, LastValue):
            self._observer.count("messages_conflated")
            return Delivered({})
        failure = self.kept(stream, wanted)  # before it is sent, so that nobody has seen what is not kept
        delivered = self.send(stream, wanted)
        self._observer.count("messages_fanned_out")
        if failure is not None:
            raise failure
        return delivered

    def fits(self, value: LastValue) -> bool:
        """False when the payload alone is too large for any frame. Whole frames are checked again, for each datasource
        id."""
        return len(value.payload.encode("utf-8", "surrogatepass")) <= self._max_bytes

    def cap(self, stream: Stream, value: LastValue) -> None:
        """Called for each value that was stored: see `TopicCap`."""
        if value.topic is not None:
            self._cap_topics(stream.stream_key, value.topic)

    def is_crowd(self, stream: Stream) -> bool:
        """Whether the audience is too large to be sent to by one sender. Raises `Unavailable`."""
        return not self._audiences.whole(stream.stream_key)

    def kept(self, stream: Stream, value: LastValue) -> Unavailable | None:
        """Keep a value in the history, where there is one. Returns why that failed: viewers do not wait for it."""
        if stream.history is None or self._keep is None:
            return None
        try:
            self._keep(stream, value)
        except Unavailable as error:
            self._observer.count("history_not_written")
            return error
        return None

    def _stored(self, stream: Stream, value: LastValue) -> LastValue | Verdict:
        """Store a value. Returns what is to be sent now, or why nothing is."""
        if self._interval is not None:
            return self._interval(stream, value)
        return value if self._last_values.put_if_newer(stream.stream_key, value) else Verdict.OUTDATED

    def send(self, stream: Stream, value: LastValue) -> Delivered:
        """Send a value that is stored to every viewer who may receive it. Raises as `deliver`.

        Under a shortage of the send quota it may be a newer one, and it may be left to another call. A crowd is left to
        the senders of its parts. They send the newest value, and look again by themselves.
        """
        if self._crowds is not None and self.is_crowd(stream):
            self._observer.count("crowds_sent_in_parts")
            self._crowds.ask(parts(stream.stream_key, (value.topic,)))
            return Delivered({})
        if self._carry is None:
            return Delivered(self._send(self.frames_of(stream.stream_key, value)), sent=value)
        carrying = self._carry.of(stream, value, lambda newer: self.frames_of(stream.stream_key, newer))
        outcomes = self._carry.send(self.frames_of(stream.stream_key, value), carrying)
        return Delivered(outcomes, sent=carrying.sent, settled=carrying.settled, left=carrying.left)

    def frames_of(self, stream_key: str, value: LastValue) -> Sequence[Frame]:
        """Frames of a value, for the viewers that are read here: all of them, or those of one shard of a crowd."""
        return self._frames(stream_key, lambda datasource_id: value_frame(datasource_id, value), of=value)

    def viewers(self, stream: Stream) -> Sequence[Subscription]:
        """*Index.* Whom a value is sent to, read at most a second ago."""
        return self._audiences.of(stream.stream_key)

    def notify(self, stream: Stream, code: ErrorCode, text: str, *, status: bool = False) -> Delivered:
        """Notify the stream's viewers of a fault: of one message, or, with `status`, of the upstream."""
        if self._crowds is not None and self.is_crowd(stream):
            self._crowds.ask(parts(stream.stream_key, fault=Fault(code, text)))
            return Delivered({})
        notified = self.notify_part(stream.stream_key, code, text)
        if status:
            now = self._clock.now()
            frame = messages.status
            return self._send_all(
                stream.stream_key,
                lambda datasource_id: messages.encode(frame(datasource_id, Status.ERROR, now, code, text)),
            )
        return notified

    def notify_part(self, stream_key: str, code: ErrorCode, text: str) -> Delivered:
        """Notify the viewers that are read here of a fault of one message: all of them, or those of one shard."""
        now = self._clock.now()
        return self._send_all(
            stream_key, lambda datasource_id: messages.encode(messages.error(datasource_id, code, text, now))
        )

    def connected(self, stream: Stream) -> Delivered:
        """Notify the stream's viewers that its upstream is connected."""
        now = self._clock.now()
        return self._send_all(
            stream.stream_key,
            lambda datasource_id: messages.encode(messages.status(datasource_id, Status.CONNECTED, now)),
        )

    def has_audience(self, stream: Stream) -> bool:
        """*Index.* Whether anybody is subscribed; read now, not cached."""
        return bool(self._audiences.read(stream.stream_key).rows)

    def _send_all(self, stream_key: str, frame: Callable[[str], bytes]) -> Delivered:
        return Delivered(self._send(self._frames(stream_key, frame)))

    def _frames(
        self, stream_key: str, frame: Callable[[str], bytes], *, of: LastValue | None = None
    ) -> Sequence[Frame]:
        """Frames for all viewers, made by datasource id. `of`: the value that they show."""
        topic = None if of is None else of.topic
        rows = self._audiences.of(stream_key)
        ids = {row.key.datasource_id for row in rows}
        bodies = {datasource_id: self._fitting(datasource_id, frame(datasource_id)) for datasource_id in ids}
        return [Frame(row, bodies[row.key.datasource_id], of is not None, topic) for row in rows]

    def _fitting(self, datasource_id: str, body: bytes) -> bytes:
        return body if len(body) <= self._max_bytes else messages.too_large(datasource_id, self._clock.now())
