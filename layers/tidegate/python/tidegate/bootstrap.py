"""The only place that wires: use cases with their adapters, for the gateway, the bridge and the catch-up.

Services are built at the first event of a process and kept; `lazily` gives Lambda its `handler`. The API has a
wiring of its own (`bootstrap_api`), because it needs libraries these functions must not pay for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from tidegate import tables
from tidegate.adapters.aws.catch_up_queue import SqsCatchUpQueue
from tidegate.adapters.aws.http import HttpClient, endpoint_url
from tidegate.adapters.aws.json_client import JsonClient
from tidegate.adapters.aws.management_api import ManagementApi
from tidegate.adapters.aws.relay_workers import LambdaRelayWorkers
from tidegate.adapters.aws.secrets_manager import Secret
from tidegate.adapters.aws.sigv4 import Credentials, Signer, credentials_from
from tidegate.adapters.dynamodb.access import DynamoAccess, DynamoRemoteAccess
from tidegate.adapters.dynamodb.client import DynamoDb
from tidegate.adapters.dynamodb.connections import DynamoConnections
from tidegate.adapters.dynamodb.limits import DynamoCaps, DynamoRates
from tidegate.adapters.dynamodb.profiles import DynamoProfiles
from tidegate.adapters.dynamodb.relay_leases import DynamoRelayLeases
from tidegate.adapters.dynamodb.streams import DynamoLastValues, DynamoStreams
from tidegate.adapters.dynamodb.subscriptions import DynamoSubscriptions
from tidegate.adapters.key_hasher import SaltedKeys
from tidegate.adapters.memory_rates import MemoryRates
from tidegate.adapters.powertools import PowertoolsObserver
from tidegate.adapters.remote_api.adapters import HttpIntrospections, HttpRates, RemoteApiKeys
from tidegate.adapters.remote_api.client import RemoteApiClient
from tidegate.adapters.system import SystemClock, SystemIds
from tidegate.adapters.tokens_jwt import JwtSessionTokens
from tidegate.domain.egress import EgressPolicy
from tidegate.domain.limits import FailureMode
from tidegate.domain.stream_policy import StreamPolicy
from tidegate.ports.gateway import AccessStore
from tidegate.ports.limits import KeyHasher, RateCounter, RateStore
from tidegate.settings import Settings, load
from tidegate.tables import Table
from tidegate.usecases.delivery.bridge import Bridge
from tidegate.usecases.delivery.catch_up import CatchUp
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.senders import FailureHandler, OneShotSender
from tidegate.usecases.gateway.authorizer import Authorizer, LocalAuthorizer
from tidegate.usecases.gateway.connect import Connect, ConnectPolicy
from tidegate.usecases.gateway.end_connection import EndConnection
from tidegate.usecases.gateway.handle_message import HandleMessage
from tidegate.usecases.gateway.subscribe import Subscribe, SubscribePolicy
from tidegate.usecases.gateway.unsubscribe import Unsubscribe
from tidegate.usecases.limits.connection_quota import ConnectionQuota
from tidegate.usecases.limits.rate_limits import RateLimits
from tidegate.usecases.remote_api.authorizer import RemoteAuthorizer

S = TypeVar("S")
Handler = Callable[[dict[str, Any], Any], Any]


#: The header the edge adds, so that nobody goes around it; its value is a secret.
ORIGIN_HEADER = "x-tidegate-origin"


class MissingVariable(RuntimeError):
    """A variable the deployment must set is not there."""


class World:
    """Adapters of one process, made when first asked for."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self.env = os.environ if env is None else env

    def variable(self, name: str) -> str:
        """A variable that must be set. Raises `MissingVariable`."""
        value = self.env.get(name, "")
        if not value:
            raise MissingVariable(f"{name} is not set: this function needs it (the CDK app sets it)")
        return value

    def table(self, table: Table) -> str:
        """The deployed name of a table."""
        return self.variable(table.variable)

    @cached_property
    def settings(self) -> Settings:
        return load(self.env)

    @cached_property
    def clock(self) -> SystemClock:
        return SystemClock()

    @cached_property
    def ids(self) -> SystemIds:
        return SystemIds()

    @cached_property
    def observer(self) -> PowertoolsObserver:
        service = self.env.get("POWERTOOLS_SERVICE_NAME", "tidegate")
        return PowertoolsObserver(service, self.env.get("POWERTOOLS_METRICS_NAMESPACE", "Tidegate"))

    @cached_property
    def region(self) -> str:
        return self.variable("AWS_REGION")

    @cached_property
    def credentials(self) -> Credentials:
        return credentials_from(self.env)

    def aws(self, service: str, target: str, version: str) -> JsonClient:
        base_url = endpoint_url(service, self.region, self.env)
        return JsonClient(
            service, target, version=version, region=self.region, credentials=self.credentials, base_url=base_url
        )

    @cached_property
    def db(self) -> DynamoDb:
        return DynamoDb(self.aws("dynamodb", "DynamoDB_20120810", "1.0"))

    @cached_property
    def secrets(self) -> JsonClient:
        return self.aws("secretsmanager", "secretsmanager", "1.1")

    def secret(self, variable: str) -> Secret:
        arn = self.variable(variable)
        return Secret(lambda: self.secrets, arn, self.clock, must_be_strong=self.settings.production)

    @cached_property
    def sender(self) -> ManagementApi:
        return self.new_sender()

    def new_sender(self) -> ManagementApi:
        """One more, with sockets of its own: `post_many` is for one thread at a time."""
        endpoint = management_endpoint(self.variable("WEBSOCKET_API_ENDPOINT"), self.env)
        return ManagementApi(endpoint, region=self.region, credentials=self.credentials, observer=self.observer)

    @cached_property
    def access(self) -> DynamoAccess:
        return DynamoAccess(self.db, self.table(tables.ACCESS))

    @cached_property
    def profiles(self) -> DynamoProfiles:
        return DynamoProfiles(self.db, self.table(tables.PROFILES))

    @cached_property
    def connections(self) -> DynamoConnections:
        return DynamoConnections(self.db, self.table(tables.CONNECTIONS))

    @cached_property
    def subscriptions(self) -> DynamoSubscriptions:
        return DynamoSubscriptions(self.db, self.table(tables.SUBSCRIPTIONS), self.table(tables.CONNECTIONS))

    @cached_property
    def streams(self) -> DynamoStreams:
        return DynamoStreams(self.db, self.table(tables.STREAMS))

    @cached_property
    def relay_leases(self) -> DynamoRelayLeases:
        return DynamoRelayLeases(self.db, self.table(tables.STREAMS))

    @cached_property
    def last_values(self) -> DynamoLastValues:
        return DynamoLastValues(self.db, self.table(tables.LAST_VALUES))

    @cached_property
    def catch_ups(self) -> SqsCatchUpQueue:
        return SqsCatchUpQueue(self.aws("sqs", "AmazonSQS", "1.0"), self.variable("CATCH_UP_QUEUE_URL"))

    @cached_property
    def relay_workers(self) -> LambdaRelayWorkers:
        http = HttpClient(endpoint_url("lambda", self.region, self.env))
        # The relay itself is not told its name: its own template could not hold it.
        name = self.env.get("RELAY_FUNCTION") or self.variable("AWS_LAMBDA_FUNCTION_NAME")
        return LambdaRelayWorkers(http, Signer(self.credentials, self.region, "lambda"), name)

    @cached_property
    def keys(self) -> SaltedKeys:
        return SaltedKeys(self.secret("LIMITER_HASH_SALT_ARN"))

    @cached_property
    def session_tokens(self) -> JwtSessionTokens:
        settings = self.settings
        return JwtSessionTokens(
            self.secret("JWT_GATEWAY_SECRET_ARN"), settings.session_token_issuer, settings.session_token_audience
        )

    @cached_property
    def rate_store(self) -> RateStore:
        """Where rates are counted. In memory each process counts for itself: never in production."""
        if self.settings.limiter_backend == "memory":
            return MemoryRates()
        return DynamoRates(self.db, self.table(tables.LIMITERS))

    def rates(self, failure_mode: FailureMode) -> RateLimits:
        """Limits counted here."""
        return self._limits(self.rate_store, self.keys, failure_mode)

    def _limits(self, store: RateCounter, keys: KeyHasher, failure_mode: FailureMode) -> RateLimits:
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
    def contract(self) -> RemoteApiClient | None:
        """The remote API the gateway asks; None where it reads the tables."""
        url = self.settings.api_base_url
        return RemoteApiClient(url, self.secret("GATEWAY_SERVICE_TOKEN_ARN")) if url else None

    @cached_property
    def introspections(self) -> HttpIntrospections | None:
        return HttpIntrospections(self.contract, self.settings.introspection_timeout_ms) if self.contract else None

    @cached_property
    def remote_access(self) -> DynamoRemoteAccess:
        return DynamoRemoteAccess(self.db, self.table(tables.ACCESS))

    @property
    def gateway_access(self) -> AccessStore:
        """Access items as the gateway's side reads them."""
        return self.remote_access if self.settings.api_base_url else self.access

    @property
    def authorizer(self) -> Authorizer:
        if self.introspections is None:
            return LocalAuthorizer(access=self.access, profiles=self.profiles, policy=self.stream_policy)
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
        if self.contract is None:
            return self.rates(mode)
        return self._limits(HttpRates(self.contract), RemoteApiKeys(), mode)

    @cached_property
    def caps(self) -> DynamoCaps:
        return DynamoCaps(self.db, self.table(tables.LIMITERS), self.settings.limiter_namespace)

    @cached_property
    def slots(self) -> ConnectionQuota:
        return ConnectionQuota(
            store=self.caps,
            failure_mode=self.settings.realtime_limiter_failure_mode,
            timeout_ms=self.settings.limiter_timeout_ms,
            clock=self.clock,
            observer=self.observer,
        )

    @cached_property
    def origin(self) -> Secret | None:
        """What proves that a request came through the edge; None where there is no edge."""
        return self.secret("ORIGIN_SECRET_ARN") if self.env.get("ORIGIN_SECRET_ARN") else None

    @cached_property
    def end_connection(self) -> EndConnection:
        return EndConnection(
            connections=self.connections,
            subscriptions=self.subscriptions,
            quota=self.slots,
            sender=self.sender,
            observer=self.observer,
        )

    @cached_property
    def failure_handler(self) -> FailureHandler:
        return FailureHandler(catch_ups=self.catch_ups, end_connection=self.end_connection, observer=self.observer)

    @cached_property
    def stream_policy(self) -> StreamPolicy:
        return stream_policy(self.settings)


def stream_policy(settings: Settings) -> StreamPolicy:
    """The operator's policy about streams."""
    switches = {"sse": settings.sse_enabled, "websocket": settings.ws_enabled, "mqtt": settings.mqtt_enabled}
    enabled = frozenset(protocol for protocol, on in switches.items() if on)
    return StreamPolicy(enabled, settings.mqtt_allowed_topics, egress_policy(settings))


def egress_policy(settings: Settings) -> EgressPolicy:
    """Where upstreams may be."""
    return EgressPolicy(
        settings.egress_allowed_hosts,
        settings.egress_allowed_ports,
        settings.egress_allow_private_destinations,
        settings.production,
    )


def management_endpoint(endpoint: str, env: Mapping[str, str]) -> str:
    """The callback URL of the deployed stage, `https://<api>.execute-api.<region>.<suffix>/<stage>`, or where an
    emulator serves the same API when `AWS_ENDPOINT_URL` names one."""
    emulator = env.get("AWS_ENDPOINT_URL_EXECUTE_API") or env.get("AWS_ENDPOINT_URL")
    if not emulator:
        return endpoint
    host, _, stage = endpoint.removeprefix("https://").partition("/")
    return f"{emulator.rstrip('/')}/_aws/execute-api/{host.split('.')[0]}/{stage}"


# --- what each function is given ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConnectServices:
    connect: Connect
    trust_proxy_hops: int
    origin: Secret | None
    observer: PowertoolsObserver


def connect_services(env: Mapping[str, str] | None = None) -> ConnectServices:
    world = World(env)
    settings = world.settings
    connect = Connect(
        policy=ConnectPolicy(
            enabled=settings.realtime_enabled,
            allowed_origins=settings.allowed_origins,
            rate_per_minute=settings.connect_rate_limit_ip_per_min,
            connections_per_ip=settings.max_client_connections_per_ip,
            limiter_timeout_ms=settings.limiter_timeout_ms,
        ),
        rates=world.gateway_rates,
        quota=world.slots,
        connections=world.connections,
        keys=world.keys,
        clock=world.clock,
        observer=world.observer,
    )
    return ConnectServices(connect, settings.realtime_trust_proxy_hops, world.origin, world.observer)


@dataclass(frozen=True, slots=True)
class DisconnectServices:
    end_connection: EndConnection
    observer: PowertoolsObserver


def disconnect_services(env: Mapping[str, str] | None = None) -> DisconnectServices:
    world = World(env)
    return DisconnectServices(world.end_connection, world.observer)


@dataclass(frozen=True, slots=True)
class MessageServices:
    handle_message: HandleMessage
    observer: PowertoolsObserver


def message_services(env: Mapping[str, str] | None = None) -> MessageServices:
    world = World(env)
    settings = world.settings
    subscribe = Subscribe(
        policy=SubscribePolicy(
            subscriptions_per_connection=settings.max_subscriptions_per_connection,
            connections_per_dashboard=settings.max_connections_per_dashboard,
            rate_per_ip=settings.public_subscribe_rate_limit_ip_per_min,
            rate_per_share_version=settings.public_subscribe_rate_limit_share_token_per_min,
        ),
        tokens=world.session_tokens,
        rates=world.gateway_rates,
        authorizer=world.authorizer,
        quota=world.slots,
        connections=world.connections,
        subscriptions=world.subscriptions,
        streams=world.streams,
        clock=world.clock,
        ids=world.ids,
        observer=world.observer,
    )
    handle_message = HandleMessage(
        max_message_bytes=settings.max_message_bytes,
        subscribe=subscribe,
        unsubscribe=Unsubscribe(
            connections=world.connections, subscriptions=world.subscriptions, observer=world.observer
        ),
        last_values=world.last_values,
        catch_ups=world.catch_ups,
        relay_workers=world.relay_workers,
        end_connection=world.end_connection,
        sender=world.sender,
        clock=world.clock,
        observer=world.observer,
    )
    return MessageServices(handle_message, world.observer)


@dataclass(frozen=True, slots=True)
class BridgeServices:
    bridge: Bridge
    observer: PowertoolsObserver


def bridge_services(env: Mapping[str, str] | None = None) -> BridgeServices:
    world = World(env)
    settings = world.settings
    fan_out = FanOut(
        subscriptions=world.subscriptions,
        last_values=world.last_values,
        send=OneShotSender(
            access=FreshAccess(world.gateway_access, world.clock),
            sender=world.sender,
            failure_handler=world.failure_handler,
            observer=world.observer,
        ),
        max_message_bytes=settings.max_message_bytes,
        clock=world.clock,
        observer=world.observer,
    )
    bridge = Bridge(
        enabled=settings.realtime_enabled and settings.mqtt_enabled,
        max_payload_bytes=settings.mqtt_max_message_bytes,
        streams=world.streams,
        fan_out=fan_out,
        clock=world.clock,
        observer=world.observer,
    )
    return BridgeServices(bridge, world.observer)


@dataclass(frozen=True, slots=True)
class CatchUpServices:
    catch_up: CatchUp
    observer: PowertoolsObserver


def catch_up_services(env: Mapping[str, str] | None = None) -> CatchUpServices:
    world = World(env)
    catch_up = CatchUp(
        subscriptions=world.subscriptions,
        last_values=world.last_values,
        access=world.gateway_access,
        sender=world.sender,
        end_connection=world.end_connection,
        clock=world.clock,
        observer=world.observer,
    )
    return CatchUpServices(catch_up, world.observer)


def lazily(make_handler: Callable[[S], Handler], build: Callable[[], S]) -> Handler:
    """A Lambda handler that builds its services at the first event and keeps them."""
    made: list[Handler] = []

    def handler(event: dict[str, Any], context: Any) -> Any:
        if not made:
            made.append(make_handler(build()))
        return made[0](event, context)

    return handler
