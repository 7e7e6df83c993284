"""How large the budgets of public viewers are, so that one never contradicts another.

Two rules. What a page that behaves may need, its own budget holds. What everybody shares, a few addresses cannot use
up: each address has a part of it only.
"""

from __future__ import annotations

#: An address may spend one part in so many of a budget that all viewers of a dashboard share. Half of the parts are for
#: addresses that mean harm, so ten of them leave the other half.
PARTS = 20
#: Addresses that together cannot lock anybody out.
HOSTILE_ADDRESSES = PARTS // 2


def address_part(shared: int) -> int:
    """What one address may spend of a budget that everybody shares, in the same unit. At least 1."""
    return max(1, shared // PARTS)


def shared_by_viewers(connections_per_dashboard: int) -> int:
    """New viewers of a dashboard in a minute: so many that all its connections may come at once, twice over.

    One half is for them. The other half is what `HOSTILE_ADDRESSES` can spend.
    """
    return 2 * connections_per_dashboard


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
