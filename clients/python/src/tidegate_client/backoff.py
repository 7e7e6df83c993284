"""Pauses before another try: full jitter, so that clients that failed together do not come back together."""

from __future__ import annotations

import random

_FIRST_S = 1.0
_MOST_S = 30.0
#: Doublings after which a pause is as long as it gets.
_MOST_DOUBLINGS = 10


def pause(failures: int, retry_after: float = 0.0, drawn: float | None = None) -> float:
    """How long to wait before try number `failures + 1`, seconds.

    A part, `drawn` of 0 to 1, of a bound that doubles from one second to thirty: "full jitter" of the AWS Architecture
    Blog's "Exponential Backoff And Jitter". What the server asks for is waited in full, and the jitter comes on top.
    """
    bound = min(_MOST_S, _FIRST_S * 2.0 ** min(failures, _MOST_DOUBLINGS))
    return retry_after + (random.random() if drawn is None else drawn) * bound
