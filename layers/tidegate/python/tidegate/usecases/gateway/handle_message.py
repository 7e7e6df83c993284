"""One message of a browser: parse it, act on it, and answer through the management API.

Invariant of this file: every message is answered, whatever goes wrong. No answer holds the text of an internal fault.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tidegate.domain.access import FRESH_S
from tidegate.domain.partitions import partition_of
from tidegate.domain.subscriptions import TOLD_ALL, CatchUpRequest, LastValue, Stream, Subscription
from tidegate.errors import LimitReached, TidegateError, Unavailable
from tidegate.ports.delivery import CatchUpQueue, Delivery, OutboundMessage, Sender
from tidegate.ports.gateway import LastValueStore, StreamStore
from tidegate.ports.relay_workers import RelayWorkers
from tidegate.ports.runtime import Clock, Observer
from tidegate.protocol import batches, messages
from tidegate.protocol.messages import EndReason, ErrorCode, Status
from tidegate.usecases.gateway.end_connection import EndConnection
from tidegate.usecases.gateway.stream_frames import status_frame, value_frame
from tidegate.usecases.gateway.subscribe import Subscribe, Subscribed, TooManyDatasources
from tidegate.usecases.gateway.unsubscribe import Unsubscribe
from tidegate.usecases.limits.message_budget import MessageBudget

if TYPE_CHECKING:
    from tidegate.usecases.gateway.recover import Recover, Recovered

#: A process that asked for a relay worker does not ask again for so long, seconds. An idle worker stays longer than
#: this.
_STARTED_S = 10.0


class HandleMessage:
    """Handle `subscribe`, `unsubscribe` and `ping`, whichever route of the platform they came by."""

    def __init__(
        self,
        *,
        max_message_bytes: int,
        budget: MessageBudget,
        subscribe: Subscribe,
        unsubscribe: Unsubscribe,
        streams: StreamStore,
        last_values: LastValueStore,
        catch_ups: CatchUpQueue,
        relay_workers: RelayWorkers,
        end_connection: EndConnection,
        sender: Sender,
        clock: Clock,
        observer: Observer,
        recover: Callable[[], Recover] | None = None,
    ) -> None:
        """`recover` is asked only for viewers who name a `since`, of a datasource with a history."""
        self._max_bytes = max_message_bytes
        self._budget = budget
        self._subscribe = subscribe
        self._unsubscribe = unsubscribe
        self._streams = streams
        self._last_values = last_values
        self._catch_ups = catch_ups
        self._relay_workers = relay_workers
        self._started: dict[int, float] = {}
        self._end_connection = end_connection
        self._sender = sender
        self._clock = clock
        self._observer = observer
        self._recover = recover

    def __call__(self, connection_id: str, text: str) -> None:
        """Handle one text message of one connection."""
        self._observer.count("messages_in")
        try:
            self._budget.spend(connection_id)
        except Exception as error:  # answered, whatever it is
            self._not_spent(connection_id, error)
            return
        try:
            message = messages.parse(text, self._max_bytes, self._clock.now())
        except messages.BadMessage as bad:
            self._send(connection_id, messages.encode(bad.answer))
            return
        match message:
            case messages.PingMessage(request_id):
                self._send(connection_id, messages.encode(messages.pong(request_id, self._clock.now())))
            case messages.UnsubscribeMessage():
                self._on_unsubscribe(connection_id, message)
            case messages.SubscribeMessage():
                self._on_subscribe(connection_id, message)
            case messages.SubscribeSeveralMessage():
                self._on_subscribe_several(connection_id, message)

    def _not_spent(self, connection_id: str, error: Exception) -> None:
        """Say so. Who sent too much is cut off; where it could not be counted, the connection stays."""
        code, text, retryable = self._told(connection_id, error)
        frame = messages.error(
            None,
            code,
            text,
            self._clock.now(),
            retryable=retryable,
            retry_after_ms=messages.retry_after_ms(error),
            reason=EndReason.LIMIT if isinstance(error, LimitReached) else None,
        )
        self._send(connection_id, messages.encode(frame))
        if isinstance(error, LimitReached):
            self._end_connection.cut_off(connection_id)

    def _on_subscribe(self, connection_id: str, message: messages.SubscribeMessage) -> None:
        self._observer.about(dashboard=message.dashboard_id)
        try:
            done = self._subscribe(connection_id, message.dashboard_id, message.datasource_id, message.session_token)
        except Exception as error:  # answered below, whatever it is
            self._refuse(connection_id, message.request_id, message.datasource_id, error)
            return
        self._on_subscribed(connection_id, message.request_id, done, message.since)

    def _on_subscribe_several(self, connection_id: str, message: messages.SubscribeSeveralMessage) -> None:
        """Answer each datasource by itself, as if it had been asked for alone."""
        self._observer.about(dashboard=message.dashboard_id)
        outcomes: Mapping[str, Subscribed | Exception]
        try:
            outcomes = self._subscribe.several(
                connection_id, message.dashboard_id, message.datasource_ids, message.session_token
            )
        except TooManyDatasources as error:  # of the message as a whole, and one answer is enough
            self._refuse(connection_id, message.request_id, None, error)
            return
        except Exception as error:  # answered below, whatever it is
            outcomes = dict.fromkeys(message.datasource_ids, error)
        for datasource_id, outcome in outcomes.items():
            if isinstance(outcome, Exception):
                self._refuse(connection_id, message.request_id, datasource_id, outcome)
            else:
                self._on_subscribed(connection_id, message.request_id, outcome, message.since.get(datasource_id))

    def _on_subscribed(self, connection_id: str, request_id: str, done: Subscribed, since: str | None) -> None:
        recovered, told = None, None
        if since is not None and not done.refreshed:
            recovered = self._recovered(done, since)
            told = recovered is not None and recovered.left.recovered
        ack = messages.encode(messages.ack(request_id, done.row.key.datasource_id, self._clock.now(), told))
        if done.refreshed:
            self._send(connection_id, ack)
            return
        self._welcome(done, ack, recovered)
        if done.stream.relayed:
            self._start_relay(done.stream)

    def _start_relay(self, stream: Stream) -> None:
        """Ask for a relay worker. A running worker finds new streams by itself, so asking now and then is enough."""
        partition, now = partition_of(stream), self._clock.monotonic()
        if now - self._started.get(partition, float("-inf")) < _STARTED_S:
            return
        try:
            self._relay_workers.start(partition)
            self._started[partition] = now
        except Unavailable as error:  # the schedule starts it within a minute
            self._observer.fault("relay not started", error)

    def _recovered(self, done: Subscribed, since: str) -> Recovered | None:
        """What a viewer who was away is sent. None when there is no history, or it cannot be read."""
        if done.history is None or self._recover is None:
            return None
        row = done.row
        try:
            newest = self._last_values.newest(row.stream_key)
            return self._recover().at_once(row.key.datasource_id, done.stream, done.history, since, newest)
        except Exception as error:  # the subscription stands, and the viewer is told that something may be missing
            self._observer.fault("history not read", error, connection_id=row.key.connection_id)
            return None

    def _welcome(self, done: Subscribed, ack: bytes, recovered: Recovered | None) -> None:
        """Send ack, status, what was missed, and the newest value of each topic, and ask for a catch-up.

        They go in few messages if the connection asked for batches. The catch-up is for a message or a change of status
        that passed while an index lagged or an audience was cached.
        """
        row, stream = done.row, self._as_it_is_now(done.stream)
        frames = [ack, status_frame(row.key.datasource_id, stream, self._clock.now())]
        told: bool | None = True
        if recovered is not None or not row.batch:
            told, frames = self._arrived(row.key.connection_id, frames), []
            if told is None:
                return
        left = None
        if recovered is not None:
            arrived = self._points_arrived(done, recovered)
            if arrived is None:
                return
            left = recovered.left if arrived else replace(recovered.left, sent={})
        values = self._values_for(done)
        frames += [value_frame(row.key.datasource_id, value, retained=True) for value in values]
        shown = self._shown(row, frames, done.checked_at)
        if shown is None:
            return
        # What may not have arrived is brought by the catch-up.
        seen = {value.topic or "": value.order for value in values} if shown else {}
        number = stream.status_number if told and (shown or not row.batch) else None
        number = number if stream.relayed else TOLD_ALL
        request = CatchUpRequest(row.key, row.generation, row.stream_key, seen, number, recovering=left)
        try:
            self._catch_ups.queue(request)
        except Unavailable as error:
            self._observer.fault("catch-up not queued", error, connection_id=row.key.connection_id)

    def _points_arrived(self, done: Subscribed, recovered: Recovered) -> bool | None:
        """Send points, one frame after the other, while the right to them was checked a moment ago. As `_arrived`."""
        for _, frame in recovered.frames:
            if self._clock.monotonic() - done.checked_at >= FRESH_S:
                return False
            arrived = self._arrived(done.row.key.connection_id, [frame])
            if not arrived:
                return arrived
        return True

    def _arrived(self, connection_id: str, frames: Sequence[bytes]) -> bool | None:
        """Send frames one after the other. False when one may not have arrived, None when the connection is gone."""
        deliveries = []
        for frame in frames:
            deliveries.append(self._send(connection_id, frame))
            if deliveries[-1] is Delivery.GONE:
                return None
        return _all_arrived(deliveries)

    def _shown(self, row: Subscription, frames: Sequence[bytes], checked_at: float) -> bool | None:
        """Send values, and what comes before them if the connection asked for batches. Answers as `_arrived`.

        Many are sent at the same time: no two are of one topic. `checked_at`: when the right to them was checked,
        monotonic seconds. What could only leave `FRESH_S` later is not sent, because the right may be lost again.
        """
        connection_id, fitting = row.key.connection_id, [self._fitting(frame) for frame in frames]
        first, *others = batches.split(fitting) if row.batch else [b"", *fitting]
        deliveries = [self._post(connection_id, first)] if first else []
        if others and Delivery.GONE not in deliveries:
            posts = [OutboundMessage(connection_id, body) for body in others]
            results = self._sender.post_many(
                posts, before_each=lambda _: self._clock.monotonic() - checked_at < FRESH_S
            )
            deliveries += [self._noted(connection_id, result.delivery) for result in results]
        return None if Delivery.GONE in deliveries else _all_arrived(deliveries)

    def _values_for(self, done: Subscribed) -> Sequence[LastValue]:
        """The newest values, read now that the row is visible.

        None of them when the access check is too old by now, because the right may be lost again. Then the catch-up,
        which checks again, brings them.
        """
        try:
            values = self._last_values.newest(done.row.stream_key)
        except Exception as error:  # the subscription stands, and the next message brings a value
            self._observer.fault("last value not read", error, connection_id=done.row.key.connection_id)
            return []
        if self._clock.monotonic() - done.checked_at >= FRESH_S:
            return []
        return [value for value in values if not value.deleted]

    def _as_it_is_now(self, stream: Stream) -> Stream:
        """The stream, read again if it was not connected: it may have been connected before the row was visible.

        If it cannot be read, the catch-up tells what has changed.
        """
        if stream.connected or not stream.relayed:
            return stream
        try:
            return self._streams.relayed(stream.stream_key) or stream
        except Unavailable as error:
            self._observer.fault("status not read", error, stream=stream.stream_key)
            return stream

    def _on_unsubscribe(self, connection_id: str, message: messages.UnsubscribeMessage) -> None:
        try:
            ended = self._unsubscribe(connection_id, message.datasource_id)
        except Exception as error:  # answered below, whatever it is
            self._refuse(connection_id, message.request_id, message.datasource_id, error)
            return
        now = self._clock.now()
        if ended:
            self._send(connection_id, messages.encode(messages.status(message.datasource_id, Status.DISCONNECTED, now)))
        self._send(connection_id, messages.encode(messages.ack(message.request_id, message.datasource_id, now)))

    def _refuse(self, connection_id: str, request_id: str, datasource_id: str | None, error: Exception) -> None:
        code, text, retryable = self._told(connection_id, error)
        if isinstance(error, TidegateError):
            self._observer.info("refused", connection_id=connection_id, code=error.code)
        wait_ms = messages.retry_after_ms(error)
        frame = messages.refused(request_id, datasource_id, code, text, self._clock.now(), retryable, wait_ms)
        self._send(connection_id, messages.encode(frame))

    def _told(self, connection_id: str, error: Exception) -> tuple[ErrorCode, str, bool]:
        """Count what went wrong. Returns what the client is told of it: code, text, and whether to try again."""
        if isinstance(error, TidegateError):
            self._observer.count("refusals", code=error.code)
            return messages.code_for(error), messages.text_for(error), messages.retryable(error)
        self._observer.count("faults")
        self._observer.fault("message failed", error, connection_id=connection_id)
        return ErrorCode.CONNECT_FAILED, "Subscription failed", True

    def _fitting(self, frame: bytes) -> bytes:
        return frame if len(frame) <= self._max_bytes else messages.too_large(None, self._clock.now())

    def _send(self, connection_id: str, frame: bytes) -> Delivery:
        """Send one frame. A frame that is too large is replaced by an error."""
        return self._post(connection_id, self._fitting(frame))

    def _post(self, connection_id: str, message: bytes) -> Delivery:
        """Send one message. A connection that is gone is removed."""
        return self._noted(connection_id, self._sender.post(connection_id, message))

    def _noted(self, connection_id: str, delivery: Delivery) -> Delivery:
        if delivery is Delivery.GONE:
            self._end_connection.gone(connection_id)
        elif delivery is not Delivery.DELIVERED:
            self._observer.count("answers_not_delivered", delivery=delivery.value)
        return delivery


def _all_arrived(deliveries: Collection[Delivery]) -> bool:
    return not {Delivery.THROTTLED, Delivery.FAILED, Delivery.WITHHELD}.intersection(deliveries)
