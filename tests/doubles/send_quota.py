"""A send quota in memory."""

from __future__ import annotations

from collections import Counter

from tidegate.domain.send_quota import SendQuota, SendWindow, window_at
from tidegate.errors import Unavailable
from tidegate.ports.delivery import SendQuotaStore


class MemorySendQuota(SendQuotaStore):
    """A quota of which each item has windows of its own. `broken`: it does not answer."""

    def __init__(self, quota: SendQuota) -> None:
        self.quota = quota
        self.windows: dict[int, SendWindow] = {}
        #: number of the window -> what all items granted in it
        self.granted: Counter[int] = Counter()
        self.asks = 0
        self.broken = False

    def take(self, item: int, wanted: int, now_ms: int, deadline: float) -> int:
        if self.broken:
            raise Unavailable("the store does not answer")
        self.asks += 1
        number = window_at(now_ms)
        window = self.windows.get(item)
        if window is None or window.number < number:
            window = self.quota.opened(window, number)
        count = self.quota.granted(window, wanted)
        self.windows[item] = SendWindow(window.number, window.left - count, window.share, window.fell_at)
        self.granted[window.number] += count
        return count

    def throttled(self, item: int, deadline: float) -> None:
        window = self.windows[item]
        self.windows[item] = self.quota.fallen(window) or window
