"""Rates and caps, as pure arithmetic.

Rates: fixed windows aligned to the epoch. A call is counted first, and is allowed while the count is at most the limit.
Caps: sets of holders. A set is split into counter shards, so that no stored item grows beyond one write unit. The
limits of the shards sum to the cap.

Invariant of this file: of many parallel requests against a limit L, a rate admits exactly L per window, and a cap never
has more than L holders. This holds because each decision is one conditional write on one item.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from tidegate.domain.time_limits import ASK_LIMITER, FUNCTION_S

WINDOW_MS = 60_000

#: What a gateway counts: handshakes by address, and public subscribes by address and by share version. All gateways of
#: an API count under the same names, so they share one limit. The internal API counts these scopes and no others.
CONNECT_IP_SCOPE = "realtime-connect-ip"
PUBLIC_SUBSCRIBE_IP_SCOPE = "realtime-public-subscribe-ip"
PUBLIC_SUBSCRIBE_SHARE_SCOPE = "realtime-public-subscribe-share"
GATEWAY_SCOPES = (CONNECT_IP_SCOPE, PUBLIC_SUBSCRIBE_IP_SCOPE, PUBLIC_SUBSCRIBE_SHARE_SCOPE)
#: Questions of an address about realtime, which the API counts for itself.
REALTIME_ASKED_SCOPE = "realtime-asked-ip"
_GATEWAY_KEY = re.compile("[0-9a-f]{32}")
#: The largest limit that a gateway may ask for, calls per window. A larger limit is treated as this one.
MAX_GATEWAY_LIMIT = 10_000

#: The shortest time limit among the functions that ask the limiter while somebody waits, seconds.
LIMITED_FUNCTION_S = min(FUNCTION_S[function] for function in ASK_LIMITER)
#: Most time for the limiter calls of one request, milliseconds. It ends before the function does. What is left is
#: enough for one other call of a store that hangs, which takes five seconds, and for the answer.
MOST_LIMITER_MS = (LIMITED_FUNCTION_S - 6) * 1000

#: Nobody knows when a place of a cap becomes free. Who finds none is told to ask again after so many milliseconds.
CAP_RETRY_MS = 60_000

#: Holders per counter shard. A connection id has 16 characters, and an attribute set some overhead. 40 of them stay
#: below 1 KiB, which DynamoDB bills as one write unit.
HOLDERS_PER_SHARD = 40


class Outcome(StrEnum):
    """Result of a limiter decision. The values are the names of its metrics."""

    ALLOWED = "allowed"
    REJECTED = "rejected"
    BACKEND_ERROR = "backend_error"
    FAIL_OPEN = "fail_open"
    FAIL_CLOSED = "fail_closed"


class FailureMode(StrEnum):
    """What to do when the limiter's store does not answer."""

    OPEN = "fail-open"
    CLOSED = "fail-closed"


class RateDecision(NamedTuple):
    """Answer of a rate limiter.

    Attributes:
        allowed: whether the call may proceed.
        remaining: calls left in this window.
        retry_after_ms: milliseconds to the end of the window when refused, else 0.
        counted: false when the call could not be counted. The failure mode admitted it, or the key is flooded. Such a
            refusal holds for the moment only, and nobody remembers it.
    """

    allowed: bool
    remaining: int
    retry_after_ms: int
    counted: bool = True


class Rate(NamedTuple):
    """A rate that one call counts in.

    Attributes:
        scope: what is limited.
        key: whose calls are counted. Only its HMAC is stored.
        limit: calls per window.
        refusal: what a refused client is told: which limit, without a full stop.
    """

    scope: str
    key: str
    limit: int
    refusal: str


class Cap(NamedTuple):
    """A cap that one connection takes a place in.

    Attributes:
        name: what is capped, for example `dash#<id>`.
        limit: holders that all counter shards have together.
        refusal: as of a `Rate`.
    """

    name: str
    limit: int
    refusal: str


#: The refusal of a key that is written so often that the store cannot keep up with it. Its capacity is by the second.
FLOODED = RateDecision(False, 0, 1000, counted=False)


def gateway_key(whose: str) -> str:
    """The key under which every gateway of an API counts the same thing.

    It is the first 32 hexadecimal digits of the SHA-256 of the text, trimmed and in lower case: see "Internal API".

    Args:
        whose: an address as `client_ip.ip_key` makes it, or `<dashboard id>:<share version>`. A key stays as it is.
    """
    text = whose.strip().lower()
    return text if _GATEWAY_KEY.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:32]


def window_of(now_ms: int, window_ms: int = WINDOW_MS) -> int:
    """Number of the fixed window that `now_ms` (epoch milliseconds) is in."""
    return now_ms // window_ms


def window_left_ms(now_ms: int, window_ms: int = WINDOW_MS) -> int:
    """Milliseconds until the window of `now_ms` (epoch milliseconds) ends. At least 1."""
    return window_ms - now_ms % window_ms


def decide_rate(count: int, limit: int, now_ms: int, window_ms: int = WINDOW_MS) -> RateDecision:
    """Decide from the count *after* this call was counted."""
    if count <= limit:
        return RateDecision(True, limit - count, 0)
    return RateDecision(False, 0, window_left_ms(now_ms, window_ms))


@dataclass(frozen=True, slots=True)
class CounterShard:
    """One shard of a cap: its `index`, and the `limit` of holders it may have."""

    index: int
    limit: int


def counter_shard_count(cap: int) -> int:
    """How many shards a cap of `cap` holders is split into."""
    return max(1, -(-cap // HOLDERS_PER_SHARD))


def counter_shards(holder: str, cap: int) -> Iterator[CounterShard]:
    """The shards of a cap in the order this holder tries them: its home shard first, then the others in turn.

    The limits of all shards sum to `cap`. The home is chosen by a hash of the holder, so that holders spread evenly.
    """
    count = counter_shard_count(cap)
    base, extra = divmod(cap, count)
    home = int.from_bytes(hashlib.sha256(holder.encode()).digest()[:4], "big") % count
    for step in range(count):
        index = (home + step) % count
        yield CounterShard(index, base + (1 if index < extra else 0))
