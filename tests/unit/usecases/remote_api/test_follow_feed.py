from __future__ import annotations

from typing import Any

import pytest

from tests.containers.gateway import GatewayContainer
from tests.doubles.platform import ManualClock
from tests.doubles.stores import MemoryFullRevalidationRuns, MemoryRemoteAccess
from tidegate.domain.remote_api import RemotePage, ShareRevoked
from tidegate.domain.revocations import Task, TaskKind
from tidegate.errors import Unavailable
from tidegate.usecases.remote_api.follow_feed import FollowRemoteFeed


class RemoteFeed:
    """The API's feed, our cursor, the queue and the lease in one; cursors are numbers as text."""

    def __init__(self) -> None:
        self.events: list[ShareRevoked] = []
        self.position: str | None = None
        self.tasks: list[Task] = []
        self.expire_next = False
        self.log: list[str] = []

    def read(self, cursor: str | None, limit: int) -> RemotePage:
        start = 0 if cursor is None else int(cursor)
        expired, self.expire_next = self.expire_next, False
        end = min(start + limit, len(self.events))
        return RemotePage(tuple(self.events[start:end]), str(end), expired)

    def cursor(self) -> str | None:
        return self.position

    def move_cursor(self, old: str | None, new: str) -> bool:
        self.log.append("move")
        if self.position != old:
            return False
        self.position = new
        return True

    def queue(self, task: Task, delay_s: int = 0) -> None:
        self.log.append(f"queue {task.kind.value}")
        self.tasks.append(task)


class Passes(MemoryFullRevalidationRuns):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self._log = log

    def demand(self, now: int) -> None:
        self._log.append("demand")
        super().demand(now)


class Versions(MemoryRemoteAccess):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self._log = log

    def raise_to(self, dashboard_id: str, version: int) -> None:
        self._log.append("raise")
        super().raise_to(dashboard_id, version)


class RemoteFeedContainer:
    def __init__(self, batch: int = 100) -> None:
        self.feed = RemoteFeed()
        self.versions, self.runs = Versions(self.feed.log), Passes(self.feed.log)
        self.observer = GatewayContainer().observer
        self.follow = FollowRemoteFeed(
            feed=self.feed,
            cursors=self.feed,
            versions=self.versions,
            runs=self.runs,
            tasks=self.feed,
            batch=batch,
            clock=ManualClock(),
            observer=self.observer,
        )

    def add(self, count: int) -> None:
        start = len(self.feed.events)
        self.feed.events += [ShareRevoked(f"d{number}", number + 1) for number in range(start, start + count)]

    def applied(self) -> bool:
        """Every event's version is raised and its dashboard's task queued."""
        queued = {task.target for task in self.feed.tasks if task.kind is TaskKind.DASHBOARD}
        return all(
            self.versions.revoked_below.get(event.dashboard_id, 0) >= event.share_version
            and event.dashboard_id in queued
            for event in self.feed.events
        )


def test_versions_rise_before_tasks_are_queued_before_the_cursor_moves() -> None:
    container = RemoteFeedContainer()
    container.add(1)
    assert container.follow() == 1 and container.feed.log == ["raise", "queue dashboard", "move"]
    container.feed.log.clear()
    assert container.follow() == 0 and container.feed.log == [], "nothing new writes nothing"


def test_one_task_for_a_dashboard_and_its_highest_version() -> None:
    container = RemoteFeedContainer()
    container.feed.events = [ShareRevoked("d", version, 1000 + version) for version in (4, 7, 5)]
    assert container.follow() == 3
    assert container.versions.revoked_below == {"d": 7}
    assert container.feed.tasks == [Task(TaskKind.DASHBOARD, "d", 1004)], "since the first of them"
    container.feed.events.append(ShareRevoked("d", 3))
    container.follow()
    assert container.versions.revoked_below == {"d": 7}, "it only grows"


def test_full_batches_are_continued_at_once_and_a_flood_by_the_next_run() -> None:
    container = RemoteFeedContainer(batch=10)
    container.add(95)
    assert container.follow() == 95 and container.applied()
    assert container.observer.counts[("events_polled",)] == 95
    flood = RemoteFeedContainer(batch=1)
    flood.add(60)
    assert flood.follow() == 50 and flood.feed.tasks[-1] == Task(TaskKind.POLL)
    assert flood.follow() == 10 and flood.applied()


def test_an_expired_cursor_is_a_full_revalidation_before_the_cursor_moves() -> None:
    container = RemoteFeedContainer()
    container.add(1)
    container.feed.expire_next = True
    container.follow()
    assert container.feed.log == ["demand", "queue full", "raise", "queue dashboard", "move"]
    assert container.observer.counts[("cursor_expired",)] == 1


def test_another_reader_that_is_further_goes_on() -> None:
    container = RemoteFeedContainer(batch=1)
    container.add(3)
    read = container.feed.read

    def overtaken(cursor: str | None, limit: int) -> RemotePage:
        page = read(cursor, limit)
        container.feed.position = "3"
        return page

    container.feed.read = overtaken  # type: ignore[method-assign]
    assert container.follow() == 1 and container.feed.position == "3"


@pytest.mark.parametrize("answer_lost", [False, True])
@pytest.mark.parametrize("step", range(13))
def test_no_event_is_ever_skipped(step: int, answer_lost: bool) -> None:
    """The process dies before, or loses the answer of, every single write."""
    container = RemoteFeedContainer(batch=2)
    container.add(5)
    container.feed.expire_next = step == 0
    left = [step]

    def dying(target: object, method: str) -> None:
        original = getattr(target, method)

        def call(*args: Any) -> object:
            left[0] -= 1
            if left[0] == -1 and not answer_lost:
                raise Unavailable("died before")
            result = original(*args)
            if left[0] == -1:
                raise Unavailable("the answer was lost")
            return result

        setattr(target, method, call)

    dying(container.versions, "raise_to")
    dying(container.runs, "demand")
    for method in ("queue", "move_cursor"):
        dying(container.feed, method)
    with pytest.raises(Unavailable):
        container.follow()
    done = container.feed.events[: int(container.feed.position or 0)]
    assert all(container.versions.revoked_below.get(event.dashboard_id) for event in done), (
        "applied before the cursor moved"
    )
    container.follow()
    assert container.applied() and container.feed.position == "5"
