"""Providers of limits: rates, and quotas of connections."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tidegate import tables
from tidegate.providers.stores import StoreProviders

if TYPE_CHECKING:
    from tidegate.adapters.dynamodb.limits import DynamoCaps, DynamoRates
    from tidegate.adapters.dynamodb.upstream_holds import DynamoUpstreamHolds
    from tidegate.adapters.key_hasher import SaltedKeys
    from tidegate.adapters.memory_rates import MemoryRates
    from tidegate.domain.limits import FailureMode
    from tidegate.ports.limits import AttemptStore, KeyHasher, RateCounter
    from tidegate.settings import Settings
    from tidegate.usecases.gateway.connect import ConnectPolicy
    from tidegate.usecases.gateway.subscribe import SubscribePolicy
    from tidegate.usecases.limits.attempts import Attempts
    from tidegate.usecases.limits.connection_quota import ConnectionQuota
    from tidegate.usecases.limits.look import LookAtLimits
    from tidegate.usecases.limits.rate_limits import RateLimits
    from tidegate.usecases.limits.upstream_quota import UpstreamQuota


def connect_policy(settings: Settings) -> ConnectPolicy:
    """The limits of the handshake."""
    from tidegate.usecases.gateway.connect import ConnectPolicy

    return ConnectPolicy(
        enabled=settings.realtime_enabled,
        allowed_origins=settings.allowed_origins,
        rate_per_minute=settings.connect_rate_limit_ip_per_min,
        connections_per_ip=settings.max_client_connections_per_ip,
    )


def subscribe_policy(settings: Settings) -> SubscribePolicy:
    """The limits of subscribing."""
    from tidegate.usecases.gateway.subscribe import SubscribePolicy

    return SubscribePolicy(
        enabled=settings.realtime_enabled,
        subscriptions_per_connection=settings.max_subscriptions_per_connection,
        connections_per_dashboard=settings.max_connections_per_dashboard,
        rate_per_ip=settings.public_subscribe_rate_limit_ip_per_min,
        rate_per_share_version=settings.public_subscribe_rate_limit_share_token_per_min,
    )


class LimitProviders(StoreProviders):
    """Where calls and connections are counted."""

    @cached_property
    def keys(self) -> SaltedKeys:
        from tidegate.adapters.key_hasher import SaltedKeys

        return SaltedKeys(self.secret("LIMITER_HASH_SALT_ARN"))

    @cached_property
    def rate_store(self) -> DynamoRates | MemoryRates:
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
    def upstream_holds(self) -> DynamoUpstreamHolds:
        from tidegate.adapters.dynamodb.upstream_holds import DynamoUpstreamHolds

        return DynamoUpstreamHolds(self.db, self.table(tables.LIMITERS), self.settings.limiter_namespace)

    @cached_property
    def upstream_quota(self) -> UpstreamQuota:
        from tidegate.usecases.limits.upstream_quota import UpstreamQuota

        return UpstreamQuota(
            holds=self.upstream_holds,
            keys=self.keys,
            limit=self.settings.max_upstreams_per_owner,
            failure_mode=self.settings.realtime_limiter_failure_mode,
            clock=self.clock,
            observer=self.observer,
        )

    @property
    def look_at_limits(self) -> LookAtLimits:
        """What our own store would answer now."""
        from tidegate.usecases.limits.look import LookAtLimits

        return LookAtLimits(
            rates=self.rate_store,
            caps=self.caps,
            holds=self.upstream_holds,
            upstreams_per_owner=self.settings.max_upstreams_per_owner,
            keys=self.keys,
            namespace=self.settings.limiter_namespace,
            timeout_ms=self.settings.limiter_timeout_ms,
            clock=self.clock,
            ids=self.ids,
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
