"""Send to a part of a crowd: one shard of a stream's audience, by an invocation of its own.

A part may be of several topics: then their newest values go out together. An audience that is no crowd is its shard 0.

The bridge stores a value and asks for a sender of each shard. Values come faster than a crowd can be sent them, so a
shard has one sender at a time. It sends the newest value, and looks again until none is newer. Whoever is asked for
meanwhile notes it, and ends at once. While the send quota is short it looks more often, and goes on with the newest
value from viewer to viewer.

Invariant of this file: after the parts of a stored value were asked for, each shard has a sender that reads the value
of its topic later than that; or its message is in the queue and comes again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from tidegate.domain.client_queues import Frame, in_rooms
from tidegate.domain.crowds import CrowdPart
from tidegate.domain.subscriptions import LastValue
from tidegate.errors import Unavailable
from tidegate.ports.delivery import CrowdQueue, Delivery
from tidegate.ports.gateway import LastValueStore
from tidegate.ports.runtime import Clock, Observer
from tidegate.protocol.messages import ErrorCode
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.delivery.senders import Looking, Patience

#: Most sends of one invocation. A shard that has a newer value after each of them goes on in another invocation.
_SENDS = 3
#: While the quota is short, a sender looks for a newer value so often, seconds. With that it says that it goes on.
_LOOK_S = 0.5


class ShardSender(NamedTuple):
    """What sends to one shard. `fan_out` makes the frames, and `send` is its one-shot sender."""

    fan_out: FanOut
    send: Callable[[Sequence[Frame], Looking], Mapping[Delivery, int]]


class SendPart:
    """The use case behind the queue of parts."""

    def __init__(
        self,
        *,
        last_values: LastValueStore,
        sender_of: Callable[[int], ShardSender],
        queue: CrowdQueue,
        patience: Patience | None,
        clock: Clock,
        observer: Observer,
    ) -> None:
        """
        Args:
            sender_of: what sends to a shard, by its number.
            patience: that of all senders, where they have a pace.
        """
        self._last_values = last_values
        self._sender_of = sender_of
        self._queue = queue
        self._patience = patience
        self._clock = clock
        self._observer = observer

    def __call__(self, part: CrowdPart) -> None:
        """Send the newest values to the part's viewers, unless another sender does; or tell them of the fault.

        Raises:
            Unavailable: a store or a queue did not answer. The part is to be sent again.
        """
        if self._patience is not None:
            self._patience.begin()
        sender = self._sender_of(part.shard)
        if part.fault is not None:
            sender.fan_out.notify_part(part.stream_key, ErrorCode(part.fault.code), part.fault.text)
            return
        key, shard = part.stream_key, part.shard
        topics = part.topics if part.begun else self._mine(part)
        if not topics:
            self._observer.count("parts_left_to_another")
            return
        try:
            left = self._sent(sender, part, topics)
        except Exception:
            # Otherwise newer values would be left to this sender for as long as it is relied upon.
            for topic in topics:
                with suppress(Unavailable):
                    self._last_values.note_settled(key, None, topic, shard)
            raise
        if not left:
            return
        # First no longer the sender, then the next one. Whoever is asked for in between does it.
        for topic in left:
            self._last_values.note_settled(key, None, topic, shard)
        self._queue.ask([part._replace(topics=tuple(left), begun=False)])

    def _mine(self, part: CrowdPart) -> Sequence[str | None]:
        """The topics that no other sender sends to the part. To others it is noted that there is a newer value."""
        now = self._clock.now()
        return [
            topic for topic in part.topics if self._last_values.note_overtaken(part.stream_key, now, topic, part.shard)
        ]

    def _sent(self, sender: ShardSender, part: CrowdPart, topics: Sequence[str | None]) -> Sequence[str | None]:
        """Send the newest values until none is newer. Returns the topics that have a newer one after each of the
        sends."""
        key, shard = part.stream_key, part.shard
        for _ in range(_SENDS):
            found = [self._last_values.get(key, topic, shard) for topic in topics]
            sending = _Sending(self._last_values, sender.fan_out, part, [each for each in found if each], self._clock)
            for together in in_rooms(sender.fan_out.frames_of(key, value) for value in list(sending.sent.values())):
                sending.begin(together)
                sender.send([frame for frames in together for frame in frames], sending)
            topics = [
                topic
                for topic, value in sending.sent.items()
                if not self._last_values.note_settled(key, value, topic, shard)
            ]
            if not topics:
                break
        return topics


class _Sending(Looking):
    """Values on their way to a shard, and newer ones in their place while the quota is short.

    Attributes:
        sent: the newest value of each topic of which frames were made.
    """

    def __init__(
        self,
        last_values: LastValueStore,
        fan_out: FanOut,
        part: CrowdPart,
        values: Sequence[LastValue],
        clock: Clock,
    ) -> None:
        self._last_values = last_values
        self._fan_out = fan_out
        self._part = part
        self._clock = clock
        self._looks_at = float("-inf")
        self._topics: set[str | None] = set()
        self.sent = {value.topic: value for value in values}

    def begin(self, together: Sequence[Sequence[Frame]]) -> None:
        """These go out now. No other value is looked at: its older frames would come after the newer ones."""
        self._topics = {frames[0].topic for frames in together if frames}

    def look(self, now: float, _until: float) -> Sequence[Frame]:
        if now < self._looks_at:
            return ()
        self._looks_at = now + _LOOK_S
        frames: list[Frame] = []
        for topic in self._topics:
            frames += self._newer(self.sent[topic])
        return frames

    def _newer(self, value: LastValue) -> Sequence[Frame]:
        key = self._part.stream_key
        try:
            newest = self._last_values.go_on(key, self._clock.now(), value.topic, self._part.shard)
        except Unavailable:
            return ()  # the look after the send decides
        if newest is None or newest.order <= value.order:
            return ()
        self.sent[value.topic] = newest
        return self._fan_out.frames_of(key, newest)

    def end(self, _until: float) -> Sequence[Frame]:
        """Nothing: `SendPart` looks again."""
        return ()

    def leave(self, _frames: Sequence[Frame]) -> None:
        """Nothing: `look` leaves nothing."""
