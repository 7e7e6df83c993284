"""The quota of upstreams of an owner: what all dashboards of one person make the relay hold at the same time.

A process remembers until when it has held what. So a popular dashboard costs a write for each process, upstream and
minute, however many viewers it has.
"""

from __future__ import annotations

from tidegate.domain.limits import FailureMode, Outcome
from tidegate.domain.upstreams import held_until, name_of
from tidegate.errors import LimiterUnavailable, LimitReached, Unavailable
from tidegate.ports.limits import KeyHasher, UpstreamHolds
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.limits.deadline import LimiterDeadline

_SCOPE = "cap-upstreams"
#: Holds that a process remembers. Beyond that the oldest is forgotten, and written once more.
_REMEMBERED = 4096


def upstreams_refused(limit: int, free_at: int, now: float) -> LimitReached:
    """The refusal of an owner who holds as many as allowed. `free_at`: when there is room. Epoch seconds both."""
    refusal = f"Too many upstreams for the dashboards of this owner: at most {limit} at the same time"
    wait_ms = max(1000, free_at * 1000 - int(now * 1000))
    return LimitReached(refusal, code="cap_reached", retry_after_ms=wait_ms)


class UpstreamQuota:
    """Upstreams of an owner."""

    def __init__(
        self,
        *,
        holds: UpstreamHolds,
        keys: KeyHasher,
        limit: int,
        failure_mode: FailureMode,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._holds = holds
        self._keys = keys
        self._limit = limit
        self._failure_mode = failure_mode
        self._clock = clock
        self._observer = observer
        self._held: dict[tuple[str, str], int] = {}

    def take(self, owner_id: str, stream_key: str, expires_at: int, deadline: LimiterDeadline) -> None:
        """Hold an upstream for a new subscription.

        Args:
            owner_id: who owns the dashboard.
            stream_key: of the upstream.
            expires_at: when the subscription's token ends, epoch seconds.
            deadline: shared by all limiter calls of one request.

        Raises:
            LimitReached: the owner's dashboards hold as many as they may, and not this one.
            LimiterUnavailable: the store did not answer and the failure mode is fail-closed.
        """
        try:
            free_at = self._hold(owner_id, stream_key, expires_at, self._limit, deadline)
        except Unavailable as error:
            self._failed(error)
            if self._failure_mode is FailureMode.OPEN:
                self._count(Outcome.FAIL_OPEN)
                return
            self._count(Outcome.FAIL_CLOSED)
            raise LimiterUnavailable("The upstream limiter is temporarily unavailable") from error
        if free_at is None:
            self._count(Outcome.ALLOWED)
            return
        self._count(Outcome.REJECTED)
        raise upstreams_refused(self._limit, free_at, self._clock.now())

    def keep(self, owner_id: str, stream_key: str, expires_at: int, deadline: LimiterDeadline) -> None:
        """Hold an upstream for longer, for a subscription that goes on. It is never refused."""
        try:
            self._hold(owner_id, stream_key, expires_at, None, deadline)
        except Unavailable as error:
            self._failed(error)

    def _hold(
        self, owner_id: str, stream_key: str, expires_at: int, limit: int | None, deadline: LimiterDeadline
    ) -> int | None:
        until, now = held_until(expires_at), int(self._clock.now())
        key = (self._keys.key("owner", owner_id), name_of(stream_key))
        if self._held.get(key, 0) >= until:
            return None
        with deadline.running() as until_s:
            free_at = self._holds.hold(*key, until, now, limit, until_s)
        if free_at is None:
            self._remember(key, until)
        return free_at

    def _remember(self, key: tuple[str, str], until: int) -> None:
        self._held.pop(key, None)
        if len(self._held) >= _REMEMBERED:
            self._held.pop(next(iter(self._held)))
        self._held[key] = until

    def _failed(self, error: Unavailable) -> None:
        self._observer.count("limiter", scope=_SCOPE, outcome=Outcome.BACKEND_ERROR.value, cause=error.code)

    def _count(self, outcome: Outcome) -> None:
        self._observer.count("limiter", scope=_SCOPE, outcome=outcome.value)
