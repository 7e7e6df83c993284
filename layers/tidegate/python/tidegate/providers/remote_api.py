"""Providers of what is read from our own tables, or asked of a remote API where `GATEWAY_API_BASE_URL` names one."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tidegate.providers.limits import LimitProviders

if TYPE_CHECKING:
    from tidegate.adapters.remote_api.adapters import HttpIntrospections
    from tidegate.adapters.remote_api.client import RemoteApiClient
    from tidegate.domain.egress import EgressPolicy
    from tidegate.domain.stream_policy import StreamPolicy
    from tidegate.domain.switches import Switches
    from tidegate.ports.gateway import AccessStore
    from tidegate.usecases.gateway.authorizer import Authorizer
    from tidegate.usecases.limits.rate_limits import RateLimits


class RemoteApiProviders(LimitProviders):
    """Who answers whether a viewer may see a stream, and where the gateway counts."""

    @cached_property
    def remote_api(self) -> RemoteApiClient | None:
        """The remote API the gateway asks. None where it reads the tables."""
        if not self.settings.api_base_url:
            return None
        from tidegate.adapters.remote_api.client import RemoteApiClient

        return RemoteApiClient(self.settings.api_base_url, self.secret("GATEWAY_SERVICE_TOKEN_ARN"))

    @cached_property
    def introspections(self) -> HttpIntrospections | None:
        if self.remote_api is None:
            return None
        from tidegate.adapters.remote_api.adapters import HttpIntrospections

        return HttpIntrospections(self.remote_api, self.settings.introspection_timeout_ms)

    @property
    def gateway_access(self) -> AccessStore:
        """Access items as the gateway reads them."""
        return self.remote_access if self.settings.api_base_url else self.access

    @cached_property
    def egress_policy(self) -> EgressPolicy:
        """Where upstreams may be."""
        from tidegate.domain.egress import EgressPolicy

        settings = self.settings
        return EgressPolicy(
            settings.egress_allowed_hosts,
            settings.egress_allowed_ports,
            settings.egress_allow_private_destinations,
            settings.production,
        )

    @cached_property
    def switches(self) -> Switches:
        """What the operator switched on."""
        from tidegate.domain.switches import Switches

        settings = self.settings
        on = {"sse": settings.sse_enabled, "websocket": settings.ws_enabled, "mqtt": settings.mqtt_enabled}
        return Switches(settings.realtime_enabled, frozenset(protocol for protocol in on if not on[protocol]))

    @cached_property
    def stream_policy(self) -> StreamPolicy:
        """The operator's policy about streams."""
        from tidegate.domain.stream_policy import StreamPolicy

        settings = self.settings
        switches = {"sse": settings.sse_enabled, "websocket": settings.ws_enabled, "mqtt": settings.mqtt_enabled}
        enabled = frozenset(protocol for protocol, on in switches.items() if on)
        return StreamPolicy(enabled, settings.mqtt_allowed_topics, settings.iot_topic_prefix, self.egress_policy)

    @property
    def authorizer(self) -> Authorizer:
        if self.introspections is None:
            from tidegate.usecases.gateway.authorizer import LocalAuthorizer

            return LocalAuthorizer(access=self.access, profiles=self.profiles, policy=self.stream_policy)
        from tidegate.usecases.remote_api.authorizer import RemoteAuthorizer

        return RemoteAuthorizer(
            introspections=self.introspections,
            access=self.remote_access,
            policy=self.stream_policy,
            keys=self.keys,
            observer=self.observer,
        )

    @property
    def gateway_rates(self) -> RateLimits:
        """The gateway's limits, counted where the API counts."""
        mode = self.settings.realtime_limiter_failure_mode
        if self.remote_api is None:
            return self.rates(mode)
        from tidegate.adapters.remote_api.adapters import HttpRates, RemoteApiKeys

        return self.rates_over(HttpRates(self.remote_api), RemoteApiKeys(), mode)
