from __future__ import annotations

from dataclasses import replace

import pytest

from tests.usecases.gateway_world import DASHBOARD, DATASOURCE, GatewayWorld
from tests.usecases.revalidation_world import KEY, PASS, RevalidationWorld
from tidegate.domain.access import Role, UserAccess
from tidegate.domain.errors import CouldNotCheck, TidegateError
from tidegate.domain.revocations import (
    Task,
    TaskKind,
)
from tidegate.domain.subscriptions import Subscription
from tidegate.ports import Delivery


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
