"""How many messages one connection may send, whatever they are: garbage counts as well.

A process counts by itself, and tells the store once for each `CHUNK` messages of a connection in a minute. So a page
that behaves costs no write, and a flood one in twenty. Each process that serves a connection lets up to `CHUNK` - 1 of
its messages through uncounted.
"""

from __future__ import annotations

from tidegate.domain.limits import window_left_ms, window_of
from tidegate.errors import LimitReached
from tidegate.ports.runtime import Clock
from tidegate.usecases.limits.rate_limits import RateLimits

#: Messages of a connection that are counted in one write.
CHUNK = 20
SCOPE = "realtime-messages-connection"


class MessageBudget:
    """Messages of a connection in a minute."""

    def __init__(self, *, rates: RateLimits, per_minute: int, clock: Clock) -> None:
        self._rates = rates
        self._per_minute = per_minute
        self._clock = clock
        self._window = 0
        self._sent: dict[str, int] = {}
        self._refused: set[str] = set()

    def spend(self, connection_id: str) -> None:
        """Count one message.

        Raises:
            LimitReached: the connection has sent too many. Its text names the limit, and says when the minute ends.
            LimiterUnavailable: the store did not answer, or the salt could not be read, and the failure mode is
                fail-closed.
        """
        now_ms = int(self._clock.now() * 1000)
        if (window := window_of(now_ms)) != self._window:
            self._window, self._sent, self._refused = window, {}, set()
        sent = self._sent[connection_id] = self._sent.get(connection_id, 0) + 1
        if connection_id not in self._refused and sent % CHUNK:
            return
        refusal = f"Too many messages on this connection: at most {self._per_minute} in a minute"
        try:
            if connection_id in self._refused:
                raise LimitReached(refusal, retry_after_ms=window_left_ms(now_ms))
            self._rates.consume(SCOPE, connection_id, self._per_minute // CHUNK, refusal=refusal)
        except LimitReached:
            self._refused.add(connection_id)
            raise
