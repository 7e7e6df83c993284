from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE
from tests.containers.revalidation import KEY, PASS, RevalidationContainer
from tidegate.domain.access import Role, UserAccess
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import NOTIFY_WITHIN_S, TERMINATION_CLAIM_S, TerminationClaim
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery
from tidegate.usecases.gateway.unsubscribe import Unsubscribe


def test_a_revoked_viewer_is_told_deleted_and_closed_and_the_valid_one_is_not() -> None:
    world = RevalidationContainer()
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
    world = RevalidationContainer()
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
    world = RevalidationContainer()
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
    world = RevalidationContainer()
    world.subscribed()
    world.revoke()

    def down(*_args: object) -> object:
        raise Unavailable("down")

    world.access.read = down  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        world.run()
    assert world.subscriptions.rows[KEY].live and world.sender.sent == {}
    assert world.observer.counts[("indeterminate",)] == 1


def test_expiry_gives_way_to_a_refresh() -> None:
    world = RevalidationContainer()
    world.subscribed(ttl=10)
    world.clock.advance(11)
    judged = world.evaluate(list(world.subscriptions.rows.values()))
    row = world.subscriptions.rows[KEY]
    later = replace(row, claim=replace(row.claim, expires_at=row.claim.expires_at + 300))
    world.subscriptions.rows[KEY] = later  # the refresh that came in between
    assert world.terminate(judged, world.clock.monotonic() + 10) == 0
    assert world.subscriptions.rows[KEY].live and world.sender.sent == {}


def test_a_hidden_row_is_cut_before_its_attempt_can_show_it() -> None:
    world = RevalidationContainer()
    world.subscribed()
    hidden = replace(world.subscriptions.rows[KEY], visible=False)
    world.subscriptions.rows[KEY] = hidden
    world.revoke()
    assert world.run() == 1
    assert not world.subscriptions.make_visible(hidden) and KEY not in world.subscriptions.rows


def test_a_viewer_gone_meanwhile_is_released() -> None:
    world = RevalidationContainer()
    world.subscribed()
    world.revoke()
    world.sender.answers["c"] = Delivery.GONE
    assert world.run() == 1
    assert not world.subscriptions.rows and not world.connections.rows


def test_time_that_runs_out_is_queued_again() -> None:
    world = RevalidationContainer()
    world.subscribed()
    world.revoke()
    assert world.run(seconds=0) == 0
    assert world.tasks.queued == [(PASS, 0)] and world.subscriptions.rows[KEY].live


# --- the process dies after every single write ------------------------------------------------------------


class Died(Exception):
    pass


WRITES = [
    ("subscriptions", "claim_termination"),
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
    world = RevalidationContainer()
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
            raise Unavailable("the answer was lost") if answer_lost else Died
        return result

    setattr(target, method, dying)
    with pytest.raises((Unavailable, Died)):
        world.run()
    assert not left
    assert world.run() == 0 or store != "subscriptions", "what another run marked is left to it"
    world.clock.advance(TERMINATION_CLAIM_S)
    world.run()
    # What a crash after the row was deleted leaves is an open, empty connection; it may subscribe again, or is closed
    # by whoever ends it. Nobody is left subscribed, and nobody valid was told anything.
    assert [key.connection_id for key in world.subscriptions.rows] == ["valid"]
    assert "valid" not in world.sender.sent and "valid" in world.connections.rows
    assert any(one["type"] == "error" for one in world.sender.sent["c"]), "the viewer heard of it"
    if "c" in world.connections.rows:
        assert not world.connections.rows["c"].subscriptions


# --- a mark is one run's right ----------------------------------------------------------------------------


def test_two_runs_over_one_row_tell_once() -> None:
    world = RevalidationContainer()
    world.subscribed()
    world.revoke()
    judged = world.evaluate(list(world.subscriptions.rows.values()))
    post_many = world.sender.post_many

    def meanwhile(*args: Any, **options: Any) -> Any:
        world.sender.post_many = post_many  # type: ignore[method-assign]
        assert world.terminate(judged, world.clock.monotonic() + 10) == 0, "it is another run's to tell"
        return post_many(*args, **options)

    world.sender.post_many = meanwhile  # type: ignore[method-assign]
    assert world.terminate(judged, world.clock.monotonic() + 10) == 1
    assert [one["type"] for one in world.sender.sent["c"]] == ["error", "status"]


def test_what_a_dead_run_marked_is_looked_at_again() -> None:
    world = RevalidationContainer()
    world.subscribed()
    world.revoke()
    world.subscriptions.claim_termination(
        world.subscriptions.rows[KEY], TerminationClaim("dead", int(world.clock.now()))
    )
    assert world.run() == 0 and world.tasks.queued == [(PASS, TERMINATION_CLAIM_S)]
    world.clock.advance(TERMINATION_CLAIM_S)
    assert world.run() == 1 and KEY not in world.subscriptions.rows
    world.tasks.queued.clear()
    assert world.run() == 0 and world.tasks.queued == []


def test_a_run_that_was_too_slow_does_not_tell() -> None:
    world = RevalidationContainer()
    world.subscribed()
    world.revoke()
    mark = world.subscriptions.claim_termination

    def slowly(*args: Any, **options: Any) -> bool:
        done = mark(*args, **options)
        world.clock.advance(NOTIFY_WITHIN_S)
        return done

    world.subscriptions.claim_termination = slowly  # type: ignore[method-assign]
    assert world.run() == 0 and world.sender.sent == {}
    assert not world.subscriptions.rows[KEY].live, "and yet it is sent nothing"
    world.subscriptions.claim_termination = mark  # type: ignore[method-assign]
    world.clock.advance(TERMINATION_CLAIM_S)
    assert world.run() == 1 and len(world.sender.sent["c"]) == 2


def test_a_row_that_is_being_ended_is_not_unsubscribed() -> None:
    world = RevalidationContainer()
    world.subscribed()
    world.subscriptions.claim_termination(
        world.subscriptions.rows[KEY], TerminationClaim("run", int(world.clock.now()))
    )
    unsubscribe = Unsubscribe(connections=world.connections, subscriptions=world.subscriptions, observer=world.observer)
    unsubscribe("c", DATASOURCE)
    assert KEY in world.subscriptions.rows, "were it gone, the viewer could come back before it was told"
