"""Deliver the values of a batch of device messages together: one message for each viewer who asked for batch frames.

A batch comes from a queue. While it is handled, newer values wait there. So it never waits for long: once for the
interval of all its topics, and for the send quota for `QUOTA_S`. What is not sent by then, or comes late, is left to a
*topic sender*: the sender of the audience's shard 0, by the queue of parts of crowds. There is one at a time for a
topic. It reads the newest value when it begins, and looks again until none is newer. So a batch that is behind is
handled at the pace of writes, not of sends.

Invariant of this file: a value that is stored and not known to be sent as the newest was noted for its topic sender,
after it was stored, and that sender has been asked for. Otherwise its message has failed, and comes again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from tidegate.domain.client_queues import Frame, in_rooms
from tidegate.domain.crowds import CrowdPart, parts
from tidegate.domain.subscriptions import LastValue, Stream
from tidegate.errors import Unavailable
from tidegate.ports.delivery import CrowdQueue, Delivery
from tidegate.ports.gateway import LastValueStore, Verdict
from tidegate.ports.runtime import Clock, Observer
from tidegate.protocol import messages
from tidegate.protocol.messages import ErrorCode
from tidegate.usecases.delivery.bridge import REPEATED_S, BatchedValue
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.delivery.interval import Interval, Waiting
from tidegate.usecases.delivery.senders import Looking

#: A value that is older than this when its batch comes is not sent by the batch, seconds: a batch is of one second, and
#: a queue that is not behind brings it within another. A person would see it as old.
LATE_S = 3.0
#: How long a batch waits for the send quota, all together, seconds: five windows of the quota. What it sends meanwhile
#: may be older than what a topic sender has sent.
QUOTA_S = 0.5
#: After a shortage the values of a topic are left to its topic sender for so long, seconds. Otherwise each batch would
#: ask for the same sends.
SHORT_S = 5.0
#: A topic sender begins so many seconds after it was asked for. So it never begins twice within the interval of a
#: topic, which is a second at most, and it finds what comes meanwhile.
DELAY_S = 1

#: A topic of a stream.
Place = tuple[str, str | None]


class Together:
    """Called with the values of a batch. For one thread."""

    def __init__(
        self,
        *,
        fan_out: FanOut,
        last_values: LastValueStore,
        interval: Interval,
        send: Callable[[Sequence[Frame], Looking], Mapping[Delivery, int]],
        crowds: CrowdQueue,
        clock: Clock,
        observer: Observer,
    ) -> None:
        """`send` is a `OneShotSender`."""
        self._fan_out = fan_out
        self._last_values = last_values
        self._interval = interval
        self._send = send
        self._crowds = crowds
        self._clock = clock
        self._observer = observer
        #: when a topic was last left to its topic sender: because the quota was short; because of a late message
        self._short: dict[Place, float] = {}
        self._settled: dict[Place, float] = {}

    def __call__(self, values: Sequence[BatchedValue]) -> Sequence[BatchedValue]:
        """Deliver values, of each topic one. Returns those that failed. Their messages are to be handled again."""
        batch = _Batch(self._observer, self._clock.monotonic() + QUOTA_S)
        for each in values:
            with batch.failing(each):
                self._store(batch, each)
        self._deliver(batch, batch.ready)
        if batch.waiting:
            self._interval.wait([waiting for _, waiting in batch.waiting])
            self._deliver(batch, self._claimed(batch))
        self._leave(batch)
        return list(batch.failed.values())

    # --- storing ------------------------------------------------------------------------------------------

    def _store(self, batch: _Batch, each: BatchedValue) -> None:
        """Store a value, and note what is to become of it."""
        stream, value = each.stream, each.value
        if not self._fan_out.fits(value):
            self._fan_out.notify(stream, ErrorCode.MESSAGE_TOO_LARGE, messages.TOO_LARGE)
            return
        late = self._age_s(value) > LATE_S or self._is_short(_place(each))
        stored = self._stored(each) if late else self._interval.admit(stream, value)
        if stored is Verdict.OUTDATED:
            self._observer.count("messages_outdated")
            if self._may_repeat(each):
                batch.left.append(each)
            batch.keep(self._fan_out, each, value)  # a repetition, perhaps, because its history could not be written
            return
        self._fan_out.cap(stream, value)
        if isinstance(stored, Waiting):
            batch.waiting.append((each, stored))
        elif not isinstance(stored, LastValue):
            self._observer.count("messages_conflated")
        elif late:
            batch.left.append(each)
            batch.keep(self._fan_out, each, value)
        else:
            batch.ready.append((each, stored))

    def _stored(self, each: BatchedValue) -> LastValue | Verdict:
        """Store a value that is left to its topic sender in any case."""
        stored = self._last_values.put_if_newer(each.stream.stream_key, each.value)
        return each.value if stored else Verdict.OUTDATED

    def _claimed(self, batch: _Batch) -> Sequence[tuple[BatchedValue, LastValue]]:
        """The values that may be sent now. Of the others, somebody else sends the newest."""
        claimed = []
        for each, waiting in batch.waiting:
            with batch.failing(each):
                newest = self._interval.claim(waiting)
                if isinstance(newest, LastValue):
                    claimed.append((each, newest))
                else:
                    self._observer.count("messages_conflated")
        return claimed

    def _age_s(self, value: LastValue) -> float:
        return self._clock.now() - value.timestamp_ms / 1000

    def _is_short(self, place: Place) -> bool:
        return self._clock.monotonic() - self._short.get(place, float("-inf")) < SHORT_S

    def _may_repeat(self, each: BatchedValue) -> bool:
        """Whether an outdated value may be a repetition: the batch before it may have sent it, after a newer one, and
        died. See `Bridge`."""
        now = self._clock.monotonic()
        if self._age_s(each.value) < REPEATED_S:
            return False
        self._settled = {place: at for place, at in self._settled.items() if now - at < REPEATED_S}
        return _place(each) not in self._settled

    # --- sending ------------------------------------------------------------------------------------------

    def _deliver(self, batch: _Batch, ready: Sequence[tuple[BatchedValue, LastValue]]) -> None:
        """Send values to all viewers, except to crowds. Those are left to the senders of their shards."""
        groups = list[Sequence[Frame]]()
        of_group = list[tuple[BatchedValue, LastValue]]()
        crowds = dict[str, list[BatchedValue]]()
        for each, value in ready:
            batch.keep(self._fan_out, each, value)  # before it is sent, so that nobody has seen what is not kept
            with batch.failing(each):
                if self._fan_out.is_crowd(each.stream):
                    crowds.setdefault(each.stream.stream_key, []).append(each)
                    continue
                groups.append(self._fan_out.frames_of(each.stream.stream_key, value))
                of_group.append((each, value))
        done = 0
        for together in in_rooms(groups):
            self._send_together(batch, of_group[done : done + len(together)], together)
            done += len(together)
        for key, there in crowds.items():
            self._observer.count("crowds_sent_in_parts")
            with batch.failing(*there):
                self._crowds.ask(parts(key, tuple(each.value.topic for each in there)))

    def _send_together(
        self, batch: _Batch, values: Sequence[tuple[BatchedValue, LastValue]], together: Sequence[Sequence[Frame]]
    ) -> None:
        sending = _Sending(batch.leaves_at)
        with batch.failing(*(each for each, _ in values)):
            self._send([frame for frames in together for frame in frames], sending)
        self._observer.count("messages_fanned_out", len(values))
        for each, value in values:
            with batch.failing(each):
                place = _place(each)
                if place in sending.left:
                    self._short[place] = self._clock.monotonic()
                    batch.left.append(each)
                elif self._overtaken(each.stream, value):
                    self._observer.count("values_overtaken")
                    batch.left.append(each)

    def _overtaken(self, stream: Stream, sent: LastValue) -> bool:
        """Whether a newer value is stored by now. It may have been sent before this one."""
        newest = self._last_values.get(stream.stream_key, sent.topic)
        return newest is not None and newest.order > sent.order

    # --- leaving ------------------------------------------------------------------------------------------

    def _leave(self, batch: _Batch) -> None:
        """Leave topics to their topic senders, and crowds to those of all shards."""
        asked = list[CrowdPart]()
        mine = list[BatchedValue]()
        of_stream = dict[str, list[BatchedValue]]()
        for each in batch.left:
            of_stream.setdefault(each.stream.stream_key, []).append(each)
        for key, there in of_stream.items():
            with batch.failing(*there):
                if self._fan_out.is_crowd(there[0].stream):
                    asked += parts(key, tuple(each.value.topic for each in there))
                    mine += there
                    continue
            begun = [each for each in there if self._begins(batch, each)]
            if begun:
                asked.append(CrowdPart(key, 0, tuple(each.value.topic for each in begun), begun=True))
                mine += begun
        if not asked:
            return
        with batch.failing(*mine):
            try:
                self._crowds.ask(asked, DELAY_S)
            except Exception:
                for each in mine:  # otherwise newer values would be left to nobody
                    with suppress(Unavailable):
                        self._last_values.note_settled(each.stream.stream_key, None, each.value.topic, 0)
                raise
        now = self._clock.monotonic()
        self._settled |= dict.fromkeys(map(_place, mine), now)
        self._short = {place: at for place, at in self._short.items() if now - at < SHORT_S}

    def _begins(self, batch: _Batch, each: BatchedValue) -> bool:
        """Note a value for its topic sender. True when there is none, so that it has to be asked for."""
        with batch.failing(each):
            place = _place(each)
            key, topic = place
            if self._last_values.note_overtaken(key, self._clock.now(), topic, 0):
                return True
            self._observer.count("messages_conflated")
            if place in self._short:  # its sender is at work, so the shortage lasts
                self._short[place] = self._clock.monotonic()
        return False


class _Batch:
    """What becomes of the values of one batch.

    Attributes:
        leaves_at: when it waits for the quota no longer, monotonic seconds.
        ready: values that may be sent now.
        waiting: values that may be sent when the interval of their topic is over.
        left: values whose topic is left to its topic sender.
        failed: values whose messages are to be handled again, by topic.
    """

    def __init__(self, observer: Observer, leaves_at: float) -> None:
        self._observer = observer
        self.leaves_at = leaves_at
        self.ready = list[tuple[BatchedValue, LastValue]]()
        self.waiting = list[tuple[BatchedValue, Waiting]]()
        self.left = list[BatchedValue]()
        self.failed = dict[Place, BatchedValue]()

    @contextmanager
    def failing(self, *values: BatchedValue) -> Iterator[None]:
        """What fails here fails for these values. The others do not wait for it."""
        try:
            yield
        except Exception as error:
            self._observer.fault("device message failed", error)
            self.failed |= {_place(each): each for each in values}

    def keep(self, fan_out: FanOut, each: BatchedValue, value: LastValue) -> None:
        """Keep a value in the history, where there is one. When that fails, it is sent all the same."""
        if fan_out.kept(each.stream, value) is not None:
            self.failed[_place(each)] = each


class _Sending(Looking):
    """The values of a batch on their way. When the batch has waited for the quota long enough, the rest is left.

    Attributes:
        left: the topics of which frames were left.
    """

    def __init__(self, leaves_at: float) -> None:
        self._leaves_at = leaves_at
        self.left: set[Place] = set()

    def look(self, now: float, _until: float) -> Sequence[Frame] | None:
        return () if now < self._leaves_at else None

    def end(self, _until: float) -> Sequence[Frame]:
        """Nothing: `Together` looks again."""
        return ()

    def leave(self, frames: Sequence[Frame]) -> None:
        self.left |= {(frame.row.stream_key, frame.topic) for frame in frames}


def _place(each: BatchedValue) -> Place:
    return each.stream.stream_key, each.value.topic
