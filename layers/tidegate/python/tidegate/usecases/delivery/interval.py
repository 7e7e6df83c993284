"""Keeps values of a topic apart that come from calls which know nothing of each other.

IoT Core calls the bridge once for each message, in processes of their own. So the last value's item says when the next
value of its topic may be sent. A value that comes earlier is stored, and the first of them waits, for less than the
interval. Then it sends the newest, for all that came meanwhile.

Invariant of this file: a value that is stored and not sent at once is followed by a send of it or of a newer one, by
somebody who has not sent yet. A call that dies while it waits is repeated by AWS, and its value settles then.
"""

from __future__ import annotations

from collections.abc import Callable

from tidegate.domain.subscriptions import LastValue, Stream
from tidegate.ports.gateway import LastValueStore, Verdict
from tidegate.ports.runtime import Clock


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
        key, topic = stream.stream_key, value.topic
        admission = self._last_values.admit(key, value, self._now_ms(), self._interval_ms)
        if admission.verdict is Verdict.SEND:
            return value
        if admission.verdict is not Verdict.WAIT:
            return admission.verdict
        # Clocks differ. Nobody waits longer than the interval for that.
        self._sleep(max(0, min(admission.until_ms - self._now_ms(), self._interval_ms)) / 1000)
        newest = self._last_values.claim(key, topic, admission, self._now_ms(), self._interval_ms)
        return Verdict.LEAVE if newest is None else newest

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)
