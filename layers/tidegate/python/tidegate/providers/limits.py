"""Providers of limits: rates, and quotas of connections."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tidegate import tables
from tidegate.providers.stores import StoreProviders

if TYPE_CHECKING:
    from tidegate.adapters.dynamodb.limits import DynamoCaps
    from tidegate.adapters.key_hasher import SaltedKeys
    from tidegate.domain.limits import FailureMode
    from tidegate.ports.limits import AttemptStore, KeyHasher, RateCounter
    from tidegate.usecases.limits.attempts import Attempts
    from tidegate.usecases.limits.connection_quota import ConnectionQuota
    from tidegate.usecases.limits.rate_limits import RateLimits
    from tidegate.usecases.limits.upstream_quota import UpstreamQuota


class LimitProviders(StoreProviders):
    """Where calls and connections are counted."""

    @cached_property
    def keys(self) -> SaltedKeys:
        from tidegate.adapters.key_hasher import SaltedKeys

        return SaltedKeys(self.secret("LIMITER_HASH_SALT_ARN"))

    @cached_property
    def rate_store(self) -> RateCounter:
        """Where rates are counted. In memory each process counts for itself: never in production."""
        if self.settings.limiter_backend == "memory":
            from tidegate.adapters.memory_rates import MemoryRates

            return MemoryRates()
        from tidegate.adapters.dynamodb.limits import DynamoRates

        return DynamoRates(self.db, self.table(tables.LIMITERS))

    @cached_property
    def attempt_store(self) -> AttemptStore:
        """Where attempts are counted. In memory as `rate_store`."""
        if self.settings.limiter_backend == "memory":
            from tidegate.adapters.memory_attempts import MemoryAttempts

            return MemoryAttempts()
        from tidegate.adapters.dynamodb.attempts import DynamoAttempts

        return DynamoAttempts(self.db, self.table(tables.LIMITERS))

    def attempts(self, rates: RateLimits) -> Attempts:
        """Limits of guesses. The failure mode is that of `rates`."""
        from tidegate.usecases.limits.attempts import Attempts

        return Attempts(store=self.attempt_store, rates=rates, clock=self.clock, ids=self.ids)

    def rates(self, failure_mode: FailureMode) -> RateLimits:
        """Limits counted in our own store."""
        return self.rates_over(self.rate_store, self.keys, failure_mode)

    def rates_over(self, store: RateCounter, keys: KeyHasher, failure_mode: FailureMode) -> RateLimits:
        """Limits counted in a store of the caller's choice."""
        from tidegate.usecases.limits.rate_limits import RateLimits

        return RateLimits(
            store=store,
            keys=keys,
            namespace=self.settings.limiter_namespace,
            failure_mode=failure_mode,
            timeout_ms=self.settings.limiter_timeout_ms,
            clock=self.clock,
            ids=self.ids,
            observer=self.observer,
        )

    @cached_property
    def caps(self) -> DynamoCaps:
        from tidegate.adapters.dynamodb.limits import DynamoCaps

        return DynamoCaps(
            self.db,
            self.table(tables.LIMITERS),
            self.settings.limiter_namespace,
            self.table(tables.CONNECTIONS),
        )

    @cached_property
    def upstream_quota(self) -> UpstreamQuota:
        from tidegate.adapters.dynamodb.upstream_holds import DynamoUpstreamHolds
        from tidegate.usecases.limits.upstream_quota import UpstreamQuota

        return UpstreamQuota(
            holds=DynamoUpstreamHolds(self.db, self.table(tables.LIMITERS), self.settings.limiter_namespace),
            keys=self.keys,
            limit=self.settings.max_upstreams_per_owner,
            failure_mode=self.settings.realtime_limiter_failure_mode,
            clock=self.clock,
            observer=self.observer,
        )

    @cached_property
    def quota(self) -> ConnectionQuota:
        from tidegate.usecases.limits.connection_quota import ConnectionQuota

        return ConnectionQuota(
            store=self.caps,
            failure_mode=self.settings.realtime_limiter_failure_mode,
            timeout_ms=self.settings.limiter_timeout_ms,
            clock=self.clock,
            observer=self.observer,
        )
