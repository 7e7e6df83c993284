"""Send to a part of a crowd: one shard of a stream's audience, by an invocation of its own.

The bridge stores a value and asks for a sender of each shard. Values come faster than a crowd can be sent them, so a
shard has one sender at a time. It sends the newest value, and looks again until none is newer. Whoever is asked for
meanwhile notes it, and ends at once.

Invariant of this file: after the parts of a stored value were asked for, each shard has a sender that reads the value
of its topic later than that; or its message is in the queue and comes again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from tidegate.domain.crowds import CrowdPart
from tidegate.errors import Unavailable
from tidegate.ports.delivery import CrowdQueue
from tidegate.ports.gateway import LastValueStore
from tidegate.ports.runtime import Clock, Observer
from tidegate.protocol.messages import ErrorCode
from tidegate.usecases.delivery.fan_out import FanOut

#: Most sends of one invocation. A shard that has a newer value after each of them goes on in another invocation.
_SENDS = 3


class SendPart:
    """The use case behind the queue of parts."""

    def __init__(
        self,
        *,
        last_values: LastValueStore,
        fan_out_of: Callable[[int], FanOut],
        queue: CrowdQueue,
        clock: Clock,
        observer: Observer,
    ) -> None:
        """`fan_out_of` gives what sends to a shard, by its number."""
        self._last_values = last_values
        self._fan_out_of = fan_out_of
        self._queue = queue
        self._clock = clock
        self._observer = observer

    def __call__(self, part: CrowdPart) -> None:
        """Send the newest value to the part's viewers, unless another sender does; or tell them of the fault.

        Raises:
            Unavailable: a store or a queue did not answer. The part is to be sent again.
        """
        fan_out = self._fan_out_of(part.shard)
        if part.fault is not None:
            fan_out.notify_part(part.stream_key, ErrorCode(part.fault.code), part.fault.text)
            return
        key, topic, shard = part.stream_key, part.topic, part.shard
        if not self._last_values.note_overtaken(key, self._clock.now(), topic, shard):
            self._observer.count("parts_left_to_another")
            return
        try:
            if self._sent(fan_out, part):
                return
        except Exception:
            # Otherwise newer values would be left to this sender for as long as it is relied upon.
            with suppress(Unavailable):
                self._last_values.note_settled(key, None, topic, shard)
            raise
        # First no longer the sender, then the next one. Whoever is asked for in between does it.
        self._last_values.note_settled(key, None, topic, shard)
        self._queue.ask([part])

    def _sent(self, fan_out: FanOut, part: CrowdPart) -> bool:
        """Send the newest value until none is newer. False when there is a newer one after each of the sends."""
        for _ in range(_SENDS):
            newest = self._last_values.get(part.stream_key, part.topic, part.shard)
            if newest is None:
                return True
            fan_out.send_part(part.stream_key, newest)
            if self._last_values.note_settled(part.stream_key, newest, part.topic, part.shard):
                return True
        return False
