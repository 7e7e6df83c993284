"""Providers of a process that changes dashboards, or revalidates subscriptions."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tidegate import tables
from tidegate.providers.delivery import DeliveryProviders

if TYPE_CHECKING:
    from tidegate.adapters.aws.credential_cipher import KmsCredentialCipher
    from tidegate.adapters.aws.revalidation_queue import SqsBuriedTasks, SqsFollowRequests, SqsRevalidationQueue
    from tidegate.adapters.dynamodb.dashboards import DynamoDashboards
    from tidegate.adapters.dynamodb.revocations import DynamoRevocations
    from tidegate.adapters.upstreams.by_protocol import UpstreamsByProtocol
    from tidegate.usecases.control_plane.follow_profiles import FollowProfiles
    from tidegate.usecases.control_plane.resolve_intents import ResolveIntents


class ControlPlaneProviders(DeliveryProviders):
    """Dashboards, profiles, the revocation feed and its task queue."""

    @cached_property
    def revalidations(self) -> SqsRevalidationQueue:
        from tidegate.adapters.aws.revalidation_queue import SqsRevalidationQueue

        return SqsRevalidationQueue(*self.queue("REVALIDATION_QUEUE_URL"))

    @cached_property
    def buried_tasks(self) -> SqsBuriedTasks:
        from tidegate.adapters.aws.revalidation_queue import SqsBuriedTasks

        queue_url = self.variable("REVALIDATION_QUEUE_URL")
        return SqsBuriedTasks(*self.queue("REVALIDATION_DEAD_QUEUE_URL"), queue_url)

    @cached_property
    def follow_requests(self) -> SqsFollowRequests:
        from tidegate.adapters.aws.revalidation_queue import SqsFollowRequests

        return SqsFollowRequests(*self.queue("PROFILES_QUEUE_URL"))

    @cached_property
    def revocations(self) -> DynamoRevocations:
        from tidegate.adapters.dynamodb.revocations import DynamoRevocations

        return DynamoRevocations(self.db, self.table(tables.REVOCATIONS), self.settings.revoke_event_retention_seconds)

    @cached_property
    def resolve(self) -> ResolveIntents:
        from tidegate.domain.intents import IntentDefaults
        from tidegate.usecases.control_plane.resolve_intents import ResolveIntents

        settings = self.settings
        defaults = IntentDefaults(
            settings.sse_idle_timeout_ms, settings.ws_idle_timeout_ms, settings.mqtt_keepalive_seconds
        )
        return ResolveIntents(profiles=self.profiles, defaults=defaults)

    @cached_property
    def dashboards(self) -> DynamoDashboards:
        from tidegate.adapters.dynamodb.dashboards import DynamoDashboards

        return DynamoDashboards(
            self.db,
            self.revocations,
            table=self.table(tables.DASHBOARDS),
            access_table=self.table(tables.ACCESS),
            profiles_table=self.table(tables.PROFILES),
            users_table=self.env.get(tables.USERS.variable, ""),
        )

    @cached_property
    def follow_profiles(self) -> FollowProfiles:
        from tidegate.usecases.control_plane.follow_profiles import FollowProfiles

        return FollowProfiles(
            profiles=self.profiles,
            dashboards=self.dashboards,
            resolve=self.resolve,
            clock=self.clock,
            observer=self.observer,
        )

    @cached_property
    def cipher(self) -> KmsCredentialCipher:
        from tidegate.adapters.aws.credential_cipher import KmsCredentialCipher

        return KmsCredentialCipher(self.aws("kms", "TrentService", "1.1"), self.variable("CREDENTIAL_KEY_ID"))

    def new_upstreams(self) -> UpstreamsByProtocol:
        """Adapters of upstreams, without a connection. They are made and used in one event loop."""
        from tidegate.adapters.upstreams.aiohttp_streams import AiohttpUpstreams
        from tidegate.adapters.upstreams.by_protocol import UpstreamsByProtocol
        from tidegate.adapters.upstreams.mqtt_brokers import BrokerLimits, MqttUpstreams

        settings, egress = self.settings, self.egress_policy
        http = AiohttpUpstreams(
            egress,
            connect_timeout_s=settings.connect_timeout_ms / 1000,
            ping_interval_s=settings.ws_ping_interval_ms / 1000,
            max_bytes=settings.max_message_bytes,
            insecure_tls=settings.egress_allow_insecure_tls,
        )
        limits = BrokerLimits(
            max_qos=settings.mqtt_max_qos,
            max_connections=settings.mqtt_max_connections_per_broker,
            idle_s=settings.mqtt_idle_disconnect_ms / 1000,
            max_bytes=settings.mqtt_max_message_bytes,
            pause_s=(settings.reconnect_min_ms / 1000, settings.reconnect_max_ms / 1000),
        )
        mqtt = MqttUpstreams(
            egress,
            limits,
            connect_timeout_s=settings.connect_timeout_ms / 1000,
            insecure_tls=settings.egress_allow_insecure_tls,
        )
        return UpstreamsByProtocol(http, mqtt)
