"""What limits would answer now, without counting anything.

Invariant of this file: nothing is written. Its ports can only read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tidegate.domain.limits import WINDOW_MS, Cap, Outcome, Rate, counter_shards, window_left_ms
from tidegate.domain.upstreams import name_of
from tidegate.errors import LimiterUnavailable, LimitReached, Unavailable
from tidegate.ports.limits import CapReader, HoldReader, KeyHasher, RateReader
from tidegate.ports.runtime import Clock, Ids, Observer
from tidegate.usecases.limits.connection_quota import cap_reached
from tidegate.usecases.limits.deadline import LimiterDeadline
from tidegate.usecases.limits.rate_limits import counter_key
from tidegate.usecases.limits.upstream_quota import upstreams_refused


class LookAtLimits:
    """Reads what `RateLimits`, `ConnectionQuota` and `UpstreamQuota` count.

    Each method raises the refusal that whoever counts would meet now. When the store does not answer it raises
    `LimiterUnavailable`, whatever the failure mode: nothing is known then.
    """

    def __init__(
        self,
        *,
        rates: RateReader,
        caps: CapReader,
        holds: HoldReader,
        upstreams_per_owner: int,
        keys: KeyHasher,
        namespace: str,
        timeout_ms: int,
        clock: Clock,
        ids: Ids,
        observer: Observer,
    ) -> None:
        self._rates = rates
        self._caps = caps
        self._holds = holds
        self._upstreams_per_owner = upstreams_per_owner
        self._keys = keys
        self._namespace = namespace
        self._timeout_s = timeout_ms / 1000
        self._clock = clock
        self._ids = ids
        self._observer = observer

    def deadline(self) -> LimiterDeadline:
        """One for all limits that are looked at for a request."""
        return LimiterDeadline(self._clock, self._timeout_s)

    def rate(self, rate: Rate, deadline: LimiterDeadline) -> None:
        """Raises `LimitReached` when one more call is above the limit."""
        now_ms = int(self._clock.now() * 1000)
        with self._answered(rate.scope), deadline.running() as until_s:
            key = counter_key(self._keys, self._namespace, rate.scope, rate.key)
            spent = self._rates.spent(key, now_ms, WINDOW_MS, until_s)
        if spent >= rate.limit:
            raise LimitReached(rate.refusal, retry_after_ms=window_left_ms(now_ms))

    def cap(self, cap: Cap, deadline: LimiterDeadline) -> None:
        """Raises `LimitReached` when no counter shard has room.

        It begins at a shard of its own choice, as a new connection does. So it reads one, unless the cap is nearly
        full.
        """
        with self._answered(f"cap-{cap.name.split('#', 1)[0]}"), deadline.running() as until_s:
            for shard in counter_shards(self._ids.new_id(), cap.limit):
                if self._caps.held(cap.name, shard.index, until_s) < shard.limit:
                    return
        raise cap_reached(cap.refusal)

    def upstream(self, owner_id: str, stream_key: str, deadline: LimiterDeadline) -> None:
        """Raises `LimitReached` when the owner's dashboards hold as many upstreams as they may, and not this one."""
        now, limit = self._clock.now(), self._upstreams_per_owner
        with self._answered("cap-upstreams"), deadline.running() as until_s:
            owner = self._keys.key("owner", owner_id)
            free_at = self._holds.refused(owner, name_of(stream_key), int(now), limit, until_s)
        if free_at is not None:
            raise upstreams_refused(limit, free_at, now)

    @contextmanager
    def _answered(self, scope: str) -> Iterator[None]:
        try:
            yield
        except Unavailable as error:
            self._observer.count("limiter", scope=scope, outcome=Outcome.BACKEND_ERROR.value, cause=error.code)
            raise LimiterUnavailable("Security limiter is temporarily unavailable") from error
