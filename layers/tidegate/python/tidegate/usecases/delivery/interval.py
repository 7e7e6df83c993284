"""Keeps values of a topic apart that come from calls which know nothing of each other.

IoT Core calls the bridge once for each message, in processes of their own. So the last value's item says when the next
value of its topic may be sent. A value that comes earlier is stored, and the first of them waits, for less than the
interval. Then it sends the newest, for all that came meanwhile.

Invariant of this file: a value that is stored and not sent at once is followed by a send of it or of a newer one, by
somebody who has not sent yet. A call that dies while it waits is repeated by AWS, and its value settles then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tidegate.domain.subscriptions import LastValue, Stream
from tidegate.ports.gateway import Admission, LastValueStore, Verdict
from tidegate.ports.runtime import Clock


class Waiting(NamedTuple):
    """A value that is stored, and whose call waits to send the newest of its topic."""

    stream: Stream
    topic: str | None
    admission: Admission


class Interval:
    """Stores values, and says which one is to be sent, and when."""

    def __init__(
        self,
        *,
        last_values: LastValueStore,
        per_second: int,
        clock: Clock,
        sleep: Callable[[float], object],
    ) -> None:
        """
        Args:
            per_second: most values of a topic that are sent in a second, 1 or more.
            sleep: waits so many seconds.
        """
        self._last_values = last_values
        self._interval_ms = 1000 // per_second
        self._clock = clock
        self._sleep = sleep

    def __call__(self, stream: Stream, value: LastValue) -> LastValue | Verdict:
        """Store a value. Returns the one that is to be sent now, or why there is none. May wait for the interval.

        Raises:
            Unavailable: the store did not answer. The message is to be handled again.
        """
        admitted = self.admit(stream, value)
        if not isinstance(admitted, Waiting):
            return admitted
        self.wait([admitted])
        return self.claim(admitted)

    def admit(self, stream: Stream, value: LastValue) -> LastValue | Verdict | Waiting:
        """Store a value, and wait for nothing. Whoever gets a `Waiting` has to `wait` and to `claim`. Raises as
        `__call__`."""
        admission = self._last_values.admit(stream.stream_key, value, self._now_ms(), self._interval_ms)
        if admission.verdict is Verdict.SEND:
            return value
        if admission.verdict is Verdict.WAIT:
            return Waiting(stream, value.topic, admission)
        return admission.verdict

    def wait(self, waiting: Sequence[Waiting]) -> None:
        """Wait once for all of them: until the latest may be sent."""
        latest_ms = max(each.admission.until_ms for each in waiting)
        # Clocks differ. Nobody waits longer than the interval for that.
        self._sleep(max(0, min(latest_ms - self._now_ms(), self._interval_ms)) / 1000)

    def claim(self, waiting: Waiting) -> LastValue | Verdict:
        """The newest value, which is to be sent now; or why there is none. Raises as `__call__`."""
        newest = self._last_values.claim(
            waiting.stream.stream_key, waiting.topic, waiting.admission, self._now_ms(), self._interval_ms
        )
        return Verdict.LEAVE if newest is None else newest

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)
