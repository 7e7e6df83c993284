"""A send quota in memory."""

from __future__ import annotations

from collections import Counter

from tidegate.domain.send_quota import SendQuota, SendWindow, window_at
from tidegate.errors import Unavailable
from tidegate.ports.delivery import SendQuotaStore


class MemorySendQuota(SendQuotaStore):
    """One item of a quota. `broken`: it does not answer."""

    def __init__(self, quota: SendQuota) -> None:
        self.quota = quota
        self.window: SendWindow | None = None
        self.granted: Counter[int] = Counter()
        self.asks = 0
        self.broken = False

    def take(self, item: int, wanted: int, now_ms: int, deadline: float) -> int:
        if self.broken:
            raise Unavailable("the store does not answer")
        self.asks += 1
        number = window_at(now_ms)
        if self.window is None or self.window.number < number:
            self.window = self.quota.opened(self.window, number)
        count = self.quota.granted(self.window, wanted)
        window = self.window
        self.window = SendWindow(window.number, window.left - count, window.share, window.fell_at)
        self.granted[window.number] += count
        return count

    def throttled(self, item: int, deadline: float) -> None:
        assert self.window is not None
        self.window = self.quota.fallen(self.window) or self.window
