"""Changes that carry no revision: made from what stands now, and once more when somebody else was first.

Whoever rotates a link or grants a right does not care what others saved meanwhile. So they are not asked to do it
again.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from time import sleep
from typing import ParamSpec, TypeVar

from tidegate.errors import ChangedMeanwhile, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

#: How often a change is made before it is given up. Of those who write the same item at once, one succeeds in each
#: round. So this is how many people may change one dashboard within some milliseconds.
ATTEMPTS = 16
#: The longest pause before an attempt, seconds, times the number of attempts before it. It spreads those who meet.
_PAUSE_S = 0.01


def from_what_stands(change: Callable[P, T]) -> Callable[P, T]:
    """Repeat a change that reads, checks the caller's rights, and writes, while others write in between.

    Nothing was written when `ChangedMeanwhile` is raised, so a repetition changes nothing twice.

    Raises:
        Unavailable: others were first each time.
    """

    @functools.wraps(change)
    def again(*args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(ATTEMPTS):
            sleep(random.uniform(0, _PAUSE_S * attempt))
            try:
                return change(*args, **kwargs)
            except ChangedMeanwhile:
                continue
        raise Unavailable("It is being changed by others. Try again in a second.", code="store_busy")

    return again
