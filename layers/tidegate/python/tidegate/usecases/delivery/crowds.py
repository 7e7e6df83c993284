"""Send to a part of a crowd: one shard of a stream's audience, by an invocation of its own.

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

from tidegate.domain.client_queues import Frame
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
        """Send the newest value to the part's viewers, unless another sender does; or tell them of the fault.

        Raises:
            Unavailable: a store or a queue did not answer. The part is to be sent again.
        """
        if self._patience is not None:
            self._patience.begin()
        sender = self._sender_of(part.shard)
        if part.fault is not None:
            sender.fan_out.notify_part(part.stream_key, ErrorCode(part.fault.code), part.fault.text)
            return
        key, topic, shard = part.stream_key, part.topic, part.shard
        if not self._last_values.note_overtaken(key, self._clock.now(), topic, shard):
            self._observer.count("parts_left_to_another")
            return
        try:
            if self._sent(sender, part):
                return
        except Exception:
            # Otherwise newer values would be left to this sender for as long as it is relied upon.
            with suppress(Unavailable):
                self._last_values.note_settled(key, None, topic, shard)
            raise
        # First no longer the sender, then the next one. Whoever is asked for in between does it.
        self._last_values.note_settled(key, None, topic, shard)
        self._queue.ask([part])

    def _sent(self, sender: ShardSender, part: CrowdPart) -> bool:
        """Send the newest value until none is newer. False when there is a newer one after each of the sends."""
        for _ in range(_SENDS):
            newest = self._last_values.get(part.stream_key, part.topic, part.shard)
            if newest is None:
                return True
            sending = _Sending(self._last_values, sender.fan_out, part, newest, self._clock)
            sender.send(sender.fan_out.frames_of(part.stream_key, newest), sending)
            if self._last_values.note_settled(part.stream_key, sending.sent, part.topic, part.shard):
                return True
        return False


class _Sending(Looking):
    """One value on its way to a shard, and newer ones in its place while the quota is short.

    Attributes:
        sent: the newest value of which frames were made.
    """

    def __init__(
        self, last_values: LastValueStore, fan_out: FanOut, part: CrowdPart, value: LastValue, clock: Clock
    ) -> None:
        self._last_values = last_values
        self._fan_out = fan_out
        self._part = part
        self._clock = clock
        self._looks_at = float("-inf")
        self.sent = value

    def look(self, now: float, _until: float) -> Sequence[Frame]:
        if now < self._looks_at:
            return ()
        self._looks_at = now + _LOOK_S
        part = self._part
        try:
            newest = self._last_values.go_on(part.stream_key, self._clock.now(), part.topic, part.shard)
        except Unavailable:
            return ()  # the look after the send decides
        if newest is None or newest.order <= self.sent.order:
            return ()
        self.sent = newest
        return self._fan_out.frames_of(part.stream_key, newest)

    def end(self, _until: float) -> Sequence[Frame]:
        """Nothing: `SendPart` looks again."""
        return ()
