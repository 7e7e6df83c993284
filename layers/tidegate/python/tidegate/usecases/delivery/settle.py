"""After values overtook each other on their way, send the newest again, until no newer one is stored.

Two invocations of the bridge may each store a value and then send it, and the older one may be sent last. So each looks
again once it has sent. One that finds a newer value notes it on the last value. The first to note it settles, for all
who note it meanwhile: otherwise a busy stream with many viewers would be sent several times over.

Invariant of this file: whoever sent a value either finds, after that, that none newer is stored; or has noted it, and a
settling sender then reads the newest value, sends it, and ends only if nothing was noted and nothing newer was stored
since that read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tidegate.domain.client_queues import Missed
from tidegate.domain.subscriptions import LastValue, Stream
from tidegate.ports.gateway import LastValueStore
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.delivery.fan_out import FanOut

#: Most sends of one settling. A stream that has a newer value after each of them is left to catch-ups.
_SENDS = 3


class Settle:
    """Makes the newest value the last one that is sent."""

    def __init__(
        self,
        *,
        last_values: LastValueStore,
        fan_out: FanOut,
        catch_up: Callable[[Sequence[Missed]], object],
        clock: Clock,
        observer: Observer,
    ) -> None:
        """`catch_up` asks for catch-ups of those who missed data. Raises `Unavailable` when one cannot be asked for."""
        self._last_values = last_values
        self._fan_out = fan_out
        self._catch_up = catch_up
        self._clock = clock
        self._observer = observer

    def after(self, stream: Stream, sent: LastValue) -> None:
        """Called after `sent` was sent to the stream's viewers. Settles if a newer value is stored by now.

        Raises:
            Unavailable: a store or the catch-up queue did not answer, so it is not known whether the newest value was
                the last. The message is to be handled again.
        """
        if self._overtaken(stream, sent):
            self(stream, sent.topic)

    def __call__(self, stream: Stream, topic: str | None) -> None:
        """Send the newest value until no newer one is stored, unless another sender does. Raises as `after`.

        `topic`: of a stream that has many; else None.
        """
        self._observer.count("values_overtaken")
        key = stream.stream_key
        if not self._noted(stream, topic):
            return
        for _ in range(_SENDS):
            newest = self._last_values.get(key, topic)
            if newest is None:
                return
            delivered = self._fan_out.send(stream, newest)
            if delivered.settled:
                return
            if delivered.left:
                # To a call that carries the topic. What was sent here since the note may have come after newer values.
                if not self._noted(stream, topic):
                    return
                continue
            if self._last_values.note_settled(key, newest, topic):
                return
        # First no longer settling, then the catch-ups. Whoever notes an older value after this settles it.
        self._last_values.note_settled(key, None, topic)
        missed = frozenset([topic or ""])
        self._catch_up([Missed(row, False, missed) for row in self._fan_out.viewers(stream)])

    def _overtaken(self, stream: Stream, sent: LastValue) -> bool:
        """Whether a newer value is stored by now."""
        newest = self._last_values.get(stream.stream_key, sent.topic)
        return newest is not None and newest.order > sent.order

    def _noted(self, stream: Stream, topic: str | None) -> bool:
        """Note that an older value may have been sent. True when this call has to settle."""
        return self._last_values.note_overtaken(stream.stream_key, self._clock.now(), topic)
