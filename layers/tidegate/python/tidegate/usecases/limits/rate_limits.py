"""Count calls against rates, and decide what happens when the limiter's store does not answer.

Invariant of this file: a decision comes from the store, from the failure mode, or from an earlier refusal that still
holds. Every decision is counted under its outcome.
"""

from __future__ import annotations

from tidegate.domain.limits import WINDOW_MS, FailureMode, Outcome, RateDecision
from tidegate.errors import LimiterUnavailable, LimitReached, Unavailable
from tidegate.ports.limits import KeyHasher, RateCounter
from tidegate.ports.runtime import Clock, Ids, Observer
from tidegate.usecases.limits.deadline import LimiterDeadline

#: Refusals that a process remembers. Beyond that the oldest is forgotten, and its key is asked of the store again.
_REMEMBERED = 4096


def stored_address(keys: KeyHasher, key: str) -> str:
    """What is stored of a client's address. `key`: the address, as `domain.limits.gateway_key` makes it."""
    return keys.key("ip", key)


def logged_address(keys: KeyHasher, key: str) -> str:
    """The same for a log line, which must not turn a refusal into a fault. `unknown` when the salt cannot be read."""
    try:
        return stored_address(keys, key)
    except Unavailable:
        return "unknown"


def counter_key(keys: KeyHasher, namespace: str, scope: str, raw_key: str) -> str:
    """The key under which the store counts calls. Only an HMAC of `raw_key` is in it."""
    return f"{namespace}#{scope}#{keys.key(scope, raw_key)}"


class RateLimits:
    """Limits in fixed windows, counted in one store."""

    def __init__(
        self,
        *,
        store: RateCounter,
        keys: KeyHasher,
        namespace: str,
        failure_mode: FailureMode,
        timeout_ms: int,
        clock: Clock,
        ids: Ids,
        observer: Observer,
    ) -> None:
        self._store = store
        self._keys = keys
        self._namespace = namespace
        self._failure_mode = failure_mode
        self._timeout_s = timeout_ms / 1000
        self._clock = clock
        self._ids = ids
        self._observer = observer
        self._refused_until_ms: dict[tuple[str, int], int] = {}  # (key, limit): gateways may have other limits

    def deadline(self) -> LimiterDeadline:
        """One for all limiter calls of a request."""
        return LimiterDeadline(self._clock, self._timeout_s)

    def consume(
        self,
        scope: str,
        raw_key: str,
        limit: int,
        *,
        refusal: str,
        deadline: LimiterDeadline | None = None,
        window_ms: int = WINDOW_MS,
        shown_as: str | None = None,
    ) -> RateDecision:
        """Count one call and return the decision that allowed it.

        Args:
            scope: what is limited.
            raw_key: whose calls are counted. Only its HMAC is stored.
            limit: calls per window.
            refusal: what a refused client is told: which limit, without a full stop.
            deadline: shared by all limiter calls of one request; None when this is the only one.
            window_ms: length of the window, milliseconds.
            shown_as: the scope that metrics show, when it is another one.

        Raises:
            LimitReached: the limit is reached.
            LimiterUnavailable: the store did not answer, or the salt could not be read, and the failure mode is
                fail-closed.
        """
        now_ms, shown = int(self._clock.now() * 1000), shown_as or scope
        try:
            key = self.key(scope, raw_key)
            until = self._refused_until_ms.get((key, limit), 0)
            if now_ms < until:
                self.decided(shown, Outcome.REJECTED)
                raise LimitReached(refusal, retry_after_ms=until - now_ms)
            with (deadline or self.deadline()).running() as until_s:
                decision = self._store.count(key, limit, now_ms, window_ms, self._ids.new_id(), until_s)
        except Unavailable as error:
            self.unanswered(shown, error)
            return RateDecision(True, limit, 0, counted=False)
        if decision.allowed:
            if decision.counted:
                self.decided(shown, Outcome.ALLOWED)
            else:
                self._count_failure(shown, "api_fail_open")
                self.decided(shown, Outcome.FAIL_OPEN)
            return decision
        self.decided(shown, Outcome.REJECTED)
        if decision.counted:
            self._remember((key, limit), now_ms + decision.retry_after_ms)
        raise LimitReached(refusal, retry_after_ms=decision.retry_after_ms)

    def _remember(self, key: tuple[str, int], until_ms: int) -> None:
        if len(self._refused_until_ms) >= _REMEMBERED:
            self._refused_until_ms.pop(next(iter(self._refused_until_ms)))
        self._refused_until_ms[key] = until_ms

    def key(self, scope: str, raw_key: str) -> str:
        """The key under which the store counts these calls. Raises `Unavailable` when the salt cannot be read."""
        return counter_key(self._keys, self._namespace, scope, raw_key)

    def unanswered(
        self, scope: str, error: Unavailable, refusal: str = "Security limiter is temporarily unavailable"
    ) -> None:
        """Decide without the store. Returns when the failure mode is fail-open.

        Raises:
            LimiterUnavailable: the failure mode is fail-closed. `refusal` is what the client is told.
        """
        self._count_failure(scope, error.code)
        if self._failure_mode is FailureMode.OPEN:
            self.decided(scope, Outcome.FAIL_OPEN)
            return
        self.decided(scope, Outcome.FAIL_CLOSED)
        raise LimiterUnavailable(refusal) from error

    def not_cleaned_up(self, scope: str, error: Unavailable) -> None:
        """Count what the store did not forget. Nothing is decided by it."""
        self._count_failure(scope, error.code)

    def _count_failure(self, scope: str, cause: str) -> None:
        self._observer.count("limiter", scope=scope, outcome=Outcome.BACKEND_ERROR.value, cause=cause)

    def decided(self, scope: str, outcome: Outcome) -> None:
        """Count a decision under its outcome."""
        self._observer.count("limiter", scope=scope, outcome=outcome.value)
