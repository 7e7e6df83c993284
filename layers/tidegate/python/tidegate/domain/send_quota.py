"""How many messages may be sent to viewers in a moment, by all senders together.

API Gateway counts every message to a viewer as a request of the account and region. Other APIs there share that quota,
so the operator states which part of it may be used. A second has ten *windows*. Senders *ask* for sends of the current
window before they send. A part of each window is for small asks only, so one value for a thousand viewers does not
delay a value for one.

The share of the quota that is used falls when the platform throttles, and rises again while it does not: additive
increase, multiplicative decrease (Chiu and Jain 1989).

Invariant of this file: in no window is more granted than its part of the quota. No I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WINDOW_MS = 100
#: An ask for at most so many sends is small. Most streams of a dashboard have no more viewers at a time.
SMALL = 10
#: The part of each window that only small asks are granted, in thousandths.
RESERVED = 100
#: The whole quota, in thousandths.
WHOLE = 1_000
#: The part that is left when the platform throttles, in thousandths of what it was. At least `LEAST` of the quota.
_KEPT = 700
LEAST = 200
#: The part that comes back with every window without throttling: from the least to the whole in eight seconds.
_REGAINED = 10
#: Windows in which the share falls once. The platform's answers of one moment are one sign.
_FALLS_ONCE = 10
#: Most sends a second that one stored item is to grant. Small asks are one write each, and DynamoDB takes a thousand a
#: second for an item.
_OF_AN_ITEM = 2_500


@dataclass(frozen=True, slots=True)
class SendWindow:
    """What is left of a window.

    Attributes:
        number: of the window, counted from the epoch.
        left: sends that were not granted yet.
        share: the part of the quota that windows have now, in thousandths.
        fell_at: number of the window in which the share fell last.
    """

    number: int
    left: int
    share: int = WHOLE
    fell_at: int = 0


@dataclass(frozen=True, slots=True)
class SendQuota:
    """The quota of one stored item, as one of `items`.

    Attributes:
        per_second: sends a second, by all senders together.
        items: how many stored items share it. Each ask goes to one of them.
    """

    per_second: int

    @property
    def items(self) -> int:
        return max(1, -(-self.per_second // _OF_AN_ITEM))

    @property
    def _of_a_window(self) -> int:
        return max(1, self.per_second * WINDOW_MS // 1000 // self.items)

    def opened(self, before: SendWindow | None, number: int) -> SendWindow:
        """The window `number`, of which nothing was granted yet. `before` is an earlier one, if there is any."""
        share = WHOLE if before is None else min(WHOLE, before.share + _REGAINED * (number - before.number))
        left = max(1, self._of_a_window * share // WHOLE)
        return SendWindow(number, left, share, 0 if before is None else before.fell_at)

    def granted(self, window: SendWindow, wanted: int) -> int:
        """How many of the wanted sends the window grants. It may be fewer, or none."""
        return max(0, min(wanted, window.left - self.kept_back(wanted)))

    def kept_back(self, wanted: int) -> int:
        """How many sends an ask for so many leaves to small ones."""
        return 0 if wanted <= SMALL else self._of_a_window * RESERVED // WHOLE

    def fallen(self, window: SendWindow) -> SendWindow | None:
        """The window after the platform has throttled. None when its share has fallen for that already."""
        if window.number - window.fell_at < _FALLS_ONCE:
            return None
        share = max(LEAST, window.share * _KEPT // WHOLE)
        return replace(window, share=share, fell_at=window.number)


def window_at(now_ms: int) -> int:
    """Number of the window of `now_ms`, epoch milliseconds."""
    return now_ms // WINDOW_MS


def left_ms(now_ms: int) -> int:
    """Milliseconds until the next window begins. At least 1."""
    return WINDOW_MS - now_ms % WINDOW_MS
