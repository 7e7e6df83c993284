"""Catch-up: some seconds after a subscribe, or after a send that failed, send the newest value of each topic and the
status of the stream, if they were missed.

Invariant of this file: every subscriber ends with the newest values and the status of the stream, although indexes lag
and audiences are cached. Catching up twice is harmless. A newer value may be fanned out after the catch-up has read a
value and before it has sent it; then the viewer would end with the older one. So the newest value is read once more
after every send. It is the same with a status.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tidegate.domain.client_queues import Frame
from tidegate.domain.crowds import Audience
from tidegate.domain.subscriptions import TOLD_ALL, CatchUpRequest, LastValue, Subscription
from tidegate.errors import Unavailable
from tidegate.ports.delivery import CatchUpQueue, Delivery, Sender
from tidegate.ports.gateway import AccessStore, LastValueStore, StreamStore, SubscriptionStore
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.delivery.audiences import Audiences
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.paced_queue import Pace
from tidegate.usecases.delivery.senders import send_once
from tidegate.usecases.gateway.end_connection import EndConnection
from tidegate.usecases.gateway.stream_frames import status_frame, value_frame

if TYPE_CHECKING:
    from tidegate.usecases.gateway.recover import Recover

#: Most values, and most statuses, that one catch-up sends. A stream that has a newer value after each of them is busy:
#: another catch-up goes on. A stream whose status changes as often is told again with the change.
_SENDS = 3
#: How long one send waits for the quota, seconds: for the small asks of two windows. Other catch-ups wait behind it.
_PATIENCE_S = 0.25
#: How often a catch-up is postponed, because the quota granted nothing. It is some six minutes in all. After that it
#: is repeated as one that failed, and ends in the queue of those.
_POSTPONED = 20


class _Refused(Exception):
    """The send quota did not grant it."""


class CatchUp:
    """The use case behind the catch-up queue."""

    def __init__(
        self,
        *,
        subscriptions: SubscriptionStore,
        streams: StreamStore,
        last_values: LastValueStore,
        access: AccessStore,
        sender: Sender,
        catch_ups: CatchUpQueue,
        end_connection: EndConnection,
        clock: Clock,
        observer: Observer,
        recover: Callable[[], Recover] | None = None,
        pace: Pace | None = None,
    ) -> None:
        """
        Args:
            recover: is asked only for viewers who were away, of a datasource with a history.
            pace: None sends as fast as the platform takes it.
        """
        self._subscriptions = subscriptions
        self._streams = streams
        self._last_values = last_values
        self._access = access
        self._sender = sender
        self._catch_ups = catch_ups
        self._end_connection = end_connection
        self._clock = clock
        self._observer = observer
        self._recover = recover
        self._pace = pace

    def __call__(self, request: CatchUpRequest) -> bool:
        """Send the status and the newest value, each if the viewer may have missed it. True when any was sent.

        What the send quota refuses is left to another catch-up, some seconds later.

        Raises:
            Unavailable: a store did not answer, or the viewer could not be sent it. The catch-up is to be repeated.
        """
        try:
            return self._caught_up(request)
        except _Refused as refused:
            if request.postponed >= _POSTPONED:
                raise Unavailable("The send quota granted nothing for minutes", code="quota_used_up") from refused
            self._observer.count("catch_ups_postponed")
            self._catch_ups.queue(replace(request, postponed=request.postponed + 1))
            return False

    def _caught_up(self, request: CatchUpRequest) -> bool:
        audiences = Audiences(lambda _stream_key: self._rows_of(request), self._clock)
        rows = audiences.of(request.stream_key)
        if not rows:
            return False
        told = self._tell_status(rows[0], audiences, request)
        recovered = self._send_the_rest(rows[0], audiences, request)
        return self._send_newest(rows[0], audiences, request) or recovered or told

    def _send_the_rest(self, row: Subscription, audiences: Audiences, request: CatchUpRequest) -> bool:
        """Send what a viewer who was away still misses of the history. Another catch-up goes on when it is not there.

        The newest values are read first: what is stored after that is sent to the viewer, who is in the audience.
        Repeating is harmless, so what dies in between is done again.
        """
        left = request.recovering
        if left is None or self._recover is None:
            return False
        newest = self._last_values.newest(request.stream_key)
        found = self._recover().the_rest(row.key.datasource_id, request.stream_key, left, newest)
        if not found.ended:
            self._catch_ups.queue(replace(request, told=TOLD_ALL, recovering=found.left))
            return False
        frames = [Frame(row, body, True, topic) for topic, body in found.frames]
        return self._send(frames, audiences)

    def _rows_of(self, request: CatchUpRequest) -> Audience:
        """The row, while it is live, as an audience of one. It is read strongly consistent."""
        row = self._subscriptions.get(request.key)
        return Audience([row] if row is not None and row.generation == request.generation and row.live else [])

    def _tell_status(self, row: Subscription, audiences: Audiences, request: CatchUpRequest) -> bool:
        told, sent = request.told, False
        for _ in range(0 if told == TOLD_ALL else _SENDS):
            stream = self._streams.relayed(request.stream_key)
            if stream is None or stream.status_number == told:
                break
            frame = Frame(row, status_frame(row.key.datasource_id, stream, self._clock.now()), is_data=False)
            if not self._send([frame], audiences):
                break
            told, sent = stream.status_number, True
        return sent

    def _send_newest(self, row: Subscription, audiences: Audiences, request: CatchUpRequest) -> bool:
        seen, sent = dict(request.seen), False
        for _ in range(_SENDS):
            values = [value for value in self._last_values.newest(request.stream_key) if _is_news(value, seen, request)]
            frames = [
                Frame(row, value_frame(row.key.datasource_id, value, retained=True), True, value.topic)
                for value in values
            ]
            if not frames or not self._send(frames, audiences):
                return sent
            seen |= {value.topic or "": value.order for value in values}
            sent = True
        self._catch_ups.queue(replace(request, seen=seen, told=TOLD_ALL, recovering=None))
        return sent

    def _send(self, frames: Sequence[Frame], audiences: Audiences) -> bool:
        """Send frames of one row. False when none is to follow, because the viewer is gone or lost the right.

        Raises:
            Unavailable: one of them could not be sent.
            _Refused: the send quota did not grant one of them.
        """
        access = FreshAccess(self._access, audiences, self._clock)
        until = self._clock.monotonic() + _PATIENCE_S
        outcomes, left = send_once(
            frames, access=access, sender=self._sender, observer=self._observer, pace=self._pace, until=until
        )
        for leftover in left:
            if isinstance(leftover, str):
                self._end_connection.gone(leftover)
            elif access.named(frames[0].row):  # else it has ended meanwhile
                if outcomes.get(Delivery.REFUSED):
                    raise _Refused
                raise Unavailable("The catch-up could not be sent", code="not_sent")
        for delivery, count in outcomes.items():
            if delivery is not Delivery.WITHHELD:
                self._observer.count("catch_ups", count, outcome=delivery.value)
        return set(outcomes) == {Delivery.DELIVERED}


def _is_news(value: LastValue, seen: Mapping[str, tuple[int, str]], request: CatchUpRequest) -> bool:
    """Whether the viewer may have missed the value. That a value is gone is no news to who never saw one."""
    topic = value.topic or ""
    if request.topics is not None and topic not in request.topics:
        return False
    before = seen.get(topic)
    if before is None:
        return not value.deleted or request.topics is not None
    return value.order > before
