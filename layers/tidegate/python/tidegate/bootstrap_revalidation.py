"""The wiring of revalidation, and of what it shares with the API; apart from `bootstrap` because the gateway's cold
start must not pay for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from tidegate import tables
from tidegate.adapters.aws.revalidation_queue import SqsFollowRequests, SqsRevalidationQueue
from tidegate.adapters.dynamodb.dashboards import DynamoDashboards
from tidegate.adapters.dynamodb.revocations import DynamoRemoteCursor, DynamoRevocations
from tidegate.adapters.powertools import PowertoolsObserver
from tidegate.adapters.remote_api.adapters import HttpRemoteFeed
from tidegate.bootstrap import World
from tidegate.domain.intents import IntentDefaults
from tidegate.domain.relay import PARTITIONS
from tidegate.ports.control_plane import FollowRequests
from tidegate.ports.relay import RelayWorkers
from tidegate.ports.revocation import RevalidationQueue
from tidegate.usecases.control_plane.follow_profiles import FollowProfiles
from tidegate.usecases.control_plane.resolve_intents import ResolveIntents
from tidegate.usecases.remote_api.follow_feed import FollowRemoteFeed
from tidegate.usecases.remote_api.reintrospect import Reintrospect
from tidegate.usecases.revocation.evaluate import Evaluate
from tidegate.usecases.revocation.follow_feed import FollowFeed
from tidegate.usecases.revocation.full_revalidation import FullRevalidation
from tidegate.usecases.revocation.replace_relay_workers import ReplaceRelayWorkers
from tidegate.usecases.revocation.revalidate import Revalidate
from tidegate.usecases.revocation.terminate_subscriptions import TerminateSubscriptions


class ControlContainer(World):
    """Adapters of a process that changes dashboards or revalidates."""

    @cached_property
    def revalidations(self) -> SqsRevalidationQueue:
        return SqsRevalidationQueue(self.aws("sqs", "AmazonSQS", "1.0"), self.variable("REVALIDATION_QUEUE_URL"))

    @cached_property
    def follow_requests(self) -> SqsFollowRequests:
        return SqsFollowRequests(self.aws("sqs", "AmazonSQS", "1.0"), self.variable("PROFILES_QUEUE_URL"))

    @cached_property
    def revocations(self) -> DynamoRevocations:
        return DynamoRevocations(self.db, self.table(tables.REVOCATIONS), self.settings.revoke_event_retention_seconds)

    @cached_property
    def resolve(self) -> ResolveIntents:
        settings = self.settings
        defaults = IntentDefaults(
            settings.sse_idle_timeout_ms, settings.ws_idle_timeout_ms, settings.mqtt_keepalive_seconds
        )
        return ResolveIntents(profiles=self.profiles, defaults=defaults)

    @cached_property
    def dashboards(self) -> DynamoDashboards:
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
        return FollowProfiles(
            profiles=self.profiles,
            dashboards=self.dashboards,
            resolve=self.resolve,
            clock=self.clock,
            observer=self.observer,
        )

    @cached_property
    def follow_feed(self) -> Callable[[], int]:
        """Reads the feed: a remote API's where one is set, else our own."""
        batch = self.settings.revoked_tokens_max_batch
        if self.contract is None:
            return FollowFeed(
                feed=self.revocations,
                cursors=self.revocations,
                runs=self.revocations,
                tasks=self.revalidations,
                batch=batch,
                clock=self.clock,
                observer=self.observer,
            )
        return FollowRemoteFeed(
            feed=HttpRemoteFeed(self.contract, self.settings.revoked_tokens_timeout_ms),
            cursors=DynamoRemoteCursor(self.db, self.table(tables.REVOCATIONS), self.settings.api_base_url),
            versions=self.remote_access,
            runs=self.revocations,
            tasks=self.revalidations,
            batch=batch,
            clock=self.clock,
            observer=self.observer,
        )

    @cached_property
    def reintrospect(self) -> Reintrospect | None:
        """Asks a remote API again; None without one. Half of what the API allows in a minute is for subscribes."""
        if self.introspections is None:
            return None
        return Reintrospect(
            introspections=self.introspections,
            keys=self.keys,
            per_minute=max(1, self.settings.introspection_rate_limit_per_min // 2),
            clock=self.clock,
            observer=self.observer,
        )


@dataclass(frozen=True, slots=True)
class RevalidateServices:
    revalidate: Revalidate
    observer: PowertoolsObserver
    world: ControlContainer


def revalidate_services(env: Mapping[str, str] | None = None) -> RevalidateServices:
    world = ControlContainer(env)
    feed = world.revocations
    terminate = TerminateSubscriptions(
        subscriptions=world.subscriptions,
        connections=world.connections,
        sender=world.sender,
        end_connection=world.end_connection,
        clock=world.clock,
        ids=world.ids,
        observer=world.observer,
    )
    evaluate = Evaluate(access=world.gateway_access, clock=world.clock, observer=world.observer)
    full_revalidation = FullRevalidation(
        connections=world.connections,
        subscriptions=world.subscriptions,
        caps=world.caps,
        runs=feed,
        access=world.gateway_access,
        terminate=terminate,
        end_connection=world.end_connection,
        sender=world.sender,
        tasks=world.revalidations,
        interval_s=world.settings.public_full_revalidate_interval_ms // 1000,
        idle_timeout_s=max(1, world.settings.unauthenticated_timeout_ms // 1000),
        clock=world.clock,
        ids=world.ids,
        observer=world.observer,
        reintrospect=world.reintrospect,
    )
    revalidate = Revalidate(
        subscriptions=world.subscriptions,
        evaluate=evaluate,
        terminate=terminate,
        follow_feed=world.follow_feed,
        full_revalidation=full_revalidation,
        replace_relay_workers=ReplaceRelayWorkers(
            leases=world.relay_leases,
            relay_workers=world.relay_workers,
            clock=world.clock,
            observer=world.observer,
        ),
        tasks=world.revalidations,
        clock=world.clock,
        observer=world.observer,
        reintrospect=world.reintrospect,
    )
    return RevalidateServices(revalidate, world.observer, world)


@dataclass(frozen=True, slots=True)
class DispatchServices:
    """What the stream hands work to."""

    tasks: RevalidationQueue
    observer: PowertoolsObserver


def dispatch_services(env: Mapping[str, str] | None = None) -> DispatchServices:
    world = ControlContainer(env)
    return DispatchServices(world.revalidations, world.observer)


@dataclass(frozen=True, slots=True)
class ScheduleServices:
    """What the schedule hands work to; `poll_interval_s` is how often the feed is polled."""

    tasks: RevalidationQueue
    follow_requests: FollowRequests
    relay_workers: RelayWorkers
    relay_partitions: int
    poll_interval_s: int
    observer: PowertoolsObserver


def schedule_services(env: Mapping[str, str] | None = None) -> ScheduleServices:
    world = ControlContainer(env)
    interval = max(1, world.settings.public_revalidate_interval_ms // 1000)
    return ScheduleServices(
        world.revalidations, world.follow_requests, world.relay_workers, PARTITIONS, interval, world.observer
    )


@dataclass(frozen=True, slots=True)
class ProfileServices:
    """What follows changes of profiles."""

    follow: FollowProfiles
    observer: PowertoolsObserver


def profile_services(env: Mapping[str, str] | None = None) -> ProfileServices:
    world = ControlContainer(env)
    return ProfileServices(world.follow_profiles, world.observer)
