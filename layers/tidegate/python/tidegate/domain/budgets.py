"""How large the budgets of public viewers are, so that one never contradicts another.

Two rules. What a page that behaves may need, its own budget holds. What everybody shares, a few addresses cannot use
up: each address has a part of it only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

#: An address may spend one part in so many of a budget that all viewers of a dashboard share. Half of the parts are for
#: addresses that mean harm, so ten of them leave the other half.
PARTS = 20
#: Addresses that together cannot lock anybody out.
HOSTILE_ADDRESSES = PARTS // 2


#: How often a page may exchange all its subscriptions in a minute.
CHANGES = 4


def address_part(shared: int) -> int:
    """What one address may spend of a budget that everybody shares, in the same unit. At least 1."""
    return max(1, shared // PARTS)


def shared_by_viewers(connections_per_dashboard: int) -> int:
    """New viewers of a dashboard in a minute: so many that all its connections may come at once, twice over.

    One half is for them. The other half is what `HOSTILE_ADDRESSES` can spend.
    """
    return 2 * connections_per_dashboard


def connections_for(shared: int) -> int:
    """How many connections a dashboard may have when its new viewers share a budget of `shared` a minute."""
    return shared // shared_by_viewers(1)


def tokens_of_viewer(subscriptions: int, ttl_s: int) -> int:
    """Session tokens that one page may need in a minute.

    It mints one for each of its `subscriptions` when it opens, and again whenever half of the life of a token, `ttl_s`
    seconds, is over.
    """
    refreshes = -(-60 * 2 // ttl_s)
    return subscriptions * (1 + refreshes)


def tokens_of_address(connections: int, subscriptions: int, ttl_s: int) -> int:
    """Session tokens that an address may need in a minute: a full page on each of its open connections."""
    return connections * tokens_of_viewer(subscriptions, ttl_s)


def new_subscriptions(subscriptions: int) -> int:
    """Subscriptions that a connection may begin in a minute, when it may have `subscriptions` at the same time."""
    return CHANGES * subscriptions


def history_reads(subscriptions: int) -> int:
    """Reads of a history that one page may need in a minute: as often as it may begin a subscription."""
    return new_subscriptions(subscriptions)


class ConnectionRoom(NamedTuple):
    """How many subscriptions a connection may have, and begin.

    Attributes:
        at_once: the most at the same time.
        window: number of the window that is counted in.
        in_window: the most that may begin in a window.
    """

    at_once: int
    window: int
    in_window: int

    def may_hold(self, held: int) -> bool:
        """Whether a connection that has `held` subscriptions may have one more."""
        return held < self.at_once

    def may_begin(self, begun: Mapping[int, int]) -> bool:
        """Whether one more may begin. `begun`: window -> subscriptions that began in it."""
        return begun.get(self.window, 0) < self.in_window

    def counted(self, begun: Mapping[int, int]) -> dict[int, int]:
        """`begun` with one more, without the windows that are over."""
        over = self.over(begun)
        kept = {window: count for window, count in begun.items() if window not in over}
        return kept | {self.window: begun.get(self.window, 0) + 1}

    def over(self, begun: Mapping[int, int]) -> list[int]:
        """The windows of `begun` that nobody counts in any more. Clocks differ, so the one before this is kept."""
        return sorted(window for window in begun if window < self.window - 1)
