from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.usecases.gateway_world import DASHBOARD, DATASOURCE, GatewayWorld
from tidegate.domain.access import AclLevel, Role, UserAccess, Visibility
from tidegate.domain.errors import CouldNotCheck, TidegateError
from tidegate.domain.revocations import (
    FeedPage,
    Revocation,
    RevocationEvent,
    RevocationReason,
    Task,
    TaskKind,
    task_for,
)
from tidegate.domain.subscriptions import Subscription, SubscriptionKey
from tidegate.ports import Delivery
from tidegate.usecases.cut_viewers import CutViewers
from tidegate.usecases.follow_feed import INDEX_LAG_S, FollowFeed
from tidegate.usecases.full_pass import LONGEST_CONNECTION_S, SLOT_GRACE_S, FullPass
from tidegate.usecases.judge import Judge
from tidegate.usecases.revalidate import Revalidate

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

    def add(self, revocation: Revocation) -> None:
        self.events.append(RevocationEvent(len(self.events) + 1, revocation, 0))

    def read(self, after: int, limit: int, now: float) -> FeedPage:
        return FeedPage(tuple(self.events[after : after + limit]), len(self.events), 1)

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


class OneLease:
    """The full pass's lease, as the table keeps it."""

    def __init__(self) -> None:
        self.began: int | None = None
        self.until: int | None = None

    def take(self, now: int, interval_s: int, life_s: int) -> bool:
        due = self.began is None or self.began <= now - interval_s
        if not due or (self.until is not None and self.until >= now):
            return False
        self.began, self.until = now, now + life_s
        return True

    def give_back(self, now: int) -> None:
        if self.began == now:
            self.until = None


class RevalidationWorld(GatewayWorld):
    def __init__(self, batch: int = 100) -> None:
        super().__init__()
        self.feed, self.tasks = Feed(), Tasks()
        self.cut = CutViewers(
            subscriptions=self.subscriptions,
            connections=self.connections,
            sender=self.sender,
            end_connection=self.end_connection,
            clock=self.clock,
            observer=self.observer,
        )
        self.follow = FollowFeed(
            feed=self.feed,
            cursors=self.feed,
            tasks=self.tasks,
            batch=batch,
            clock=self.clock,
            observer=self.observer,
        )
        self.judge = Judge(access=self.access, clock=self.clock, observer=self.observer)
        self.leases = OneLease()
        self.full_pass = FullPass(
            connections=self.connections,
            subscriptions=self.subscriptions,
            caps=self.caps,
            leases=self.leases,
            judge=self.judge,
            cut=self.cut,
            end_connection=self.end_connection,
            sender=self.sender,
            tasks=self.tasks,
            interval_s=300,
            idle_timeout_s=60,
            clock=self.clock,
            observer=self.observer,
        )
        self.revalidate = Revalidate(
            subscriptions=self.subscriptions,
            judge=self.judge,
            cut=self.cut,
            follow_feed=self.follow,
            full_pass=self.full_pass,
            tasks=self.tasks,
            clock=self.clock,
        )

    def run(self, task: Task = PASS, seconds: float = 100) -> int:
        return self.revalidate(task, self.clock.monotonic() + seconds)


def test_a_revoked_viewer_is_told_deleted_and_closed_and_the_valid_one_is_not() -> None:
    world = RevalidationWorld()
    world.subscribed("guest")
    world.subscribed("member", user="member")
    world.revoke()
    assert world.run() == 1
    error, status = world.sender.sent["guest"]
    assert (error["errorCode"], error["retryable"]) == ("STREAM_AUTH_FAILED", False) and "revoked" in error["message"]
    assert (status["type"], status["status"]) == ("status", "error")
    assert list(world.connections.rows) == ["member"] and world.sender.closed == ["guest"]
    assert [key.connection_id for key in world.subscriptions.rows] == ["member"]
    assert sum(len(holders) for holders in world.caps.holders.values()) == 1, "the slot is free"
    assert world.run() == 0 and len(world.sender.sent["guest"]) == 2, "repeating it changes nothing"


def test_a_connection_with_another_subscription_stays_open() -> None:
    world = RevalidationWorld()
    world.add_datasource("second", "a/c")
    world.open()
    for datasource in (DATASOURCE, "second"):
        world.subscribe("c", DASHBOARD, datasource, world.token(datasource))
    hashes = dict(world.access.dashboards[DASHBOARD].intents)
    world.change(intents=hashes | {"second": "another"})
    assert world.run() == 1
    assert world.sender.sent["c"][0]["retryable"] is True, "a new token may help"
    assert world.sender.closed == [] and dict(world.connections.rows["c"].subscriptions) == {DATASOURCE: DASHBOARD}


@pytest.mark.parametrize("how", ["acl", "inactive", "password"])
def test_signed_in_viewers(how: str) -> None:
    world = RevalidationWorld()
    world.subscribed("c", user="member")
    world.subscribed("other")
    match how:
        case "acl":
            world.change(acl={})
            task = PASS
        case "inactive":
            world.access.users["member"] = UserAccess("member", Role.VIEWER, False, 1)
            task = Task(TaskKind.USER, "member")
        case _:
            world.access.users["member"] = UserAccess("member", Role.VIEWER, True, 2)
            task = Task(TaskKind.USER, "member")
    assert world.run(task) == 1
    assert [key.connection_id for key in world.subscriptions.rows] == ["other"]


def test_what_cannot_be_checked_is_kept_and_counted() -> None:
    world = RevalidationWorld()
    world.subscribed()
    world.revoke()

    def down(*_args: object) -> object:
        raise CouldNotCheck("down")

    world.access.read = down  # type: ignore[method-assign, assignment]
    with pytest.raises(CouldNotCheck):
        world.run()
    assert world.subscriptions.rows[KEY].live and world.sender.sent == {}
    assert world.observer.counts[("indeterminate",)] == 1


def test_expiry_gives_way_to_a_refresh() -> None:
    world = RevalidationWorld()
    world.subscribed(ttl=10)
    world.clock.advance(11)
    judged = world.judge(list(world.subscriptions.rows.values()))
    row = world.subscriptions.rows[KEY]
    later = replace(row, claim=replace(row.claim, expires_at=row.claim.expires_at + 300))
    world.subscriptions.rows[KEY] = later  # the refresh that came in between
    assert world.cut(judged, world.clock.monotonic() + 10) == 0
    assert world.subscriptions.rows[KEY].live and world.sender.sent == {}


def test_a_hidden_row_is_cut_before_its_attempt_can_show_it() -> None:
    world = RevalidationWorld()
    world.subscribed()
    hidden = replace(world.subscriptions.rows[KEY], visible=False)
    world.subscriptions.rows[KEY] = hidden
    world.revoke()
    assert world.run() == 1
    assert not world.subscriptions.make_visible(hidden) and KEY not in world.subscriptions.rows


def test_a_viewer_gone_meanwhile_is_released() -> None:
    world = RevalidationWorld()
    world.subscribed()
    world.revoke()
    world.sender.answers["c"] = Delivery.GONE
    assert world.run() == 1
    assert not world.subscriptions.rows and not world.connections.rows


def test_time_that_runs_out_is_queued_again() -> None:
    world = RevalidationWorld()
    world.subscribed()
    world.revoke()
    assert world.run(seconds=0) == 0
    assert world.tasks.queued == [(PASS, 0)] and world.subscriptions.rows[KEY].live


# --- the full pass -----------------------------------------------------------------------------------------

FULL = Task(TaskKind.FULL)


def test_the_full_pass_finds_what_events_did_not_tell() -> None:
    world = RevalidationWorld()
    world.subscribed("guest")
    world.subscribed("member", user="member")
    world.subscribed("expired", ttl=5)
    world.revoke()
    world.clock.advance(10)
    assert world.run(FULL) == 2
    assert list(world.connections.rows) == ["member"] and "member" not in world.sender.sent
    assert {one[0]["retryable"] for one in world.sender.sent.values()} == {False}, "both lost the right"


def test_it_runs_when_due_and_alone() -> None:
    world = RevalidationWorld()
    world.run(FULL)
    world.subscribed()
    world.revoke()
    assert world.run(FULL) == 0, "not due"
    world.clock.advance(299)
    assert world.run(FULL) == 0
    world.clock.advance(1)
    world.leases.until = int(world.clock.now()) + 5
    assert world.run(FULL) == 0, "another run holds the lease"
    world.clock.advance(6)
    assert world.run(FULL) == 1, "a run that died is replaced when its lease ends"


def test_each_access_item_is_read_once_however_many_viewers() -> None:
    reads = []
    for viewers in (1, 200):
        world = RevalidationWorld()
        for number in range(viewers):
            world.subscribed(f"c{number}")
        before = world.access.reads
        world.run(FULL)
        reads.append(world.access.reads - before)
    assert reads == [1, 1]


def test_it_sweeps_what_crashes_left() -> None:
    world = RevalidationWorld()
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
    world = RevalidationWorld()
    world.caps.take("ip#x", 0, 5, "coming")
    world.run(FULL)
    world.open("coming")
    (task, _delay) = next(one for one in world.tasks.queued if one[0].kind is TaskKind.SLOT)
    world.run(task)
    assert world.caps.holders[("ip#x", 0)] == {"coming"}


def test_connections_that_outlived_the_platform() -> None:
    world = RevalidationWorld()
    world.subscribed(ttl=3 * 3600)
    world.clock.advance(LONGEST_CONNECTION_S + 1)
    world.run(FULL)
    assert not world.connections.rows and world.sender.closed == ["c"]


def test_a_row_newer_than_what_the_pass_read_is_not_cut_for_it() -> None:
    world = RevalidationWorld()
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


class Died(Exception):
    pass


WRITES = [
    ("subscriptions", "mark_cut"),
    ("sender", "post_many"),
    ("subscriptions", "remove"),
    ("connections", "close_if_empty"),
    ("connections", "remove"),
    ("subscriptions", "remove_all_of"),
    ("sender", "close"),
]


@pytest.mark.parametrize("answer_lost", [False, True])
@pytest.mark.parametrize(("store", "method"), WRITES)
def test_a_crash_after_any_write_repeats_harmlessly(store: str, method: str, answer_lost: bool) -> None:
    world = RevalidationWorld()
    world.subscribed("c")
    world.subscribed("valid", user="member")
    world.revoke()
    target = getattr(world, store)
    original = getattr(target, method)
    left = [True]

    def dying(*args: object, **options: object) -> object:
        result = original(*args, **options)
        if left:
            left.pop()
            raise CouldNotCheck("the answer was lost") if answer_lost else Died
        return result

    setattr(target, method, dying)
    with pytest.raises((CouldNotCheck, Died)):
        world.run()
    assert not left
    world.run()
    # What a crash after the row was deleted leaves is an open, empty connection; it may subscribe again, or is closed
    # by whoever ends it. Nobody is left subscribed, and nobody valid was told anything.
    assert [key.connection_id for key in world.subscriptions.rows] == ["valid"]
    assert "valid" not in world.sender.sent and "valid" in world.connections.rows
    assert any(one["type"] == "error" for one in world.sender.sent["c"]), "the viewer heard of it"
    if "c" in world.connections.rows:
        assert not world.connections.rows["c"].subscriptions


# --- subscribing and revoking at the same time ------------------------------------------------------------


def stale_rows(second_at: int, revoke_at: int, *, without: str = "") -> tuple[list[Subscription], int]:
    """One subscribe runs; at chosen steps of it a second one, and a revocation with its pass, each run whole.

    `without` takes one safeguard out. Returns the live rows in the end, all of them stale, and the number of steps.
    """
    world = RevalidationWorld()
    world.open()
    tokens = [world.token(), world.token()]
    step = [0]
    inside = [False]
    if without == "verify":
        world.subscribe._verified = lambda row, slot: True  # type: ignore[method-assign]

    def happen() -> None:
        if inside[0]:
            return
        inside[0] = True
        step[0] += 1
        if step[0] == second_at:
            _attempt(world, tokens[1])
        if step[0] == revoke_at:
            world.revoke()
            world.run()
        inside[0] = False

    for target, names in (
        (world.subscriptions, ("get", "put_hidden", "make_visible", "remove", "release_key", "move_expiry")),
        (world.connections, ("get", "hold", "forget_slots")),
        (world.access, ("read", "intent")),
        (world.streams, ("want",)),
    ):
        for name in names:
            _wrap(target, name, happen)
    _attempt(world, tokens[0])
    revoked = step[0] >= revoke_at
    return ([row for row in world.subscriptions.rows.values() if row.live] if revoked else []), step[0]


#: More steps than one subscribe has; a test below checks that.
STEPS = 40


def test_no_interleaving_of_two_subscribes_and_a_revocation_leaves_a_stale_row() -> None:
    """All places for the second subscribe and for the revocation with its pass; no later pass helps."""
    longest = 0
    for second_at in range(STEPS):
        for revoke_at in range(1, STEPS):
            stale, steps = stale_rows(second_at, revoke_at)
            assert not stale, (second_at, revoke_at)
            longest = max(longest, steps)
    assert 15 < longest < STEPS, longest


def test_the_exploration_has_teeth() -> None:
    """Without the verifying read, a revocation before the row is put is missed."""
    found = [
        (second_at, revoke_at)
        for second_at in range(0, STEPS, 3)
        for revoke_at in range(1, STEPS)
        if stale_rows(second_at, revoke_at, without="verify")[0]
    ]
    assert found


def _attempt(world: GatewayWorld, token: str) -> None:
    try:
        world.subscribe("c", DASHBOARD, DATASOURCE, token)
    except TidegateError:
        return


def _wrap(target: object, name: str, happen: object) -> None:
    original = getattr(target, name)

    def stepped(*args: object, **options: object) -> object:
        happen()  # type: ignore[operator]
        result = original(*args, **options)
        happen()  # type: ignore[operator]
        return result

    setattr(target, name, stepped)


# --- the feed ----------------------------------------------------------------------------------------------


def rotated(number: int) -> Revocation:
    return Revocation(RevocationReason.SHARE_TOKEN_ROTATED, f"d{number}", number)


def test_events_become_tasks() -> None:
    assert task_for(rotated(1)) == Task(TaskKind.DASHBOARD, "d1")
    removed = Revocation(RevocationReason.ACL_REMOVED, "d", 1, "u")
    assert task_for(removed) == Task(TaskKind.DASHBOARD, "d")
    reset = Revocation(RevocationReason.PASSWORD_RESET, user_id="u")
    assert task_for(reset) == Task(TaskKind.USER, "u")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["write", "poll", "lost answer", "other reader"]), max_size=30), st.integers(1, 4))
def test_no_event_is_ever_skipped(steps: list[str], batch: int) -> None:
    world = RevalidationWorld(batch)
    for step in steps:
        match step:
            case "write":
                world.feed.add(rotated(len(world.feed.events)))
            case "poll":
                world.run(Task(TaskKind.POLL))
            case "lost answer":
                world.feed.lose_next_move = True
                with suppress(CouldNotCheck):
                    world.run(Task(TaskKind.POLL))
                world.feed.lose_next_move = False
            case "other reader":
                RevalidationWorld.run(world, Task(TaskKind.POLL))
    world.run(Task(TaskKind.POLL))
    assert {task.target for task, _ in world.tasks.queued} == {one.revocation.dashboard_id for one in world.feed.events}
    assert world.feed.position == (len(world.feed.events) or None)


def test_full_batches_are_continued_at_once_and_users_looked_for_twice() -> None:
    world = RevalidationWorld(batch=2)
    for number in range(5):
        world.feed.add(rotated(number))
    world.feed.add(Revocation(RevocationReason.USER_DEACTIVATED, user_id="u"))
    world.run(Task(TaskKind.POLL))
    assert len(world.tasks.queued) == 7 and world.tasks.queued[-1] == (Task(TaskKind.USER, "u"), INDEX_LAG_S)


def test_visibility_and_acl_levels_are_what_the_scene_says() -> None:
    world = RevalidationWorld()
    assert world.access.dashboards[DASHBOARD].visibility is Visibility.LINK
    assert world.access.dashboards[DASHBOARD].acl == {"member": AclLevel.VIEWER}
