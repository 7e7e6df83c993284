"""Builds what the gateway's handlers run, from providers. Each handler imports only what its own services need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tidegate.adapters.aws.secrets_manager import Secret
    from tidegate.adapters.json_observer import JsonObserver
    from tidegate.usecases.gateway.connect import Connect
    from tidegate.usecases.gateway.end_connection import EndConnection
    from tidegate.usecases.gateway.handle_message import HandleMessage


class ConnectServices(NamedTuple):
    """What `$connect` runs. `origin` is the secret by which the edge proves itself; None where there is no edge."""

    connect: Connect
    trust_proxy_hops: int
    origin: Secret | None
    observer: JsonObserver


def connect_services(env: Mapping[str, str] | None = None) -> ConnectServices:
    from tidegate.providers.limits import connect_policy
    from tidegate.providers.remote_api import RemoteApiProviders
    from tidegate.usecases.gateway.connect import Connect

    container = RemoteApiProviders(env)
    settings = container.settings
    connect = Connect(
        policy=connect_policy(settings),
        rates=container.gateway_rates,
        quota=container.quota,
        connections=container.connections,
        keys=container.keys,
        clock=container.clock,
        observer=container.observer,
    )
    return ConnectServices(connect, settings.realtime_trust_proxy_hops, container.origin, container.observer)


class DisconnectServices(NamedTuple):
    """What `$disconnect` runs."""

    end_connection: EndConnection
    observer: JsonObserver


def disconnect_services(env: Mapping[str, str] | None = None) -> DisconnectServices:
    from tidegate.providers.delivery import DeliveryProviders

    container = DeliveryProviders(env)
    return DisconnectServices(container.end_connection, container.observer)


class MessageServices(NamedTuple):
    """What the routes for messages run."""

    handle_message: HandleMessage
    observer: JsonObserver


def message_services(env: Mapping[str, str] | None = None) -> MessageServices:
    from tidegate.providers.delivery import DeliveryProviders
    from tidegate.providers.limits import subscribe_policy
    from tidegate.usecases.gateway.handle_message import HandleMessage
    from tidegate.usecases.gateway.subscribe import Subscribe
    from tidegate.usecases.gateway.unsubscribe import Unsubscribe
    from tidegate.usecases.limits.message_budget import MessageBudget

    container = DeliveryProviders(env)
    settings = container.settings
    subscribe = Subscribe(
        policy=subscribe_policy(settings),
        tokens=container.session_tokens,
        rates=container.gateway_rates,
        authorizer=container.authorizer,
        quota=container.quota,
        upstreams=container.upstream_quota,
        connections=container.connections,
        subscriptions=container.subscriptions,
        streams=container.streams,
        wake_schedule=container.wake_schedule,
        clock=container.clock,
        ids=container.ids,
        observer=container.observer,
    )
    handle_message = HandleMessage(
        max_message_bytes=settings.max_message_bytes,
        # Always in our own store: a remote API does not know our connections.
        budget=MessageBudget(
            rates=container.rates(settings.realtime_limiter_failure_mode),
            per_minute=settings.message_rate_limit_connection_per_min,
            clock=container.clock,
        ),
        subscribe=subscribe,
        unsubscribe=Unsubscribe(
            connections=container.connections, subscriptions=container.subscriptions, observer=container.observer
        ),
        streams=container.streams,
        last_values=container.last_values,
        catch_ups=container.catch_ups,
        relay_workers=container.relay_workers,
        end_connection=container.end_connection,
        sender=container.sender,
        clock=container.clock,
        observer=container.observer,
        recover=lambda: container.recover,
    )
    return MessageServices(handle_message, container.observer)
