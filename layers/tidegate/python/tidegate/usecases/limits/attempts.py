"""Limit guesses: count an attempt, judge it, and give it back when it was right.

Invariant of this file: no attempt is judged that was not counted first, unless the store did not answer and the
failure mode is fail-open. Every decision is counted under its outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.domain.attempts import AttemptPolicy
from tidegate.domain.limits import Outcome
from tidegate.errors import LimitReached, Unavailable
from tidegate.ports.limits import AttemptStore
from tidegate.ports.runtime import Clock, Ids
from tidegate.usecases.limits.deadline import LimiterDeadline
from tidegate.usecases.limits.rate_limits import RateLimits


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that may be judged.

    Attributes:
        scope, key, policy: what it was counted under.
        attempt_id: its id; None when it could not be counted and the failure mode admitted it.
        last: whether it was the last one that was free.
        known: whether an attempt under this key was right not long ago.
    """

    scope: str
    key: str
    policy: AttemptPolicy
    attempt_id: str | None
    last: bool = False
    known: bool = False


class Attempts:
    """Limits of guesses, counted in one store. The failure mode is that of `rates`."""

    def __init__(self, *, store: AttemptStore, rates: RateLimits, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._rates = rates
        self._clock = clock
        self._ids = ids

    def deadline(self) -> LimiterDeadline:
        """One for all limiter calls of a request."""
        return self._rates.deadline()

    def begin(
        self,
        scope: str,
        raw_key: str,
        policy: AttemptPolicy,
        *,
        deadline: LimiterDeadline,
        refusal: str,
        unavailable: str = "Security limiter is temporarily unavailable",
    ) -> Attempt:
        """Count an attempt.

        Args:
            scope: what is guessed, as metrics show it.
            raw_key: whose guesses are counted. Only its HMAC is stored.
            deadline: shared by all limiter calls of one request.
            refusal: what a refused client is told, without its full stop; the time to wait is added.
            unavailable: what a client is told when the attempt could not be counted.

        Raises:
            LimitReached: no attempt is free.
            LimiterUnavailable: the store did not answer, or the salt could not be read, and the failure mode is
                fail-closed.
        """
        key, attempt_id = "", self._ids.new_id()
        try:
            key = self._rates.key(scope, raw_key)
            with deadline.running() as until_s:
                decision = self._store.begin(key, attempt_id, policy, self._now_ms(), until_s)
        except Unavailable as error:
            self._rates.unanswered(scope, error, unavailable)
            return Attempt(scope, key, policy, None)
        if not decision.allowed:
            self._rates.decided(scope, Outcome.REJECTED)
            raise LimitReached(refusal, retry_after_ms=decision.retry_after_ms)
        self._rates.decided(scope, Outcome.ALLOWED)
        return Attempt(scope, key, policy, attempt_id, decision.last, decision.known)

    def wrong(self, attempt: Attempt, deadline: LimiterDeadline) -> bool:
        """The attempt was wrong, and stays counted. Returns whether it used up its window."""
        if attempt.attempt_id is None or not attempt.last:
            return False
        try:
            with deadline.running() as until_s:
                return self._store.wrong(attempt.key, attempt.attempt_id, attempt.policy, self._now_ms(), until_s)
        except Unavailable as error:  # then the window ends when it would have ended
            self._rates.not_cleaned_up(attempt.scope, error)
            return False

    def give_back(self, attempt: Attempt, deadline: LimiterDeadline, *, known_s: int = 0) -> None:
        """The attempt was right, or was not judged.

        With `known_s`, attempts under the same key are `known` for so many seconds.
        """
        if attempt.attempt_id is None:
            return
        known_until_ms = self._now_ms() + known_s * 1000 if known_s else 0
        try:
            with deadline.running() as until_s:
                self._store.right(attempt.key, attempt.attempt_id, until_s, known_until_ms=known_until_ms)
        except Unavailable as error:  # then it counts until its window ends
            self._rates.not_cleaned_up(attempt.scope, error)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)
