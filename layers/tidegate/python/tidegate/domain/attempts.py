"""How many guesses are judged, as pure values.

An attempt is counted before it is judged, and given back when it was right. So of many attempts at the same time no
more are judged than are free. A process that dies in between leaves its attempt counted: one too many, never one too
few.

A window begins with the first attempt. Attempts are kept as a set of ids, so that counting and giving back may be
repeated without harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.domain.limits import FLOODED


@dataclass(frozen=True, slots=True)
class AttemptPolicy:
    """How many attempts are judged.

    Attributes:
        limit: attempts of a window that may be wrong.
        window_s: length of a window, seconds.
        lock_s: how long a wrong attempt that uses up the window lengthens it, seconds from then. 0: not at all.
    """

    limit: int
    window_s: int
    lock_s: int = 0

    def kept_until_ms(self, now_ms: int) -> int:
        """Until when a store keeps a window that begins now, epoch milliseconds."""
        return now_ms + (self.window_s + self.lock_s) * 1000


@dataclass(frozen=True, slots=True)
class AttemptDecision:
    """Answer of a store that was asked for an attempt.

    Attributes:
        allowed: whether the attempt may be judged.
        last: whether it is the last one that is free now.
        known: whether an attempt under this key was right not long ago. See `AttemptStore.right`.
        retry_after_ms: milliseconds to the end of the window when refused, else 0.
    """

    allowed: bool
    last: bool = False
    known: bool = False
    retry_after_ms: int = 0


#: The refusal of a key that is written so often that the store cannot keep up with it. It locks nobody, and holds for
#: the moment only: the capacity of a key is by the second.
FLOODED_ATTEMPT = AttemptDecision(False, retry_after_ms=FLOODED.retry_after_ms)


def decide_attempt(taken: int, policy: AttemptPolicy, known_until_ms: int, now_ms: int) -> AttemptDecision:
    """Decide from the number of attempts *after* this one was counted."""
    return AttemptDecision(True, taken >= policy.limit, known_until_ms > now_ms)


def refuse_attempt(until_ms: int, now_ms: int) -> AttemptDecision:
    """Refuse until the window ends."""
    return AttemptDecision(False, retry_after_ms=max(1, until_ms - now_ms))
