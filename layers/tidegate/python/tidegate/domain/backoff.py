"""How long to wait before connecting again."""

from __future__ import annotations

#: After so many doublings every allowed bound is reached. More would only compute larger powers.
_MOST_DOUBLINGS = 30


def delay_ms(attempt: int, chance: float, min_ms: int, max_ms: int, *, refused: bool = False) -> int:
    """The next delay, milliseconds, with full jitter: anywhere between the least delay and a bound that doubles.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter", 2015.

    Args:
        attempt: failures in a row, from 1.
        chance: uniform in [0, 1).
        min_ms, max_ms: the delay's bounds, milliseconds.
        refused: the upstream refused us. Trying again soon would only be hammering, so the delay is at least half of
            `max_ms`.
    """
    if refused:
        return max(min_ms, round(max_ms * (0.5 + chance / 2)))
    bound = min(max_ms, min_ms * 2 ** min(attempt, _MOST_DOUBLINGS))
    return min_ms + int((bound - min_ms) * chance)
