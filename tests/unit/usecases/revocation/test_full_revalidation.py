from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any

import pytest

from tests.containers.revalidation import RevalidationContainer
from tidegate.domain.access import Visibility
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import Subscription
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery
from tidegate.ports.gateway import AccessSnapshot
from tidegate.ports.runtime import ScanPage
from tidegate.usecases.revocation.full_revalidation import LONGEST_CONNECTION_S, SLOT_GRACE_S

FULL = Task(TaskKind.FULL)


def test_the_full_pass_finds_what_events_did_not_tell() -> None:
    world = RevalidationContainer()
    world.subscribed("guest")
    world.subscribed("member", user="member")
    world.subscribed("expired", ttl=5)
    world.revoke()
    world.clock.advance(10)
    assert world.run(FULL) == 2
    assert list(world.connections.rows) == ["member"] and "member" not in world.sender.sent
    assert {one[0]["retryable"] for one in world.sender.sent.values()} == {False}, "both lost the right"


def test_it_runs_when_due_and_alone() -> None:
    world = RevalidationContainer()
    world.run(FULL)
    world.subscribed()
    world.revoke()
    assert world.run(FULL) == 0, "not due"
    world.clock.advance(299)
    assert world.run(FULL) == 0
    world.clock.advance(1)
    slow = world.runs.begin("slow", int(world.clock.now()), 300, 5)
    assert slow is not None
    assert world.run(FULL) == 0, "another run holds the lease"
    world.clock.advance(6)
    assert world.run(FULL) == 1, "a run that died is replaced when its lease ends"


def test_each_access_item_is_read_once_however_many_viewers() -> None:
    reads = []
    for viewers in (1, 200):
        world = RevalidationContainer()
        for number in range(viewers):
            world.subscribed(f"c{number}")
        before = world.access.reads
        world.run(FULL)
        reads.append(world.access.reads - before)
    assert reads == [1, 1]


def test_a_hundred_dashboards_are_each_read_once() -> None:
    world = RevalidationContainer()
    for dashboard in range(100):
        world.add_dashboard(f"d{dashboard}")
        for viewer in range(3):
            world.subscribed(f"c{dashboard}-{viewer}", dashboard=f"d{dashboard}")
    read: list[str] = []
    real = world.access.read

    def reading(dashboards: Iterable[str], users: Iterable[str]) -> AccessSnapshot:
        asked = list(dashboards)
        read.extend(asked)
        return real(asked, users)

    world.access.read = reading  # type: ignore[method-assign, assignment]
    world.run(FULL)
    assert sorted(read) == sorted(f"d{dashboard}" for dashboard in range(100))


def test_time_that_runs_out_is_continued_where_it_was() -> None:
    world = RevalidationContainer()
    for number in range(60):
        world.subscribed(f"c{number}")
    world.revoke()
    scan = world.subscriptions.scan

    def slowly(segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Subscription]]:
        for page in scan(segment, segments, after):
            world.clock.advance(1)
            yield page

    world.subscriptions.scan = slowly  # type: ignore[method-assign]
    runs = 0
    while world.subscriptions.rows:
        world.run(FULL, seconds=7)
        runs += 1
        assert runs < 20
        if world.subscriptions.rows:
            assert (FULL, 0) in world.tasks.queued, "it asks to be continued at once"
    assert runs > 1
    world.run(FULL)
    assert ("full_revalidations",) in world.observer.counts
    assert len([one for one in world.sender.sent.values() if len(one) == 2]) == 60, "nobody was told twice"


def test_a_segment_that_is_done_is_not_read_again() -> None:
    world = RevalidationContainer()
    for number in range(60):
        world.subscribed(f"c{number}")
    note = world.runs.note
    left = [5]

    def dying(*args: Any) -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise Unavailable("died")
        return note(*args)

    world.runs.note = dying  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        world.run(FULL)
    assert len(world.runs.progress or {}) >= 1
    world.runs.note = note  # type: ignore[method-assign]
    done = dict(world.runs.progress or {})
    begun: dict[int, str | None] = {}
    scan = world.subscriptions.scan

    def scanning(segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Subscription]]:
        begun[segment] = after
        return scan(segment, segments, after)

    world.subscriptions.scan = scanning  # type: ignore[method-assign]
    world.run(FULL)
    for step, position in done.items():
        number = int(step.split()[1].partition("/")[0])
        assert (number not in begun) if position == "" else begun[number] == position
    assert ("full_revalidations",) in world.observer.counts


def test_a_run_that_was_overtaken_stops() -> None:
    world = RevalidationContainer()
    world.subscribed()
    scan = world.subscriptions.scan

    def overtaken(segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Subscription]]:
        world.runs.owner = "another"
        return scan(segment, segments, after)

    world.subscriptions.scan = overtaken  # type: ignore[method-assign]
    world.run(FULL)
    assert world.observer.counts[("full_revalidations_overtaken",)] == 1 and world.runs.owner == "another"


def test_what_cannot_be_checked_does_not_stop_the_others() -> None:
    world = RevalidationContainer()
    world.add_dashboard("down")
    world.subscribed("kept", dashboard="down")
    world.subscribed("terminate")
    world.revoke()
    real = world.access.read

    def partly(dashboards: Iterable[str], users: Iterable[str]) -> AccessSnapshot:
        asked = list(dashboards)
        if "down" in asked:
            raise Unavailable("down")
        return real(asked, users)

    world.access.read = partly  # type: ignore[method-assign, assignment]
    world.run(FULL)
    left = [key.connection_id for key in world.subscriptions.rows]
    assert "kept" in left and world.observer.counts[("indeterminate",)] >= 1 and "kept" not in world.sender.sent


def test_it_sweeps_what_crashes_left() -> None:
    world = RevalidationContainer()
    world.subscribed("orphan")
    world.connections.rows.pop("orphan")  # died between deleting the connection and its rows
    world.open("idle")
    world.subscribed("gone")
    world.sender.answers["gone"] = Delivery.GONE
    world.subscribed("fresh-and-gone")
    world.clock.advance(61)
    world.subscribed("live")
    world.open("just-opened")
    assert world.run(FULL) == 0
    assert {key.connection_id for key in world.subscriptions.rows} == {"live", "fresh-and-gone"}
    assert set(world.connections.rows) == {"live", "fresh-and-gone", "just-opened"}
    assert "idle" in world.sender.closed and "live" not in world.sender.sent
    slots = [one for one in world.tasks.queued if one[0].kind is TaskKind.SLOT]
    assert [(task.target.rpartition(" ")[2], delay) for task, delay in slots] == [("orphan", SLOT_GRACE_S)]
    world.run(slots[0][0])
    world.run(slots[0][0])
    held = {holder for holders in world.caps.holders.values() for holder in holders}
    assert held == {"live", "fresh-and-gone"}


def test_a_slot_whose_connection_came_is_kept() -> None:
    world = RevalidationContainer()
    world.caps.take("ip#x", 0, 5, "coming")
    world.run(FULL)
    world.open("coming")
    (task, _delay) = next(one for one in world.tasks.queued if one[0].kind is TaskKind.SLOT)
    world.run(task)
    assert world.caps.holders[("ip#x", 0)] == {"coming"}


def test_connections_that_outlived_the_platform() -> None:
    world = RevalidationContainer()
    world.subscribed(ttl=3 * 3600)
    world.clock.advance(LONGEST_CONNECTION_S + 1)
    world.run(FULL)
    assert not world.connections.rows and world.sender.closed == ["c"]


def test_a_row_newer_than_what_the_pass_read_is_not_cut_for_it() -> None:
    world = RevalidationContainer()
    world.subscribed("c")
    world.change(visibility=Visibility.PRIVATE)
    first = [True]
    read = world.access.read

    def reopened_after_the_first_read(*args: object) -> object:
        answer = read(*args)  # type: ignore[arg-type]
        if first:
            first.clear()
            world.change(visibility=Visibility.LINK)
        return answer

    world.access.read = reopened_after_the_first_read  # type: ignore[method-assign, assignment]
    assert world.run(FULL) == 0 and world.sender.sent == {}


# --- the process dies after every single write ------------------------------------------------------------


WRITES = {
    "runs": ("begin", "note", "pause", "end"),
    "subscriptions": ("claim_termination", "remove", "remove_all_of"),
    "connections": ("close_if_empty", "remove"),
    "caps": ("release",),
    "sender": ("post_many", "close"),
    "tasks": ("queue",),
}


class Died(BaseException):
    """The process is gone: nothing catches it."""


def mess() -> RevalidationContainer:
    """A revoked viewer, a valid one, an expired one, an orphan row, an idle and a gone connection, a leaked slot."""
    world = RevalidationContainer()
    for name in ("revoked", "gone", "orphan"):
        world.subscribed(name)
    world.subscribed("expired", user="member", ttl=5)
    world.open("idle")
    world.connections.rows.pop("orphan")
    world.sender.answers["gone"] = Delivery.GONE
    world.caps.take("ip#x", 0, 5, "leaked")
    world.revoke()
    world.clock.advance(61)
    world.subscribed("valid", user="member", ttl=3000)
    return world


def settled(world: RevalidationContainer) -> None:
    """What queue and schedule do from here on, until nothing is left to do."""
    done = 0
    for _ in range(4):
        world.clock.advance(130)
        world.run(FULL)
        while done < len(world.tasks.queued):
            task = world.tasks.queued[done][0]
            done += 1
            if task != FULL:
                world.run(task)


@pytest.mark.parametrize("answer_lost", [False, True], ids=["died", "answer lost"])
def test_a_full_pass_that_dies_after_any_write_is_made_good(answer_lost: bool) -> None:
    at, counting = 0, Lock()
    while True:
        at += 1
        world, count = mess(), [0]

        def dying(real: Any, *args: Any, counted: list[int] = count, limit: int = at, **options: Any) -> Any:
            result = real(*args, **options)
            with counting:
                counted[0] += 1
                if counted[0] < limit or (answer_lost and counted[0] > limit):
                    return result
            # The process: all of its threads, from this write on.
            raise Unavailable("the answer was lost") if answer_lost else Died

        originals = []
        for store, methods in WRITES.items():
            for method in methods:
                target = getattr(world, store)
                originals.append((target, method, getattr(target, method)))
                setattr(target, method, partial(dying, getattr(target, method)))
        with suppress(Unavailable, Died):
            world.run(FULL)
        for target, method, real in originals:
            setattr(target, method, real)
        if count[0] < at:
            break
        settled(world)
        assert [key.connection_id for key in world.subscriptions.rows] == ["valid"], at
        assert set(world.connections.rows) == {"valid"}, at
        assert {holder for holders in world.caps.holders.values() for holder in holders} == {"valid"}, at
        assert "valid" not in world.sender.sent
        assert any(one["type"] == "error" and not one["retryable"] for one in world.sender.sent["revoked"])
        assert all(one.get("retryable", True) for one in world.sender.sent["expired"])
    assert at > 25, "every write was interrupted"
