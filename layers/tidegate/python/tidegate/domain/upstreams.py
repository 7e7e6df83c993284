"""How many upstreams the dashboards of one owner hold at the same time, as pure arithmetic.

Upstreams are streams of the relay. Equal datasources share one, also between owners. Each owner whose dashboards use it
*holds* it, in a map of their own: stream -> epoch second until which it is held. A subscribe holds the stream until its
token has expired, a refresh until the new token has. Nothing is ever given back. So nothing is left over when a process
dies, and a hold ends after the last subscription that needs it.

Invariant of this file: a subscription of the relay is held for as long as its token lives, and of the holds that count
no more last than are allowed.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Holds end at multiples of this, seconds. So refreshes of the same minute need one write together.
STEP_S = 60
#: A hold lasts so much longer than the token, seconds, because clocks differ.
MARGIN_S = 10
#: Characters of a stream's key, a hash, that name it among the streams of an owner.
NAME_LENGTH = 16
#: Most holds that one write removes.
MOST_REMOVED = 25

#: Full dashboards that one owner may show at the same time.
FULL_DASHBOARDS = 2


def upstreams_of_owner(subscriptions: int) -> int:
    """Upstreams that an owner's dashboards need at the same time, when a page may have so many `subscriptions`."""
    return FULL_DASHBOARDS * subscriptions


def held_until(expires_at: int) -> int:
    """Until when a subscription holds its stream, whose token ends at `expires_at`. Both are epoch seconds."""
    return -(-(expires_at + MARGIN_S) // STEP_S) * STEP_S


def name_of(stream_key: str) -> str:
    """What a stream is called among the streams of an owner."""
    return stream_key[:NAME_LENGTH]


def ended(held: Mapping[str, int], now: int) -> dict[str, int]:
    """Holds that have ended: the oldest, as many as one write removes."""
    over = sorted((until, name) for name, until in held.items() if until <= now)
    return {name: until for until, name in over[:MOST_REMOVED]}


def free_at(held: Mapping[str, int], limit: int) -> int:
    """When there is room for one more beside `limit` - 1 of these holds, if nobody refreshes: epoch seconds.

    There are `limit` of them at least.
    """
    return sorted(held.values())[len(held) - limit]


def refused_until(held: Mapping[str, int], name: str, now: int, limit: int) -> int | None:
    """Whether there is no room for the stream `name` beside these holds: `free_at` then, else None."""
    if name in held or len(held) < limit or ended(held, now):
        return None
    return free_at(held, limit)
