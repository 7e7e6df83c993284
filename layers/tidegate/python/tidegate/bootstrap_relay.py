"""The wiring of the relay, apart from `bootstrap` because it needs libraries the gateway must not pay for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from tidegate.adapters.aws.credential_cipher import KmsCredentialCipher
from tidegate.adapters.powertools import PowertoolsObserver
from tidegate.adapters.upstreams.aiohttp_streams import AiohttpUpstreams
from tidegate.adapters.upstreams.by_protocol import UpstreamsByProtocol
from tidegate.adapters.upstreams.mqtt_brokers import Limits, MqttUpstreams
from tidegate.bootstrap import World, egress_policy, stream_policy
from tidegate.domain.relay import PARTITIONS
from tidegate.domain.stream_policy import disabled_text
from tidegate.domain.subscriptions import Stream
from tidegate.ports.relay import MqttRequest, Requests, UpstreamRequest
from tidegate.protocol.messages import ErrorCode
from tidegate.settings import Settings
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.senders import BackgroundSender
from tidegate.usecases.relay.upstream import Upstream
from tidegate.usecases.relay.upstream_requests import StoredUpstreamRequests
from tidegate.usecases.relay.worker import RelayWorker
from tidegate.usecases.remote_api.introspection import IntrospectionBudget
from tidegate.usecases.remote_api.upstream_requests import RemoteUpstreamRequests

#: Threads that write values and read audiences: what a store keeps one stream waiting does not keep all others waiting.
_LANES = 8


class KeyedExecutor:
    """Threads with a fan-out each. A stream always takes the same, so its messages keep their order."""

    def __init__(self, make: Callable[[], FanOut]) -> None:
        self._lanes = [(ThreadPoolExecutor(1, f"lane-{number}"), make()) for number in range(_LANES)]

    def of(self, stream: Stream) -> tuple[ThreadPoolExecutor, FanOut]:
        return self._lanes[int(stream.stream_key[:8], 16) % _LANES]

    def close(self) -> None:
        for executor, _ in self._lanes:
            executor.shutdown(wait=False, cancel_futures=True)


class RelayRun:
    """One worker with what it needs; made within the event loop that runs it."""

    def __init__(self, world: World, *, handover_s: float | None = None) -> None:
        self._world = world
        settings = world.settings
        self._upstreams = UpstreamsByProtocol(_http_upstreams(settings), _mqtt_upstreams(settings))
        self._requests = _requests(world)
        self._asking = ThreadPoolExecutor(_LANES, "ask")
        self._frames = BackgroundSender(
            access=FreshAccess(world.gateway_access, world.clock),
            sender=world.new_sender(),
            failure_handler=world.failure_handler,
            may_send=lambda: self.relay.may_send(),
            conflate=settings.max_updates_per_second > 0,
            observer=world.observer,
        )
        self._lanes = KeyedExecutor(self._fan_out)
        options = {} if handover_s is None else {"handover_s": handover_s}
        enabled = stream_policy(settings).enabled if settings.realtime_enabled else frozenset[str]()
        self.relay = RelayWorker(
            leases=world.relay_leases,
            streams=world.streams,
            relay_workers=world.relay_workers,
            settings=settings.digest,
            enabled=enabled,
            notify_disabled=self._notify_disabled,
            make_upstream=self._upstream,
            has_audience=lambda stream: self._lanes.of(stream)[1].has_audience(stream),
            sender=self._frames,
            clock=world.clock,
            ids=world.ids,
            observer=world.observer,
            **options,
        )

    async def close(self) -> None:
        await self._upstreams.close()
        self._lanes.close()
        self._asking.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._frames.close)

    def _fan_out(self) -> FanOut:
        world = self._world
        return FanOut(
            subscriptions=world.subscriptions,
            last_values=world.last_values,
            send=self._frames,
            max_message_bytes=world.settings.max_message_bytes,
            clock=world.clock,
            observer=world.observer,
        )

    def _notify_disabled(self, stream: Stream) -> Awaitable[object]:
        executor, fan_out = self._lanes.of(stream)
        text = disabled_text(stream.protocol)
        notify = partial(fan_out.notify, stream, ErrorCode.POLICY_BLOCKED, text, status=True)
        return asyncio.get_running_loop().run_in_executor(executor, notify)

    def _upstream(self, stream: Stream) -> Upstream:
        world, settings = self._world, self._world.settings
        executor, fan_out = self._lanes.of(stream)

        def in_order(work: Callable[[], object]) -> Awaitable[object]:
            return asyncio.get_running_loop().run_in_executor(executor, work)

        def request() -> Awaitable[UpstreamRequest | MqttRequest]:
            # On threads of its own: an API that hangs must keep nobody's messages, and no lease, waiting.
            return asyncio.get_running_loop().run_in_executor(self._asking, self._requests, stream)

        return Upstream(
            stream,
            upstreams=self._upstreams,
            request=request,
            last_values=world.last_values,
            fan_out=fan_out,
            in_order=in_order,
            note=lambda connected: world.streams.note_connected(stream, connected),
            reconnect_ms=(settings.reconnect_min_ms, settings.reconnect_max_ms),
            per_second=settings.max_updates_per_second,
            chance=random.random,
            clock=world.clock,
            observer=world.observer,
        )


def _requests(world: World) -> Requests:
    """Where it is asked what to connect to: our tables, or a remote API where one is set."""
    if world.introspections is None:
        cipher = KmsCredentialCipher(world.aws("kms", "TrentService", "1.1"), world.variable("CREDENTIAL_KEY_ID"))
        return StoredUpstreamRequests(profiles=world.profiles, cipher=cipher)
    # A quarter of what the API allows, over all workers; half is the full revalidation's, the rest for subscribes.
    per_minute = max(1, world.settings.introspection_rate_limit_per_min // 4 // PARTITIONS)
    return RemoteUpstreamRequests(
        introspections=world.introspections,
        subscriptions=world.subscriptions,
        keys=world.keys,
        limit=IntrospectionBudget(per_minute, world.clock),
        clock=world.clock,
        observer=world.observer,
    )


def _http_upstreams(settings: Settings) -> AiohttpUpstreams:
    return AiohttpUpstreams(
        egress_policy(settings),
        connect_timeout_s=settings.connect_timeout_ms / 1000,
        ping_interval_s=settings.ws_ping_interval_ms / 1000,
        max_bytes=settings.max_message_bytes,
        insecure_tls=settings.egress_allow_insecure_tls,
    )


def _mqtt_upstreams(settings: Settings) -> MqttUpstreams:
    return MqttUpstreams(
        egress_policy(settings),
        Limits(
            max_qos=settings.mqtt_max_qos,
            max_connections=settings.mqtt_max_connections_per_broker,
            idle_s=settings.mqtt_idle_disconnect_ms / 1000,
            max_bytes=settings.mqtt_max_message_bytes,
            pause_s=(settings.reconnect_min_ms / 1000, settings.reconnect_max_ms / 1000),
        ),
        connect_timeout_s=settings.connect_timeout_ms / 1000,
        insecure_tls=settings.egress_allow_insecure_tls,
    )


@dataclass(frozen=True, slots=True)
class RelayServices:
    """What the relay's handler and process run."""

    world: World
    partitions: int
    observer: PowertoolsObserver


def relay_services(env: Mapping[str, str] | None = None) -> RelayServices:
    world = World(env)
    return RelayServices(world, PARTITIONS, world.observer)
