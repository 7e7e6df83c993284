"""Scenes of revalidation: the gateway's world with a feed, a queue, and everything that cuts and sweeps."""

from __future__ import annotations

from tests.usecases.gateway_container import DASHBOARD, DATASOURCE, GatewayWorld
from tidegate.adapters.memory.stores import MemoryFullPasses
from tidegate.domain.revocations import FeedPage, Revocation, RevocationEvent, Task, TaskKind
from tidegate.domain.subscriptions import SubscriptionKey
from tidegate.errors import CouldNotCheck
from tidegate.usecases.revocation.evaluate import Judge
from tidegate.usecases.revocation.follow_feed import FollowFeed
from tidegate.usecases.revocation.full_revalidation import FullPass
from tidegate.usecases.revocation.revalidate import Revalidate
from tidegate.usecases.revocation.terminate_subscriptions import CutViewers

KEY = SubscriptionKey(DASHBOARD, "c", DATASOURCE)
PASS = Task(TaskKind.DASHBOARD, DASHBOARD)


class Tasks:
    """The queue, as a list of (task, delay)."""

    def __init__(self) -> None:
        self.queued: list[tuple[Task, int]] = []

    def queue(self, task: Task, delay_s: int = 0) -> None:
        self.queued.append((task, delay_s))


class Feed:
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
            raise CouldNotCheck("the answer was lost")
        return True


class RevalidationWorld(GatewayWorld):
    def __init__(self, batch: int = 100) -> None:
        super().__init__()
        self.feed, self.tasks, self.passes = Feed(), Tasks(), MemoryFullPasses()
        self.cut = CutViewers(
            subscriptions=self.subscriptions,
            connections=self.connections,
            sender=self.sender,
            end_connection=self.end_connection,
            clock=self.clock,
            ids=self.ids,
            observer=self.observer,
        )
        self.follow = FollowFeed(
            feed=self.feed,
            cursors=self.feed,
            passes=self.passes,
            tasks=self.tasks,
            batch=batch,
            clock=self.clock,
            observer=self.observer,
        )
        self.judge = Judge(access=self.access, clock=self.clock, observer=self.observer)
        self.full_pass = FullPass(
            connections=self.connections,
            subscriptions=self.subscriptions,
            caps=self.caps,
            passes=self.passes,
            access=self.access,
            cut=self.cut,
            end_connection=self.end_connection,
            sender=self.sender,
            tasks=self.tasks,
            interval_s=300,
            idle_timeout_s=60,
            clock=self.clock,
            ids=self.ids,
            observer=self.observer,
        )
        self.revalidate = Revalidate(
            subscriptions=self.subscriptions,
            judge=self.judge,
            cut=self.cut,
            follow_feed=self.follow,
            full_pass=self.full_pass,
            replace_relays=lambda: 0,
            tasks=self.tasks,
            clock=self.clock,
            observer=self.observer,
        )

    def run(self, task: Task = PASS, seconds: float = 100) -> int:
        return self.revalidate(task, self.clock.monotonic() + seconds)
