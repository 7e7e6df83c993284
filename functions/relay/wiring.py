"""Builds what a relay worker runs, from providers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from tidegate.adapters.aws.relay_workers import NoRelayWorkers
from tidegate.adapters.json_observer import JsonObserver
from tidegate.domain.partitions import PARTITIONS
from tidegate.domain.relay import Kind, worker_version
from tidegate.domain.subscriptions import Stream
from tidegate.ports.relay import MqttRequest, UpstreamRequest, UpstreamRequests
from tidegate.protocol.messages import ErrorCode
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.usecases.delivery.audiences import Audiences
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.keep_history import KeepInBatches
from tidegate.usecases.delivery.senders import BackgroundSender
from tidegate.usecases.relay.check_credentials import CheckCredentials, Note
from tidegate.usecases.relay.keyed_executor import THREADS, KeyedExecutor
from tidegate.usecases.relay.upstream import Upstream
from tidegate.usecases.relay.upstream_requests import StoredUpstreamRequests
from tidegate.usecases.relay.worker import RelayWorker
from tidegate.usecases.remote_api.introspection import IntrospectionBudget, connect_budget
from tidegate.usecases.remote_api.upstream_requests import RemoteUpstreamRequests


def version_of(container: ControlPlaneProviders, *, service: bool) -> str:
    """The `worker_version` of this process's workers. `service`: whether it is one that stays."""
    spare = container.env.get("RELAY_SPARE") == "true"
    kind = Kind.SERVICE if service else Kind.SPARE if spare else Kind.FUNCTION
    return worker_version(container.settings.digest, container.env.get("RELAY_CODE", ""), kind)


class RelayRun:
    """A worker with everything it needs. It is made within the event loop that runs it."""

    def __init__(
        self, container: ControlPlaneProviders, *, handover_s: float | None = None, service: bool = False
    ) -> None:
        """
        Args:
            handover_s: how long before its end the worker asks for a successor, seconds; None for the usual time.
            service: whether the worker is of a process that stays.
        """
        self._container = container
        settings = container.settings
        self._upstreams = container.new_upstreams()
        self._requests = _requests(container)
        self._requesting = ThreadPoolExecutor(THREADS, "request")
        self._audiences = Audiences(container.subscriptions.audience, container.clock)
        self._sender = BackgroundSender(
            access=FreshAccess(container.gateway_access, self._audiences, container.clock),
            sender=container.new_sender(),
            failure_handler=container.failure_handler,
            may_send=lambda: self.relay.may_send(),
            conflate=settings.max_updates_per_second > 0,
            observer=container.observer,
            pace=container.new_pace(),
        )
        self._keep = KeepInBatches(lambda: container.history, container.clock, container.observer)
        self._executor = KeyedExecutor(self._fan_out)
        options = {} if handover_s is None else {"handover_s": handover_s}
        enabled = container.stream_policy.enabled if settings.realtime_enabled else frozenset[str]()
        self.relay = RelayWorker(
            leases=container.relay_leases,
            streams=container.streams,
            relay_workers=NoRelayWorkers() if service else container.relay_workers,
            version=version_of(container, service=service),
            enabled=enabled,
            notify_disabled=self._notify_disabled,
            make_upstream=self._upstream,
            check_credentials=_credential_check(container),
            has_audience=lambda stream: self._executor.fan_out_of(stream).has_audience(stream),
            sender=self._sender,
            clock=container.clock,
            ids=container.ids,
            observer=container.observer,
            **options,
        )

    async def close(self) -> None:
        await self._upstreams.close()
        self._executor.close()
        self._requesting.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(asyncio.to_thread(self._sender.close), asyncio.to_thread(self._keep.close))

    def _fan_out(self) -> FanOut:
        container = self._container
        return FanOut(
            audiences=self._audiences,
            last_values=container.last_values,
            send=self._sender,
            max_message_bytes=container.settings.max_message_bytes,
            clock=container.clock,
            observer=container.observer,
            keep=self._keep,
        )

    def _notify_disabled(self, stream: Stream) -> Awaitable[object]:
        fan_out, text = self._executor.fan_out_of(stream), self._container.switches.text(stream.protocol)
        return self._executor.run(stream, partial(fan_out.notify, stream, ErrorCode.POLICY_BLOCKED, text, status=True))

    def _upstream(self, stream: Stream) -> Upstream:
        container, settings = self._container, self._container.settings

        def in_order(work: Callable[[], object]) -> Awaitable[object]:
            return self._executor.run(stream, work)

        def request() -> Awaitable[UpstreamRequest | MqttRequest]:
            # On threads of its own: an API that hangs must delay neither messages nor leases.
            return asyncio.get_running_loop().run_in_executor(self._requesting, self._requests, stream)

        return Upstream(
            stream,
            upstreams=self._upstreams,
            request=request,
            last_values=container.last_values,
            fan_out=self._executor.fan_out_of(stream),
            in_order=in_order,
            note=lambda connected, fault: (
                self.relay.may_send()
                and container.streams.note_status(stream, connected, fault, at=int(container.clock.now()))
            ),
            reconnect_ms=(settings.reconnect_min_ms, settings.reconnect_max_ms),
            per_second=settings.max_updates_per_second,
            chance=random.random,
            clock=container.clock,
            observer=container.observer,
        )


def _requests(container: ControlPlaneProviders) -> UpstreamRequests:
    """Finds out what a stream connects to: from our tables, or from a remote API where one is set."""
    if container.introspections is None:
        return StoredUpstreamRequests(profiles=container.profiles, cipher=container.cipher)
    return RemoteUpstreamRequests(
        introspections=container.introspections,
        subscriptions=container.subscriptions,
        keys=container.keys,
        limit=IntrospectionBudget(
            connect_budget(container.settings.introspection_rate_limit_per_min, PARTITIONS), container.clock
        ),
        clock=container.clock,
        observer=container.observer,
    )


def _credential_check(container: ControlPlaneProviders) -> Callable[[Iterable[tuple[Stream, Note]]], Awaitable[None]]:
    """With a remote API there is nothing to check: another secret has another fingerprint, so it is another stream."""
    if container.introspections is None:
        return CheckCredentials(profiles=container.profiles, observer=container.observer)

    async def nothing(_upstreams: Iterable[tuple[Stream, Note]]) -> None: ...

    return nothing


class RelayServices(NamedTuple):
    """What the relay's handler and process run. `partitions`: how many workers share the upstreams."""

    container: ControlPlaneProviders
    partitions: int
    observer: JsonObserver


def relay_services(env: Mapping[str, str] | None = None) -> RelayServices:
    container = ControlPlaneProviders(env)
    return RelayServices(container, PARTITIONS, container.observer)
