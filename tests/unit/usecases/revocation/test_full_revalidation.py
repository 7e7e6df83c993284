from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any

import pytest

from tests.containers.revalidation import RevalidationContainer
from tests.doubles.platform import Died
from tidegate.domain.access import Visibility
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import Subscription
from tidegate.domain.switches import ALL_ON, SETTLING_S, Switches
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery
from tidegate.ports.gateway import AccessSnapshot
from tidegate.ports.runtime import ScanPage
from tidegate.usecases.revocation.full_revalidation import LONGEST_CONNECTION_S, SLOT_GRACE_S

FULL = Task(TaskKind.FULL)


def test_the_full_revalidation_finds_what_events_did_not_tell() -> None:
    container = RevalidationContainer()
    container.subscribed("guest")
    container.subscribed("member", user="member")
    container.subscribed("expired", ttl=5)
    container.revoke()
    container.clock.advance(10)
    assert container.run(FULL) == 2
    assert [key.connection_id for key in container.subscriptions.rows] == ["member"]
    assert "member" not in container.sender.sent and container.sender.closed == []
    assert {frames[0]["retryable"] for frames in container.sender.sent.values()} == {False}, "both lost the right"


def test_it_runs_when_due_and_alone() -> None:
    container = RevalidationContainer()
    container.run(FULL)
    container.subscribed()
    container.revoke()
    assert container.run(FULL) == 0, "not due"
    container.clock.advance(299)
    assert container.run(FULL) == 0
    container.clock.advance(1)
    slow = container.runs.begin("slow", int(container.clock.now()), 300, 5)
    assert slow is not None
    assert container.run(FULL) == 0, "another run holds the lease"
    container.clock.advance(6)
    assert container.run(FULL) == 1, "a run that died is replaced when its lease ends"


def test_only_what_is_switched_off_ends() -> None:
    container = RevalidationContainer(switches=Switches(off=frozenset({"mqtt"})))
    container.subscribed("mqtt")
    container.subscribed("sse")
    key = next(key for key in container.subscriptions.rows if key.connection_id == "sse")
    container.subscriptions.rows[key] = replace(container.subscriptions.rows[key], protocol="sse")
    assert container.run(FULL) == 1 and [key.connection_id for key in container.subscriptions.rows] == ["sse"]
    assert container.sender.closed == [], "what is left without a subscription may ask for another protocol"
    error, status = container.sender.sent["mqtt"]
    assert (error["errorCode"], error["message"]) == ("STREAM_POLICY_BLOCKED", "MQTT protocol is disabled")
    assert not error["retryable"] and status["status"] == "error"


def test_who_lost_the_right_is_told_that_and_not_of_the_switch() -> None:
    container = RevalidationContainer(switches=Switches(realtime=False))
    container.subscribed()
    container.revoke()
    assert container.run(FULL) == 1
    assert container.sender.sent["c"][0]["errorCode"] == "STREAM_AUTH_FAILED"


def test_without_realtime_no_connection_waits_for_a_subscribe() -> None:
    container = RevalidationContainer(switches=Switches(realtime=False))
    container.subscribed("watching")
    container.open("waiting")
    container.clock.advance(2)
    assert container.run(FULL) == 1 and not container.connections.rows
    assert container.sender.sent["watching"][0]["message"] == "Realtime is disabled"


def test_what_functions_with_the_old_settings_admit_late_ends_with_the_next_minute() -> None:
    container = RevalidationContainer(switches=Switches(off=frozenset({"mqtt"})))
    before = container.runs.begin("before", int(container.clock.now()), 300, 5, ALL_ON.digest)
    assert before is not None
    container.runs.end(before)
    container.clock.advance(1)
    assert container.run(FULL) == 0
    for minute in range(SETTLING_S // 60):
        container.subscribed(f"late {minute}")
        container.clock.advance(60)
        assert container.run(FULL) == 1, minute
    container.subscribed("later")
    container.clock.advance(60)
    assert container.run(FULL) == 0, "settled: the next one is due after the interval"
    container.clock.advance(240)
    assert container.run(FULL) == 1


def test_a_run_that_dies_while_it_ends_what_is_off_is_repeated() -> None:
    container = RevalidationContainer(switches=Switches(off=frozenset({"mqtt"})))
    container.subscribed(ttl=3000)
    container.subscriptions.remove = partial(_die, container.subscriptions.remove)  # type: ignore[method-assign]
    with suppress(Died):
        container.run(FULL)
    del container.subscriptions.remove
    assert container.subscriptions.rows, "notified, not deleted"
    container.clock.advance(600)
    assert container.run(FULL) == 1 and not container.subscriptions.rows
    assert container.sender.sent["c"][-2]["errorCode"] == "STREAM_POLICY_BLOCKED"


def _die(*_: object) -> bool:
    raise Died


def test_each_access_item_is_read_once_however_many_viewers() -> None:
    reads = []
    for viewers in (1, 200):
        container = RevalidationContainer()
        for number in range(viewers):
            container.subscribed(f"c{number}")
        before = container.access.reads
        container.run(FULL)
        reads.append(container.access.reads - before)
    assert reads == [1, 1]


def test_a_hundred_dashboards_are_each_read_once() -> None:
    container = RevalidationContainer()
    for dashboard in range(100):
        container.add_dashboard(f"d{dashboard}")
        for viewer in range(3):
            container.subscribed(f"c{dashboard}-{viewer}", dashboard=f"d{dashboard}")
    read: list[str] = []
    real = container.access.read

    def reading(dashboards: Iterable[str], users: Iterable[str]) -> AccessSnapshot:
        asked = list(dashboards)
        read.extend(asked)
        return real(asked, users)

    container.access.read = reading  # type: ignore[method-assign, assignment]
    container.run(FULL)
    assert sorted(read) == sorted(f"d{dashboard}" for dashboard in range(100))


def test_time_that_runs_out_is_continued_where_it_was() -> None:
    container = RevalidationContainer()
    for number in range(60):
        container.subscribed(f"c{number}")
    container.revoke()
    scan = container.subscriptions.scan

    def slowly(segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Subscription]]:
        for page in scan(segment, segments, after):
            container.clock.advance(1)
            yield page

    container.subscriptions.scan = slowly  # type: ignore[method-assign]
    runs = 0
    while container.subscriptions.rows:
        container.run(FULL, seconds=7)
        runs += 1
        assert runs < 20
        if container.subscriptions.rows:
            assert (FULL, 0) in container.tasks.queued, "it asks to be continued at once"
    assert runs > 1
    container.run(FULL)
    assert ("full_revalidations",) in container.observer.counts
    assert len([frames for frames in container.sender.sent.values() if len(frames) == 2]) == 60, "nobody was told twice"


def test_a_segment_that_is_done_is_not_read_again() -> None:
    container = RevalidationContainer()
    for number in range(60):
        container.subscribed(f"c{number}")
    note = container.runs.note
    left = [5]

    def dying(*args: Any) -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise Unavailable("died")
        return note(*args)

    container.runs.note = dying  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        container.run(FULL)
    assert len(container.runs.progress or {}) >= 1
    container.runs.note = note  # type: ignore[method-assign]
    done = dict(container.runs.progress or {})
    begun: dict[int, str | None] = {}
    scan = container.subscriptions.scan

    def scanning(segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Subscription]]:
        begun[segment] = after
        return scan(segment, segments, after)

    container.subscriptions.scan = scanning  # type: ignore[method-assign]
    container.run(FULL)
    for step, position in done.items():
        number = int(step.split()[1].partition("/")[0])
        assert (number not in begun) if position == "" else begun[number] == position
    assert ("full_revalidations",) in container.observer.counts


def test_a_run_that_was_overtaken_stops() -> None:
    container = RevalidationContainer()
    container.subscribed()
    scan = container.subscriptions.scan

    def overtaken(segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[Subscription]]:
        container.runs.owner = "another"
        return scan(segment, segments, after)

    container.subscriptions.scan = overtaken  # type: ignore[method-assign]
    container.run(FULL)
    assert container.observer.counts[("full_revalidations_overtaken",)] == 1 and container.runs.owner == "another"


def test_what_cannot_be_checked_does_not_stop_the_others() -> None:
    container = RevalidationContainer()
    container.add_dashboard("down")
    container.subscribed("kept", dashboard="down")
    container.subscribed("terminate")
    container.revoke()
    real = container.access.read

    def partly(dashboards: Iterable[str], users: Iterable[str]) -> AccessSnapshot:
        asked = list(dashboards)
        if "down" in asked:
            raise Unavailable("down")
        return real(asked, users)

    container.access.read = partly  # type: ignore[method-assign, assignment]
    container.run(FULL)
    left = [key.connection_id for key in container.subscriptions.rows]
    assert "kept" in left and container.observer.counts[("indeterminate",)] >= 1 and "kept" not in container.sender.sent


def test_it_sweeps_what_crashes_left() -> None:
    container = RevalidationContainer()
    container.subscribed("orphan")
    container.connections.rows.pop("orphan")  # died between deleting the connection and its rows
    container.open("idle")
    container.subscribed("gone")
    container.sender.answers["gone"] = Delivery.GONE
    container.subscribed("fresh-and-gone")
    container.clock.advance(61)
    container.subscribed("live")
    container.open("just-opened")
    assert container.run(FULL) == 0
    assert {key.connection_id for key in container.subscriptions.rows} == {"live", "fresh-and-gone"}
    assert set(container.connections.rows) == {"live", "fresh-and-gone", "just-opened"}
    assert "idle" in container.sender.closed and "live" not in container.sender.sent
    slots = [queued for queued in container.tasks.queued if queued[0].kind is TaskKind.SLOT]
    assert [(task.target.rpartition(" ")[2], delay) for task, delay in slots] == [("orphan", SLOT_GRACE_S)]
    container.run(slots[0][0])
    container.run(slots[0][0])
    held = {holder for holders in container.caps.holders.values() for holder in holders}
    assert held == {"live", "fresh-and-gone"}


def test_a_slot_whose_connection_came_is_kept() -> None:
    container = RevalidationContainer()
    container.caps.take("ip#x", 0, 5, "coming")
    container.run(FULL)
    container.open("coming")
    (task, _delay) = next(queued for queued in container.tasks.queued if queued[0].kind is TaskKind.SLOT)
    container.run(task)
    assert container.caps.holders[("ip#x", 0)] == {"coming"}


def test_connections_that_outlived_the_platform() -> None:
    container = RevalidationContainer()
    container.subscribed(ttl=3 * 3600)
    container.clock.advance(LONGEST_CONNECTION_S + 1)
    container.run(FULL)
    assert not container.connections.rows and container.sender.closed == ["c"]


def test_a_row_newer_than_what_the_pass_read_is_not_cut_for_it() -> None:
    container = RevalidationContainer()
    container.subscribed("c")
    container.change(visibility=Visibility.PRIVATE)
    first = [True]
    read = container.access.read

    def reopened_after_the_first_read(*args: object) -> object:
        answer = read(*args)  # type: ignore[arg-type]
        if first:
            first.clear()
            container.change(visibility=Visibility.LINK)
        return answer

    container.access.read = reopened_after_the_first_read  # type: ignore[method-assign, assignment]
    assert container.run(FULL) == 0 and container.sender.sent == {}


# --- the process dies after every single write ------------------------------------------------------------


WRITES = {
    "runs": ("begin", "note", "pause", "end"),
    "subscriptions": ("claim_termination", "remove", "remove_all_of"),
    "connections": ("close_if_empty", "remove"),
    "caps": ("release", "give_back"),
    "sender": ("post_many", "close"),
    "tasks": ("queue",),
}


def mess() -> RevalidationContainer:
    """A revoked viewer, a valid one, an expired one, an orphan row, an idle and a gone connection, a leaked slot."""
    container = RevalidationContainer()
    for name in ("revoked", "gone", "orphan"):
        container.subscribed(name)
    container.subscribed("expired", user="member", ttl=5)
    container.open("idle")
    container.connections.rows.pop("orphan")
    container.sender.answers["gone"] = Delivery.GONE
    container.caps.take("ip#x", 0, 5, "leaked")
    container.revoke()
    container.clock.advance(61)
    container.subscribed("valid", user="member", ttl=3000)
    return container


def settled(container: RevalidationContainer) -> None:
    """What queue and schedule do from here on, until nothing is left to do."""
    done = 0
    for _ in range(4):
        container.clock.advance(130)
        container.run(FULL)
        while done < len(container.tasks.queued):
            task = container.tasks.queued[done][0]
            done += 1
            if task != FULL:
                container.run(task)


@pytest.mark.parametrize("answer_lost", [False, True], ids=["died", "answer lost"])
def test_a_full_revalidation_that_dies_after_any_write_is_made_good(answer_lost: bool) -> None:
    at, counting = 0, Lock()
    while True:
        at += 1
        container, count = mess(), [0]

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
                target = getattr(container, store)
                originals.append((target, method, getattr(target, method)))
                setattr(target, method, partial(dying, getattr(target, method)))
        with suppress(Unavailable, Died):
            container.run(FULL)
        for target, method, real in originals:
            setattr(target, method, real)
        if count[0] < at:
            break
        settled(container)
        assert [key.connection_id for key in container.subscriptions.rows] == ["valid"], at
        assert set(container.connections.rows) == {"revoked", "expired", "valid"}, at
        assert {holder for holders in container.caps.holders.values() for holder in holders} == {"valid"}, at
        assert "valid" not in container.sender.sent
        assert any(frame["type"] == "error" and not frame["retryable"] for frame in container.sender.sent["revoked"])
        assert all(frame.get("retryable", True) for frame in container.sender.sent["expired"])
    assert at > 25, "every write was interrupted"
