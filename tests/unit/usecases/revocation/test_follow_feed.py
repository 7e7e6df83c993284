from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.containers.revalidation import RevalidationContainer
from tidegate.domain.revocations import Revocation, RevocationReason, Task, TaskKind, task_for
from tidegate.errors import Unavailable
from tidegate.usecases.revocation.follow_feed import INDEX_LAG_S


def rotated(number: int) -> Revocation:
    return Revocation(RevocationReason.SHARE_TOKEN_ROTATED, f"d{number}", number)


def test_events_become_tasks() -> None:
    assert task_for(rotated(1), 7) == Task(TaskKind.DASHBOARD, "d1", 7)
    removed = Revocation(RevocationReason.ACL_REMOVED, "d", 1, "u")
    assert task_for(removed, 8) == Task(TaskKind.DASHBOARD, "d", 8)
    reset = Revocation(RevocationReason.PASSWORD_RESET, user_id="u")
    assert task_for(reset, 9) == Task(TaskKind.USER, "u", 9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["write", "poll", "lost answer", "other reader"]), max_size=30), st.integers(1, 4))
def test_no_event_is_ever_skipped(steps: list[str], batch: int) -> None:
    container = RevalidationContainer(batch)
    for step in steps:
        match step:
            case "write":
                container.feed.add(rotated(len(container.feed.events)))
            case "poll":
                container.run(Task(TaskKind.POLL))
            case "lost answer":
                container.feed.lose_next_move = True
                with suppress(Unavailable):
                    container.run(Task(TaskKind.POLL))
                container.feed.lose_next_move = False
            case "other reader":
                RevalidationContainer.run(container, Task(TaskKind.POLL))
    container.run(Task(TaskKind.POLL))
    assert {task.target for task, _ in container.tasks.queued} == {
        event.revocation.dashboard_id for event in container.feed.events
    }
    assert container.feed.position == (len(container.feed.events) or None)


def test_full_batches_are_continued_at_once_and_users_looked_for_twice() -> None:
    container = RevalidationContainer(batch=2)
    for number in range(5):
        container.feed.add(rotated(number))
    container.feed.add(Revocation(RevocationReason.USER_DEACTIVATED, user_id="u"))
    container.run(Task(TaskKind.POLL))
    assert len(container.tasks.queued) == 7 and container.tasks.queued[-1] == (Task(TaskKind.USER, "u"), INDEX_LAG_S)


def test_lost_events_are_made_up_for_by_a_full_revalidation() -> None:
    container = RevalidationContainer()
    for number in range(6):
        container.feed.add(rotated(number))
    container.run(Task(TaskKind.POLL))
    for number in range(6, 12):
        container.feed.add(rotated(number))
    container.feed.oldest = 9
    container.tasks.queued.clear()
    container.run(Task(TaskKind.POLL))
    tasks = [task for task, _ in container.tasks.queued]
    assert tasks[0] == Task(TaskKind.FULL) and len(tasks) == 5 and container.runs.demanded
    assert container.feed.position == 12 and container.observer.counts[("cursor_expired",)] == 1
    container.runs.demanded = False
    container.run(Task(TaskKind.POLL))
    assert not container.runs.demanded, "then incremental again"


@pytest.mark.parametrize(("position", "head"), [(3, 9), (20, 9), (20, 0), (None, 9)])
def test_a_feed_without_what_follows_the_cursor(position: int | None, head: int) -> None:
    container = RevalidationContainer()
    for number in range(head):
        container.feed.add(rotated(number))
    container.feed.position, container.feed.oldest = position, head + 1
    container.run(Task(TaskKind.POLL))
    assert container.runs.demanded and container.feed.position == head


def test_an_expired_cursor_brings_a_pass_though_none_is_due() -> None:
    container = RevalidationContainer()
    container.run(Task(TaskKind.FULL))
    container.subscribed()
    container.revoke()
    assert container.run(Task(TaskKind.FULL)) == 0, "not due"
    container.feed.add(rotated(1))
    container.feed.oldest = 2
    container.run(Task(TaskKind.POLL))
    assert container.run(Task(TaskKind.FULL)) == 1
