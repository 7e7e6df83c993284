"""Builds what the revalidation handlers run, from providers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tidegate.adapters.json_observer import JsonObserver
    from tidegate.ports.control_plane import FollowRequests
    from tidegate.ports.relay_workers import RelayWorkers
    from tidegate.ports.revocation import BuriedTasks, RevalidationQueue
    from tidegate.providers.control_plane import ControlPlaneProviders
    from tidegate.usecases.control_plane.follow_profiles import FollowProfiles
    from tidegate.usecases.remote_api.reintrospect import Reintrospect
    from tidegate.usecases.revocation.queue_tasks import QueueTasks
    from tidegate.usecases.revocation.revalidate import Revalidate
    from tidegate.usecases.revocation.tell_document import TellDocument
    from tidegate.usecases.revocation.try_again import TryAgain


class RevalidateServices(NamedTuple):
    """What the queue's handler runs. `container` is what it was built from; benchmarks use its stores."""

    revalidate: Revalidate
    try_again: TryAgain
    buried: BuriedTasks
    observer: JsonObserver
    container: ControlPlaneProviders


def revalidate_services(env: Mapping[str, str] | None = None) -> RevalidateServices:
    from tidegate.providers.control_plane import ControlPlaneProviders
    from tidegate.usecases.revocation.end_expired import EndExpired
    from tidegate.usecases.revocation.evaluate import Evaluate
    from tidegate.usecases.revocation.full_revalidation import FullRevalidation
    from tidegate.usecases.revocation.missing_relays import MissingRelays
    from tidegate.usecases.revocation.replace_relay_workers import ReplaceRelayWorkers
    from tidegate.usecases.revocation.revalidate import Revalidate
    from tidegate.usecases.revocation.terminate_subscriptions import TerminateSubscriptions
    from tidegate.usecases.revocation.try_again import TryAgain

    container = ControlPlaneProviders(env)
    clock, ids, observer = container.clock, container.ids, container.observer
    terminate = TerminateSubscriptions(
        subscriptions=container.subscriptions,
        connections=container.connections,
        sender=container.sender,
        end_connection=container.end_connection,
        clock=clock,
        ids=ids,
        observer=observer,
        switches=container.switches,
    )
    reintrospect = _reintrospect(container)
    full_revalidation = FullRevalidation(
        connections=container.connections,
        subscriptions=container.subscriptions,
        caps=container.caps,
        runs=container.revocations,
        access=container.gateway_access,
        terminate=terminate,
        end_connection=container.end_connection,
        sender=container.sender,
        tasks=container.revalidations,
        interval_s=container.settings.public_full_revalidate_interval_ms // 1000,
        idle_timeout_s=max(1, container.settings.unauthenticated_timeout_ms // 1000),
        clock=clock,
        ids=ids,
        observer=observer,
        reintrospect=reintrospect,
        switches=container.switches,
    )
    evaluate = Evaluate(access=container.gateway_access, clock=clock, observer=observer, switches=container.switches)
    revalidate = Revalidate(
        subscriptions=container.subscriptions,
        evaluate=evaluate,
        terminate=terminate,
        follow_feed=_follow_feed(container),
        full_revalidation=full_revalidation,
        end_expired=EndExpired(
            subscriptions=container.subscriptions,
            evaluate=evaluate,
            terminate=terminate,
            clock=clock,
            observer=observer,
        ),
        replace_relay_workers=ReplaceRelayWorkers(
            leases=container.relay_leases,
            relay_workers=container.relay_workers,
            missing=MissingRelays(
                streams=container.streams, subscriptions=container.subscriptions, clock=clock, observer=observer
            ),
            clock=clock,
            observer=observer,
        ),
        tasks=container.revalidations,
        clock=clock,
        observer=observer,
        tell_document=_tell_document(container),
        reintrospect=reintrospect,
        shown_by=_shown_by(container),
        access=container.gateway_access,
    )
    buried = container.buried_tasks
    try_again = TryAgain(tasks=container.revalidations, buried=buried)
    return RevalidateServices(revalidate, try_again, buried, observer, container)


def _follow_feed(container: ControlPlaneProviders) -> Callable[[], int]:
    """Reads the feed: a remote API's where one is set, else our own."""
    batch = container.settings.revoked_tokens_max_batch
    if container.remote_api is None:
        from tidegate.usecases.revocation.follow_feed import FollowFeed

        return FollowFeed(
            feed=container.revocations,
            cursors=container.revocations,
            runs=container.revocations,
            tasks=container.revalidations,
            batch=batch,
            clock=container.clock,
            observer=container.observer,
        )
    from tidegate import tables
    from tidegate.adapters.dynamodb.revocations import DynamoRemoteCursor
    from tidegate.adapters.remote_api.adapters import HttpRemoteFeed
    from tidegate.usecases.remote_api.follow_feed import FollowRemoteFeed

    return FollowRemoteFeed(
        feed=HttpRemoteFeed(container.remote_api, container.settings.revoked_tokens_timeout_ms),
        cursors=DynamoRemoteCursor(container.db, container.table(tables.REVOCATIONS), container.settings.api_base_url),
        versions=container.remote_access,
        runs=container.revocations,
        tasks=container.revalidations,
        batch=batch,
        clock=container.clock,
        observer=container.observer,
    )


def _shown_by(container: ControlPlaneProviders) -> Callable[[str], Iterable[str]] | None:
    """Finds what a user shows to guests. None where a remote API is set: its users are not known here."""
    if container.remote_api is not None:
        return None
    from tidegate import tables
    from tidegate.adapters.dynamodb.owners import shown_by

    return lambda user_id: shown_by(container.db, container.table(tables.DASHBOARDS), user_id)


def _tell_document(container: ControlPlaneProviders) -> TellDocument | None:
    """Tells that a dashboard was saved. None where a remote API is set: its documents are not known here."""
    if container.remote_api is not None:
        return None
    from tidegate.usecases.revocation.tell_document import TellDocument

    return TellDocument(
        subscriptions=container.subscriptions,
        connections=container.connections,
        access=container.gateway_access,
        sender=container.sender,
        end_connection=container.end_connection,
        tasks=container.revalidations,
        clock=container.clock,
        observer=container.observer,
        switches=container.switches,
    )


def _reintrospect(container: ControlPlaneProviders) -> Reintrospect | None:
    """Asks a remote API again about the viewers it admitted. None where no remote API is set."""
    if container.introspections is None:
        return None
    from tidegate.usecases.remote_api.introspection import recheck_budget
    from tidegate.usecases.remote_api.reintrospect import Reintrospect

    return Reintrospect(
        introspections=container.introspections,
        keys=container.keys,
        per_minute=recheck_budget(container.settings.introspection_rate_limit_per_min),
        clock=container.clock,
        observer=container.observer,
    )


class DispatchServices(NamedTuple):
    """What the stream's handler runs."""

    tasks: RevalidationQueue
    observer: JsonObserver


def dispatch_services(env: Mapping[str, str] | None = None) -> DispatchServices:
    from tidegate.providers.control_plane import ControlPlaneProviders

    container = ControlPlaneProviders(env)
    return DispatchServices(container.revalidations, container.observer)


class ScheduleServices(NamedTuple):
    """What the schedule's handler runs."""

    queue_tasks: QueueTasks
    follow_requests: FollowRequests
    relay_workers: RelayWorkers
    relay_partitions: int
    observer: JsonObserver


def schedule_services(env: Mapping[str, str] | None = None) -> ScheduleServices:
    from tidegate.domain.partitions import PARTITIONS
    from tidegate.providers.control_plane import ControlPlaneProviders
    from tidegate.usecases.revocation.queue_tasks import QueueTasks

    container = ControlPlaneProviders(env)
    return ScheduleServices(
        queue_tasks=QueueTasks(
            states=container.schedule_state,
            connected=container.connections.has_any,
            tasks=container.revalidations,
            poll_interval_s=max(1, container.settings.public_revalidate_interval_ms // 1000),
            clock=container.clock,
        ),
        follow_requests=container.follow_requests,
        relay_workers=container.relay_workers,
        relay_partitions=PARTITIONS,
        observer=container.observer,
    )


class ProfileServices(NamedTuple):
    """What the handler runs that follows changes of profiles."""

    follow: FollowProfiles
    observer: JsonObserver


def profile_services(env: Mapping[str, str] | None = None) -> ProfileServices:
    from tidegate.providers.control_plane import ControlPlaneProviders

    container = ControlPlaneProviders(env)
    return ProfileServices(container.follow_profiles, container.observer)
