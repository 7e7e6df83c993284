"""Revalidation: the gateway with a feed, a queue, and everything that cuts and sweeps."""

from __future__ import annotations

from typing import Any

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tests.doubles.stores import MemoryFullRevalidationRuns
from tidegate.domain.access import owner_that_counts
from tidegate.domain.revocations import FeedPage, Revocation, RevocationEvent, Task, TaskKind
from tidegate.domain.subscriptions import SubscriptionKey
from tidegate.domain.switches import ALL_ON, Switches
from tidegate.errors import Unavailable
from tidegate.usecases.revocation.end_expired import EndExpired
from tidegate.usecases.revocation.evaluate import Evaluate
from tidegate.usecases.revocation.follow_feed import FollowFeed
from tidegate.usecases.revocation.full_revalidation import FullRevalidation
from tidegate.usecases.revocation.revalidate import Revalidate
from tidegate.usecases.revocation.tell_document import TellDocument
from tidegate.usecases.revocation.terminate_subscriptions import TerminateSubscriptions

KEY = SubscriptionKey(DASHBOARD, "c", DATASOURCE)
PASS = Task(TaskKind.DASHBOARD, DASHBOARD)


class Tasks:
    """The queue, as a list of (task, delay)."""

    def __init__(self) -> None:
        self.queued: list[tuple[Task, int]] = []

    def queue(self, task: Task, delay_s: int = 0) -> None:
        self.queued.append((task, delay_s))


class LocalFeed:
    """A feed and its cursor, which other writers may move at any moment."""

    def __init__(self) -> None:
        self.events: list[RevocationEvent] = []
        self.position: int | None = None
        self.lose_next_move = False
        self.oldest = 1

    def add(self, revocation: Revocation) -> None:
        self.events.append(RevocationEvent(len(self.events) + 1, revocation, 0))

    def read(self, after: int, limit: int, now: float) -> FeedPage:
        start = max(after, self.oldest - 1)
        return FeedPage(tuple(self.events[start : start + limit]), len(self.events), self.oldest)

    def cursor(self) -> int | None:
        return self.position

    def move_cursor(self, old: int | None, new: int) -> bool:
        if self.position != old:
            return False
        self.position = new
        if self.lose_next_move:
            self.lose_next_move = False
            raise Unavailable("the answer was lost")
        return True


class RevalidationContainer(GatewayContainer):
    def __init__(self, batch: int = 100, switches: Switches = ALL_ON, **options: Any) -> None:
        super().__init__(**options)
        self.feed, self.tasks, self.runs = LocalFeed(), Tasks(), MemoryFullRevalidationRuns()
        self.terminate = TerminateSubscriptions(
            subscriptions=self.subscriptions,
            connections=self.connections,
            sender=self.sender,
            end_connection=self.end_connection,
            clock=self.clock,
            ids=self.ids,
            observer=self.observer,
            switches=switches,
        )
        self.follow = FollowFeed(
            feed=self.feed,
            cursors=self.feed,
            runs=self.runs,
            tasks=self.tasks,
            batch=batch,
            clock=self.clock,
            observer=self.observer,
        )
        self.evaluate = Evaluate(access=self.access, clock=self.clock, observer=self.observer, switches=switches)
        self.full_revalidation = FullRevalidation(
            connections=self.connections,
            subscriptions=self.subscriptions,
            caps=self.caps,
            runs=self.runs,
            access=self.access,
            terminate=self.terminate,
            end_connection=self.end_connection,
            sender=self.sender,
            tasks=self.tasks,
            interval_s=300,
            idle_timeout_s=60,
            clock=self.clock,
            ids=self.ids,
            observer=self.observer,
            switches=switches,
        )
        self.tell_document = TellDocument(
            subscriptions=self.subscriptions,
            connections=self.connections,
            access=self.access,
            sender=self.sender,
            end_connection=self.end_connection,
            tasks=self.tasks,
            clock=self.clock,
            observer=self.observer,
            switches=switches,
        )
        self.revalidate = Revalidate(
            subscriptions=self.subscriptions,
            evaluate=self.evaluate,
            terminate=self.terminate,
            follow_feed=self.follow,
            full_revalidation=self.full_revalidation,
            end_expired=EndExpired(
                subscriptions=self.subscriptions,
                evaluate=self.evaluate,
                terminate=self.terminate,
                clock=self.clock,
                observer=self.observer,
            ),
            replace_relay_workers=lambda: 0,
            tell_document=lambda task, deadline: self.tell_document(task, deadline),
            tasks=self.tasks,
            clock=self.clock,
            observer=self.observer,
            shown_by=lambda user_id: [
                item.dashboard_id for item in self.access.dashboards.values() if owner_that_counts(item) == user_id
            ],
            access=self.access,
        )

    def save(self) -> Task:
        """The document is saved. Returns the task of that."""
        revision = self.access.dashboards[DASHBOARD].revision + 1
        self.change(revision=revision)
        return Task(TaskKind.DOCUMENT, DASHBOARD, int(self.clock.now() * 1000), revision)

    def run(self, task: Task = PASS, seconds: float = 100) -> int:
        return self.revalidate(task, self.clock.monotonic() + seconds)
