"""A saved document is told to who watches the dashboard: once for each connection, and only to who may see it then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE
from tests.containers.revalidation import PASS, RevalidationContainer
from tests.doubles.platform import Died
from tidegate.domain.access import FRESH_S, Visibility
from tidegate.domain.revocations import Task
from tidegate.domain.subscriptions import TerminationClaim
from tidegate.domain.switches import Switches
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery, OutboundMessage, SendResult
from tidegate.usecases.gateway.unsubscribe import Unsubscribe


def told(container: RevalidationContainer) -> dict[str, list[int]]:
    """Connection -> the revisions it was told, in order."""
    found = {name: [f["revision"] for f in container.frames("document", name)] for name in container.sender.sent}
    return {name: revisions for name, revisions in found.items() if revisions}


def watching(container: RevalidationContainer, count: int) -> list[str]:
    names = [f"v{number:04d}" for number in range(count)]
    for name in names:
        container.subscribed(name)
    return names


class Interrupted:
    """Something happens in the moment before the nth frame leaves."""

    def __init__(self, container: RevalidationContainer, nth: int, happens: Callable[[], object]) -> None:
        self._container, self._nth, self._happens = container, nth, happens
        self._post_many = container.sender.post_many
        container.sender.post_many = self  # type: ignore[method-assign]
        self.seen = 0

    def __call__(
        self,
        posts: Iterable[OutboundMessage],
        *,
        before_each: Callable[[OutboundMessage], bool] | None = None,
        deadline: float | None = None,
    ) -> Sequence[SendResult]:
        results: list[SendResult] = []
        for post in posts:
            self.seen += 1
            if self.seen == self._nth:
                self._happens()
            results += self._post_many([post], before_each=before_each)
        return results


def test_each_connection_is_told_once_whatever_it_watches() -> None:
    container = RevalidationContainer()
    container.add_datasource("second", "a/c")
    for name in ("one", "both"):
        container.subscribed(name)
    container.subscribe("both", DASHBOARD, "second", container.token("second"))
    container.subscribed("member", user="member")
    container.open("nothing")
    container.add_dashboard("other")
    container.subscribed("elsewhere", dashboard="other")
    container.run(container.save())
    assert told(container) == {"one": [1], "both": [1], "member": [1]}
    (frame,) = container.frames("document", "one")
    assert frame == {
        "type": "document",
        "dashboardId": DASHBOARD,
        "revision": 1,
        "timestamp": "2027-01-15T08:00:00.000Z",
    }


def test_hidden_and_claimed_rows_are_not_told() -> None:
    container = RevalidationContainer()
    for name in ("hidden", "claimed", "shown"):
        container.subscribed(name)
    rows = container.subscriptions.rows
    for key, row in list(rows.items()):
        if key.connection_id == "hidden":
            rows[key] = replace(row, visible=False)
        if key.connection_id == "claimed":
            rows[key] = replace(row, termination=TerminationClaim("run", 0))
    container.run(container.save())
    assert told(container) == {"shown": [1]}


@pytest.mark.parametrize(
    "lose",
    [
        lambda container: container.revoke(),
        lambda container: container.change(visibility=Visibility.PRIVATE),
        lambda container: container.change(deleted=True),
        lambda container: container.change(intents={DATASOURCE: "another"}),
        lambda container: container.change(intents={}),
        lambda container: container.clock.advance(301),
    ],
)
def test_who_lost_the_right_by_the_save_hears_the_end_and_nothing_else(
    lose: Callable[[RevalidationContainer], None],
) -> None:
    """In whichever order the two tasks of the save are carried out."""
    for end_first in (True, False):
        container = RevalidationContainer()
        container.subscribed("guest")
        lose(container)
        saved = container.save()
        for task in (PASS, saved) if end_first else (saved, PASS):
            container.run(task)
        assert [frame["type"] for frame in container.sender.sent["guest"]] == ["error", "status"]


def test_who_keeps_one_datasource_is_told() -> None:
    container = RevalidationContainer()
    container.add_datasource("second", "a/c")
    container.subscribed("c")
    container.subscribe("c", DASHBOARD, "second", container.token("second"))
    hashes = dict(container.access.dashboards[DASHBOARD].intents)
    container.change(intents=hashes | {DATASOURCE: "another"})
    saved = container.save()
    container.run(PASS)
    container.run(saved)
    assert told(container) == {"c": [1]}


def test_what_is_switched_off_is_told_nothing() -> None:
    container = RevalidationContainer(switches=Switches(realtime=False))
    container.subscribed()
    container.run(container.save())
    assert told(container) == {}


def test_the_right_is_asked_until_a_frame_leaves() -> None:
    container = RevalidationContainer()
    watching(container, 5)

    def rotated() -> None:
        container.revoke()
        container.clock.advance(FRESH_S)

    Interrupted(container, 3, rotated)
    container.run(container.save())
    assert told(container) == {"v0000": [1], "v0001": [1]}
    assert container.tasks.queued == [], "denied is not the same as not checked"


def test_what_was_read_is_used_for_a_second_from_the_start_of_its_read() -> None:
    container = RevalidationContainer()
    watching(container, 2)
    read = container.access.read

    def slow(*args: Any) -> Any:
        found = read(*args)
        container.clock.advance(FRESH_S)
        container.revoke()
        return found

    container.access.read = slow  # type: ignore[assignment,method-assign]
    container.run(container.save())
    assert told(container) == {}


def test_a_save_that_was_overtaken_is_left_to_the_next() -> None:
    container = RevalidationContainer()
    watching(container, 3)
    first, second, third = container.save(), container.save(), container.save()
    for task in (first, third, second):
        container.run(task)
    assert told(container) == {name: [3] for name in ("v0000", "v0001", "v0002")}


def test_a_run_that_is_overtaken_stops_and_nobody_is_told_backwards() -> None:
    container = RevalidationContainer()
    names = watching(container, 200)
    first = container.save()

    def overtaken() -> None:
        container.run(container.save())
        container.clock.advance(FRESH_S)

    Interrupted(container, 50, overtaken)
    container.run(first)
    assert [told(container)[name] for name in names] == [[1, 2]] * 49 + [[2]] * 151


def test_every_viewer_is_told_once_by_as_many_runs_as_it_takes() -> None:
    """Each run has time for one group."""
    container = RevalidationContainer()
    names = watching(container, 400)
    work, runs = [container.save()], 0
    while work:
        task, runs = work.pop(), runs + 1
        deadline = container.clock.monotonic() + 1
        stop = Interrupted(container, 90, lambda: container.clock.advance(1))
        container.revalidate(task, deadline)
        container.sender.post_many = stop._post_many  # type: ignore[method-assign]
        assert all(not delay_s for _, delay_s in container.tasks.queued)
        work += [task for task, _ in container.tasks.queued]
        container.tasks.queued.clear()
    assert told(container) == {name: [1] for name in names} and runs == 5


def test_a_run_that_died_is_repeated_and_repeats_a_revision_at_most() -> None:
    container = RevalidationContainer()
    names = watching(container, 100)
    saved = container.save()

    def dies() -> None:
        raise Died

    stop = Interrupted(container, 70, dies)
    with pytest.raises(Died):
        container.run(saved)
    container.sender.post_many = stop._post_many  # type: ignore[method-assign]
    container.run(saved)
    assert [told(container)[name] for name in names] == [[1, 1]] * 69 + [[1]] * 31


@pytest.mark.parametrize("delivery", [Delivery.FAILED, Delivery.THROTTLED])
def test_who_could_not_be_told_is_told_later_and_no_other_again(delivery: Delivery) -> None:
    container = RevalidationContainer()
    watching(container, 100)
    container.sender.answers |= {"v0003": delivery, "v0095": delivery}
    container.run(container.save())
    first, second = container.tasks.queued
    assert [(task.viewers, task.after, delay_s) for task, delay_s in (first, second)] == [
        (("v0003",), "", 5),
        (("v0095",), "", 5),
    ]
    container.sender.answers.clear()
    container.tasks.queued.clear()
    container.run(first[0])
    container.run(second[0])
    assert set(map(tuple, told(container).values())) == {(1,)} and len(told(container)) == 100
    assert container.tasks.queued == []


def test_who_left_meanwhile_is_not_looked_for() -> None:
    container = RevalidationContainer()
    watching(container, 3)
    leave = Unsubscribe(
        connections=container.connections, subscriptions=container.subscriptions, observer=container.observer
    )
    task = replace(container.save(), viewers=("v0000", "v0001", "v0002", "never"))
    leave("v0000", DATASOURCE)
    container.end_connection.gone("v0001")
    container.run(task)
    assert told(container) == {"v0002": [1]}


def test_who_cannot_be_told_is_given_up_after_some_minutes() -> None:
    container = RevalidationContainer()
    watching(container, 1)
    container.sender.answers["v0000"] = Delivery.FAILED
    work, tries = [container.save()], 0
    while work:
        container.run(work.pop())
        tries += 1
        for task, delay_s in container.tasks.queued:
            container.clock.advance(delay_s)
            work.append(task)
        container.tasks.queued.clear()
        container.subscribe("v0000", DASHBOARD, DATASOURCE, container.token())  # a token that holds
    assert tries == 1 + 300 // 5 and container.observer.counts[("documents_not_told",)] == 1


def test_who_is_gone_is_released() -> None:
    container = RevalidationContainer()
    watching(container, 3)
    container.sender.answers["v0001"] = Delivery.GONE
    container.run(container.save())
    assert set(container.connections.rows) == {"v0000", "v0002"} and container.tasks.queued == []


def test_what_could_not_be_checked_is_tried_again_where_it_stopped() -> None:
    container = RevalidationContainer()
    names = watching(container, 200)
    read, reads = container.access.read, 0

    def fails(*args: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 2:
            raise Unavailable("the store did not answer")
        return read(*args)

    container.access.read = fails  # type: ignore[assignment,method-assign]
    container.run(container.save())
    ((task, delay_s),) = container.tasks.queued
    assert (task.after, task.viewers, delay_s) == (names[89], (), 5)
    container.run(task)
    assert told(container) == {name: [1] for name in names}


def test_a_check_that_fails_before_a_frame_is_no_denial() -> None:
    container = RevalidationContainer()
    watching(container, 3)
    read = container.access.read

    def down(*_args: Any) -> Any:
        raise Unavailable("the store did not answer")

    def store_fails() -> None:
        container.clock.advance(FRESH_S)
        container.access.read = down  # type: ignore[assignment,method-assign]

    Interrupted(container, 2, store_fails)
    container.run(container.save())
    ((task, _),) = container.tasks.queued
    assert told(container) == {"v0000": [1]} and task.viewers == ("v0001", "v0002")
    container.access.read = read  # type: ignore[method-assign]
    container.run(task)
    assert told(container) == {name: [1] for name in ("v0000", "v0001", "v0002")}


def test_without_a_queue_the_task_fails_and_is_delivered_again() -> None:
    container = RevalidationContainer()
    watching(container, 1)
    container.sender.answers["v0000"] = Delivery.FAILED

    def down(task: Task, delay_s: int = 0) -> None:
        raise Unavailable("the queue did not answer")

    container.tasks.queue = down  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        container.run(container.save())


def test_a_thousand_viewers_cost_a_read_of_access_for_ninety() -> None:
    container = RevalidationContainer()
    watching(container, 1000)
    container.access.reads = 0
    container.run(container.save())
    assert container.access.reads == 12 and len(told(container)) == 1000
