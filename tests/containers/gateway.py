"""The gateway over doubles: one dashboard with one MQTT datasource, one link viewer's token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.doubles.platform import (
    CountingIds,
    ManualClock,
    MemoryCatchUpQueue,
    MemoryCrowdQueue,
    MemoryObserver,
    MemoryRelayWorkers,
    MemorySender,
    PlainKeys,
)
from tests.doubles.stores import (
    MemoryAccess,
    MemoryCaps,
    MemoryConnections,
    MemoryHistory,
    MemoryLastValues,
    MemoryStreams,
    MemorySubscriptions,
    MemoryUpstreamHolds,
)
from tidegate.adapters.memory_rates import MemoryRates
from tidegate.domain.access import PUBLIC_SUBJECT, AclLevel, DashboardAccess, Role, UserAccess, Visibility
from tidegate.domain.egress import EgressPolicy
from tidegate.domain.intents import build_intent, intent_hash
from tidegate.domain.limits import FailureMode
from tidegate.domain.profiles import BrokerProfile, CredentialProfile, Transport
from tidegate.domain.stream_policy import StreamPolicy
from tidegate.domain.subscriptions import Connection
from tidegate.domain.tokens import SessionClaims
from tidegate.errors import Unauthenticated
from tidegate.usecases.delivery.audiences import Audiences
from tidegate.usecases.delivery.bridge import Bridge, DeviceMessage
from tidegate.usecases.delivery.catch_up import CatchUp
from tidegate.usecases.delivery.crowds import SendPart, ShardSender
from tidegate.usecases.delivery.failures import FailureHandler
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.interval import Interval
from tidegate.usecases.delivery.keep_history import KeepEach
from tidegate.usecases.delivery.senders import OneShotSender
from tidegate.usecases.delivery.settle import Settle
from tidegate.usecases.delivery.together import Together
from tidegate.usecases.gateway.authorizer import LocalAuthorizer
from tidegate.usecases.gateway.connect import Connect, ConnectPolicy
from tidegate.usecases.gateway.end_connection import EndConnection
from tidegate.usecases.gateway.handle_message import HandleMessage
from tidegate.usecases.gateway.recover import Recover
from tidegate.usecases.gateway.subscribe import Subscribe, SubscribePolicy
from tidegate.usecases.gateway.unsubscribe import Unsubscribe
from tidegate.usecases.limits.connection_quota import ConnectionQuota
from tidegate.usecases.limits.message_budget import MessageBudget
from tidegate.usecases.limits.rate_limits import RateLimits
from tidegate.usecases.limits.upstream_quota import UpstreamQuota

DASHBOARD, DATASOURCE = "dash", "temp"
#: `REALTIME_MAX_UPDATES_PER_SECOND` of batches.
PER_SECOND = 10
#: Upstreams may be anywhere but inside.
EGRESS = EgressPolicy((), (80, 443), production=False)


class FakeTokens:
    """Tokens are names of claims; signing is the JWT adapter's business."""

    def __init__(self) -> None:
        self.claims: dict[str, SessionClaims] = {}

    def verify(self, token: str, now: float) -> SessionClaims:
        claims = self.claims.get(token)
        if claims is None:
            raise Unauthenticated("Invalid datasource session token")
        if now >= claims.expires_at:
            raise Unauthenticated("Invalid datasource session token", code="token_expired")
        return claims

    def sign(self, claims: SessionClaims) -> str:
        token = f"token-{len(self.claims)}"
        self.claims[token] = claims
        return token


class FakeProfiles:
    """The part of a profile store the gateway reads."""

    def __init__(self) -> None:
        self.by_broker: dict[str, BrokerProfile] = {}
        self.by_credential: dict[str, CredentialProfile] = {}

    def broker(self, profile_id: str) -> BrokerProfile | None:
        return self.by_broker.get(profile_id)

    def credential(self, profile_id: str) -> CredentialProfile | None:
        return self.by_credential.get(profile_id)


class GatewayContainer:
    """Everything wired; attributes are there to look at and to break."""

    def __init__(
        self,
        *,
        per_connection: int = 50,
        per_dashboard: int = 1000,
        rate: int = 1000,
        failure_mode: FailureMode = FailureMode.CLOSED,
        allowed_topics: Sequence[str] = ("a/#",),
        origins: Sequence[str] = (),
        per_ip: int = 25,
        enabled: bool = True,
        connect_policy: ConnectPolicy | None = None,
        subscribe_policy: SubscribePolicy | None = None,
        upstreams_per_owner: int = 100,
    ) -> None:
        self.clock, self.ids, self.observer = ManualClock(), CountingIds(), MemoryObserver()
        self.access, self.connections = MemoryAccess(), MemoryConnections()
        self.subscriptions = MemorySubscriptions(self.connections)
        self.streams, self.last_values, self.history = MemoryStreams(), MemoryLastValues(), MemoryHistory()
        self.rate_store, self.caps = MemoryRates(), MemoryCaps(self.connections)
        self.sender, self.catch_ups = MemorySender(), MemoryCatchUpQueue()
        self.relay_workers = MemoryRelayWorkers()
        self.tokens, self.profiles = FakeTokens(), FakeProfiles()
        self.rates = RateLimits(
            store=self.rate_store,
            keys=PlainKeys(),
            namespace="t",
            failure_mode=failure_mode,
            timeout_ms=3000,
            clock=self.clock,
            ids=self.ids,
            observer=self.observer,
        )
        self.slots = ConnectionQuota(
            store=self.caps,
            failure_mode=failure_mode,
            timeout_ms=3000,
            clock=self.clock,
            observer=self.observer,
        )
        self.holds = MemoryUpstreamHolds()
        self.upstreams = UpstreamQuota(
            holds=self.holds,
            keys=PlainKeys(),
            limit=upstreams_per_owner,
            failure_mode=failure_mode,
            clock=self.clock,
            observer=self.observer,
        )
        self.end_connection = EndConnection(
            connections=self.connections,
            subscriptions=self.subscriptions,
            quota=self.slots,
            sender=self.sender,
            observer=self.observer,
        )
        self.connect = Connect(
            policy=connect_policy or ConnectPolicy(enabled, list(origins), rate, per_ip),
            rates=self.rates,
            quota=self.slots,
            connections=self.connections,
            keys=PlainKeys(),
            clock=self.clock,
            observer=self.observer,
        )
        self.authorizer = LocalAuthorizer(
            access=self.access,
            profiles=self.profiles,  # type: ignore[arg-type]
            policy=StreamPolicy(frozenset({"mqtt", "sse"}), tuple(allowed_topics), "a", EGRESS),
        )
        self.subscribe = Subscribe(
            policy=subscribe_policy or SubscribePolicy(per_connection, per_dashboard, rate, rate),
            tokens=self.tokens,
            rates=self.rates,
            authorizer=self.authorizer,
            quota=self.slots,
            upstreams=self.upstreams,
            connections=self.connections,
            subscriptions=self.subscriptions,
            streams=self.streams,
            wake_schedule=lambda: None,
            clock=self.clock,
            ids=self.ids,
            observer=self.observer,
        )
        self.recover = Recover(self.history, self.clock)
        self.handle = HandleMessage(
            max_message_bytes=4000,
            budget=self.new_budget(),
            subscribe=self.subscribe,
            unsubscribe=Unsubscribe(
                connections=self.connections, subscriptions=self.subscriptions, observer=self.observer
            ),
            streams=self.streams,
            last_values=self.last_values,
            catch_ups=self.catch_ups,
            relay_workers=self.relay_workers,
            end_connection=self.end_connection,
            sender=self.sender,
            clock=self.clock,
            observer=self.observer,
            recover=lambda: self.recover,
        )
        self.audiences = Audiences(
            lambda stream_key: self.subscriptions.audience(stream_key, or_first_shard=True), self.clock
        )
        self.crowds = MemoryCrowdQueue()
        self.fresh = FreshAccess(self.access, self.audiences, self.clock)
        self.failure_handler = FailureHandler(
            catch_ups=self.catch_ups, end_connection=self.end_connection, clock=self.clock, observer=self.observer
        )
        self.send = OneShotSender(
            access=self.fresh, sender=self.sender, failure_handler=self.failure_handler, observer=self.observer
        )
        self.fan_out = FanOut(
            audiences=self.audiences,
            last_values=self.last_values,
            send=self.send,
            max_message_bytes=4000,
            clock=self.clock,
            observer=self.observer,
            crowds=self.crowds,
            keep=KeepEach(lambda: self.history, self.clock),
        )
        self.settle = Settle(
            last_values=self.last_values,
            fan_out=self.fan_out,
            catch_up=self.failure_handler.or_fail,
            clock=self.clock,
            observer=self.observer,
        )
        self.together = Together(
            fan_out=self.fan_out,
            last_values=self.last_values,
            interval=Interval(
                last_values=self.last_values, per_second=PER_SECOND, clock=self.clock, sleep=self.clock.advance
            ),
            send=self.send,
            crowds=self.crowds,
            clock=self.clock,
            observer=self.observer,
        )
        self.bridge = Bridge(
            enabled=True,
            max_payload_bytes=2000,
            streams=self.streams,
            fan_out=self.fan_out,
            settle=self.settle,
            clock=self.clock,
            observer=self.observer,
            together=self.together,
        )
        self.catch_up = CatchUp(
            subscriptions=self.subscriptions,
            streams=self.streams,
            last_values=self.last_values,
            access=self.access,
            sender=self.sender,
            catch_ups=self.catch_ups,
            end_connection=self.end_connection,
            clock=self.clock,
            observer=self.observer,
            recover=lambda: self.recover,
        )
        self.profiles.by_broker["b"] = BrokerProfile("b", "b", Transport.IOT_CORE, allow_public_use=True)
        self.access.users["owner"] = UserAccess("owner", Role.EDITOR, True, 1)
        self.access.users["member"] = UserAccess("member", Role.VIEWER, True, 1)
        self.add_dashboard(DASHBOARD)

    def new_budget(self) -> MessageBudget:
        """As one more process has it."""
        return MessageBudget(rates=self.rates, per_minute=600, clock=self.clock)

    def send_part(self) -> SendPart:
        """As one more invocation has it."""

        def sender_of(shard: int) -> ShardSender:
            audiences = Audiences(lambda key: self.subscriptions.audience_shard(key, shard), self.clock)
            send = OneShotSender(
                access=FreshAccess(self.access, audiences, self.clock),
                sender=self.sender,
                failure_handler=self.failure_handler,
                observer=self.observer,
            )
            fan_out = FanOut(
                audiences=audiences,
                last_values=self.last_values,
                send=send,
                max_message_bytes=4000,
                clock=self.clock,
                observer=self.observer,
            )
            return ShardSender(fan_out, send)

        return SendPart(
            last_values=self.last_values,
            sender_of=sender_of,
            queue=self.crowds,
            patience=None,
            clock=self.clock,
            observer=self.observer,
        )

    # --- the scene ----------------------------------------------------------------------------------------

    def add_dashboard(self, dashboard_id: str) -> None:
        """A dashboard shared by link, with one datasource and one member."""
        self.access.dashboards[dashboard_id] = DashboardAccess(
            dashboard_id, 1, Visibility.LINK, "owner", {"member": AclLevel.VIEWER}
        )
        self.add_datasource(DATASOURCE, "a/b", dashboard_id=dashboard_id)

    def add_datasource(
        self,
        datasource_id: str,
        topic: str,
        parser: str = "json",
        *,
        dashboard_id: str = DASHBOARD,
        history: Mapping[str, int] | None = None,
    ) -> None:
        settings: dict[str, object] = {"brokerProfileId": "b", "topic": topic, "parser": parser}
        settings |= {"history": history} if history else {}
        source = {"id": datasource_id, "type": "mqtt", "settings": settings}
        intent = build_intent(dashboard_id, source, broker=self.profiles.by_broker["b"])
        self.access.intents[(dashboard_id, datasource_id)] = intent
        dashboard = self.access.dashboards[dashboard_id]
        hashes: Mapping[str, str] = {**dashboard.intents, datasource_id: intent_hash(intent)}
        self.access.dashboards[dashboard_id] = replace(dashboard, intents=hashes)

    def change(self, **changes: Any) -> None:
        """Change the dashboard's access item."""
        self.access.dashboards[DASHBOARD] = replace(self.access.dashboards[DASHBOARD], **changes)

    def revoke(self) -> None:
        self.change(share_version=self.access.dashboards[DASHBOARD].share_version + 1)

    def token(
        self,
        datasource_id: str = DATASOURCE,
        *,
        user: str | None = None,
        ttl: int = 300,
        dashboard: str = DASHBOARD,
        **changes: Any,
    ) -> str:
        access = self.access.dashboards[dashboard]
        now = int(self.clock.now())
        claims = SessionClaims(
            subject=user or PUBLIC_SUBJECT,
            dashboard_id=dashboard,
            datasource_id=datasource_id,
            scope="datasource:stream",
            issued_at=now,
            expires_at=now + ttl,
            intent_hash=access.intents.get(datasource_id),
            share_version=None if user else access.share_version,
            session_version=1 if user else None,
            viewer_id=None if user else "viewer",
        )
        return self.tokens.sign(replace(claims, **changes))

    def open(self, connection_id: str = "c", ip: str = "ip", *, batch: bool = False) -> str:
        self.connections.open(Connection(connection_id, ip, int(self.clock.now()), batch=batch))
        return connection_id

    def subscribed(
        self, connection_id: str = "c", datasource_id: str = DATASOURCE, *, dashboard: str = DASHBOARD, **token: Any
    ) -> None:
        """A viewer with a live subscription."""
        self.open(connection_id, ip=connection_id)
        self.subscribe(connection_id, dashboard, datasource_id, self.token(datasource_id, dashboard=dashboard, **token))

    def publish(
        self, payload: bytes = b"1", topic: str = "a/b", message_id: str = "m", *, at_ms: int | None = None
    ) -> int:
        """A device's message of now, or of `at_ms`, as a late or repeated one is."""
        self.clock.advance(0.001)
        now_ms = round(self.clock.now() * 1000)  # cut off, two messages could be of one millisecond, and equal
        return self.bridge(DeviceMessage("a/#", topic, payload, now_ms if at_ms is None else at_ms, message_id))

    def frames(self, kind: str, connection_id: str = "c") -> list[dict[str, Any]]:
        return [frame for frame in self.sender.sent.get(connection_id, []) if frame["type"] == kind]
