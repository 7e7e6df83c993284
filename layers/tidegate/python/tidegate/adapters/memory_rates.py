"""Rate counters in this process's memory. A function counts with them while the limiter's table cannot be reached."""

from __future__ import annotations

from threading import RLock

from tidegate.domain.limits import RateDecision, decide_rate, window_of
from tidegate.ports.limits import RateCounter, RateReader


class MemoryRates(RateCounter, RateReader):
    """Rates in a dict, for one process only."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._counts: dict[tuple[str, int, int], tuple[int, str]] = {}

    def count(
        self, key: str, limit: int, now_ms: int, window_ms: int, request_id: str, deadline: float
    ) -> RateDecision:
        window = (key, window_ms, window_of(now_ms, window_ms))
        with self._lock:
            count, last = self._counts.get(window, (0, ""))
            if last == request_id:
                return decide_rate(count, limit, now_ms, window_ms)
            if count >= limit:
                return decide_rate(limit + 1, limit, now_ms, window_ms)
            self._counts[window] = (count + 1, request_id)
            return decide_rate(count + 1, limit, now_ms, window_ms)

    def spent(self, key: str, now_ms: int, window_ms: int, deadline: float) -> int:
        with self._lock:
            return self._counts.get((key, window_ms, window_of(now_ms, window_ms)), (0, ""))[0]
