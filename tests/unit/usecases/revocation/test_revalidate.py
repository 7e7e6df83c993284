from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE
from tests.containers.revalidation import KEY, PASS, RevalidationContainer
from tests.doubles.platform import Died
from tidegate.domain.access import Role, UserAccess, Visibility
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import NOTIFY_WITHIN_S, TERMINATION_CLAIM_S, TerminationClaim
from tidegate.domain.switches import Switches
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery
from tidegate.usecases.gateway.unsubscribe import Unsubscribe


def test_a_revoked_viewer_is_told_and_deleted_and_the_valid_one_is_not() -> None:
    container = RevalidationContainer()
    container.subscribed("guest")
    container.subscribed("member", user="member")
    container.revoke()
    assert container.run() == 1
    error, status = container.sender.sent["guest"]
    assert (error["errorCode"], error["retryable"]) == ("STREAM_AUTH_FAILED", False) and "revoked" in error["message"]
    assert (status["type"], status["status"]) == ("status", "error")
    assert list(container.connections.rows) == ["guest", "member"] and container.sender.closed == [], "it stays open"
    assert [key.connection_id for key in container.subscriptions.rows] == ["member"]
    held = {(cap, holder) for (cap, _), holders in container.caps.holders.items() for holder in holders}
    assert held == {(f"dash#{DASHBOARD}", "member")}, "the place of the dashboard is free"
    assert container.connections.rows["guest"].slots == frozenset()
    assert container.run() == 0 and len(container.sender.sent["guest"]) == 2, "repeating it changes nothing"


def test_a_connection_with_another_subscription_stays_open() -> None:
    container = RevalidationContainer()
    container.add_datasource("second", "a/c")
    container.open()
    for datasource in (DATASOURCE, "second"):
        container.subscribe("c", DASHBOARD, datasource, container.token(datasource))
    hashes = dict(container.access.dashboards[DASHBOARD].intents)
    container.change(intents=hashes | {"second": "another"})
    assert container.run() == 1
    assert container.sender.sent["c"][0]["retryable"] is True, "a new token may help"
    assert container.sender.closed == [] and dict(container.connections.rows["c"].subscriptions) == {
        DATASOURCE: DASHBOARD
    }


@pytest.mark.parametrize(
    ("end", "reason", "retryable"),
    [
        (lambda container: container.revoke(), "revoked", False),
        (lambda container: container.change(intents={DATASOURCE: "another"}), "changed", True),
        (lambda container: container.change(intents={}), "changed", False),
        (lambda container: container.clock.advance(301), "expired", True),
    ],
)
def test_an_ending_says_why_and_whether_to_come_back(
    end: Callable[[RevalidationContainer], None], reason: str, retryable: bool
) -> None:
    container = RevalidationContainer()
    container.subscribed()
    end(container)
    assert container.run() == 1
    error, status = container.sender.sent["c"]
    assert (error["reason"], error["retryable"], status["reason"]) == (reason, retryable, reason)
    assert "retryAfterMs" not in error


def test_what_is_switched_off_says_so() -> None:
    container = RevalidationContainer(switches=Switches(off=frozenset({"mqtt"})))
    container.subscribed()
    assert container.run() == 1
    assert [frame["reason"] for frame in container.sender.sent["c"]] == ["disabled"] * 2


def test_a_page_that_lost_everything_subscribes_on_the_same_connection() -> None:
    """Ending everything a hundred times costs no handshake, and no more than a place of the address."""
    container = RevalidationContainer()
    container.subscribed()
    for _ in range(10):
        container.revoke()
        assert container.run() == 1
        container.clock.advance(3600 / 10)
        container.run(Task(TaskKind.FULL))
        assert container.sender.closed == [] and not container.connections.rows["c"].subscriptions
        assert sum(map(len, container.caps.holders.values())) == 0
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
        assert container.subscriptions.rows[KEY].live


def test_who_was_ended_leaves_room_for_others() -> None:
    """A dashboard that is full of viewers whose link was replaced is open to those with the new one."""
    container = RevalidationContainer(per_dashboard=2)
    for name in ("a", "b"):
        container.subscribed(name)
    container.revoke()
    assert container.run() == 2 and set(container.connections.rows) == {"a", "b"}
    for name in ("c", "d"):
        container.open(name)
        container.subscribe(name, DASHBOARD, DATASOURCE, container.token())
    assert {row.key.connection_id for row in container.subscriptions.rows.values() if row.live} == {"c", "d"}


def test_a_subscribe_meanwhile_keeps_its_place() -> None:
    container = RevalidationContainer()
    container.subscribed()
    container.revoke()
    give_back, given = container.caps.give_back, []

    def meanwhile(*args: Any) -> bool:
        container.caps.give_back = give_back  # type: ignore[method-assign]
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
        given.append(give_back(*args))
        return given[-1]

    container.caps.give_back = meanwhile  # type: ignore[method-assign, assignment]
    assert container.run() == 1 and given == [False]
    assert container.subscriptions.rows[KEY].live
    assert [holders for holders in container.caps.holders.values() if holders] == [{"c"}]
    assert len(container.connections.rows["c"].slots) == 1


@pytest.mark.parametrize("how", ["acl", "inactive", "password"])
def test_signed_in_viewers(how: str) -> None:
    container = RevalidationContainer()
    container.subscribed("c", user="member")
    container.subscribed("other")
    match how:
        case "acl":
            container.change(acl={})
            task = PASS
        case "inactive":
            container.access.users["member"] = UserAccess("member", Role.VIEWER, False, 1)
            task = Task(TaskKind.USER, "member")
        case _:
            container.access.users["member"] = UserAccess("member", Role.VIEWER, True, 2)
            task = Task(TaskKind.USER, "member")
    assert container.run(task) == 1
    assert [key.connection_id for key in container.subscriptions.rows] == ["other"]


@pytest.mark.parametrize("dies_after", [None, 0, 1], ids=["lives", "dies at once", "dies after one"])
def test_what_a_deactivated_owner_shows_to_guests_is_checked(dies_after: int | None) -> None:
    container = RevalidationContainer()
    container.subscribed("guest")
    container.subscribed("member", user="member")
    shown = replace(container.access.dashboards[DASHBOARD], dashboard_id="second")
    container.access.dashboards |= {"second": shown, "mine": replace(shown, visibility=Visibility.PRIVATE)}
    task = Task(TaskKind.USER, "owner", since_ms=7)
    assert container.run(task) == 0 and container.tasks.queued == [], "an active owner's are left alone"
    container.access.users["owner"] = UserAccess("owner", Role.EDITOR, False, 2)
    queue, queued = container.tasks.queue, container.tasks.queued
    if dies_after is not None:

        def dying(task: Task, delay_s: int = 0) -> None:
            if len(queued) == dies_after:
                raise Died
            queue(task, delay_s)

        container.tasks.queue = dying  # type: ignore[method-assign]
        with pytest.raises(Died):
            container.run(task)
        container.tasks.queue = queue  # type: ignore[method-assign]
    container.run(task)
    tasks = [asked for asked, _delay_s in queued]
    assert {found.target for found in tasks} == {DASHBOARD, "second"}
    assert {(found.kind, found.since_ms) for found in tasks} == {(TaskKind.DASHBOARD, 7)}
    assert container.run(PASS) == 1
    assert [key.connection_id for key in container.subscriptions.rows] == ["member"], "a member needs no owner"
    error = container.sender.sent["guest"][0]
    assert (error["errorCode"], error["retryable"]) == ("STREAM_AUTH_FAILED", False)


def test_what_cannot_be_checked_is_kept_and_counted() -> None:
    container = RevalidationContainer()
    container.subscribed()
    container.revoke()

    def down(*_args: object) -> object:
        raise Unavailable("down")

    container.access.read = down  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        container.run()
    assert container.subscriptions.rows[KEY].live and container.sender.sent == {}
    assert container.observer.counts[("indeterminate",)] == 1


def test_expiry_gives_way_to_a_refresh() -> None:
    container = RevalidationContainer()
    container.subscribed(ttl=10)
    container.clock.advance(11)
    terminations = container.evaluate(list(container.subscriptions.rows.values()))
    row = container.subscriptions.rows[KEY]
    later = replace(row, claim=replace(row.claim, expires_at=row.claim.expires_at + 300))
    container.subscriptions.rows[KEY] = later  # the refresh that came in between
    assert container.terminate(terminations, container.clock.monotonic() + 10) == 0
    assert container.subscriptions.rows[KEY].live and container.sender.sent == {}


def test_a_hidden_row_is_cut_before_its_attempt_can_show_it() -> None:
    container = RevalidationContainer()
    container.subscribed()
    hidden = replace(container.subscriptions.rows[KEY], visible=False)
    container.subscriptions.rows[KEY] = hidden
    container.revoke()
    assert container.run() == 1
    assert not container.subscriptions.make_visible(hidden) and KEY not in container.subscriptions.rows


def test_a_viewer_gone_meanwhile_is_released() -> None:
    container = RevalidationContainer()
    container.subscribed()
    container.revoke()
    container.sender.answers["c"] = Delivery.GONE
    assert container.run() == 1
    assert not container.subscriptions.rows and not container.connections.rows


def test_time_that_runs_out_is_queued_again() -> None:
    container = RevalidationContainer()
    container.subscribed()
    container.revoke()
    assert container.run(seconds=0) == 0
    assert container.tasks.queued == [(PASS, 0)] and container.subscriptions.rows[KEY].live


# --- the process dies after every single write ------------------------------------------------------------


WRITES = [
    ("subscriptions", "claim_termination"),
    ("sender", "post_many"),
    ("subscriptions", "remove"),
    ("caps", "give_back"),
]
#: Of a viewer who turns out to be gone.
WRITES_OF_GONE = [("connections", "remove"), ("subscriptions", "remove_all_of"), ("sender", "close")]


@pytest.mark.parametrize("answer_lost", [False, True])
@pytest.mark.parametrize(("store", "method"), [*WRITES, *WRITES_OF_GONE])
def test_a_crash_after_any_write_repeats_harmlessly(store: str, method: str, answer_lost: bool) -> None:
    container = RevalidationContainer()
    container.subscribed("c")
    container.subscribed("valid", user="member")
    container.revoke()
    gone = (store, method) in WRITES_OF_GONE
    if gone:
        container.sender.answers["c"] = Delivery.GONE
    target = getattr(container, store)
    original = getattr(target, method)
    left = [True]

    def dying(*args: object, **options: object) -> object:
        result = original(*args, **options)
        if left:
            left.pop()
            raise Unavailable("the answer was lost") if answer_lost else Died
        return result

    setattr(target, method, dying)
    # A place that cannot be given back is counted, and the rest goes on.
    with nullcontext() if answer_lost and store == "caps" else pytest.raises((Unavailable, Died)):
        container.run()
    assert not left
    assert container.run() == 0 or store != "subscriptions", "what another run marked is left to it"
    container.clock.advance(TERMINATION_CLAIM_S)
    container.run()
    # Nobody is left subscribed, and nobody valid was told anything.
    assert [key.connection_id for key in container.subscriptions.rows] == ["valid"]
    assert "valid" not in container.sender.sent and "valid" in container.connections.rows
    assert gone or any(frame["type"] == "error" for frame in container.sender.sent["c"]), "the viewer heard of it"
    if "c" in container.connections.rows:
        assert not container.connections.rows["c"].subscriptions


# --- a mark is one run's right ----------------------------------------------------------------------------


def test_two_runs_over_one_row_tell_once() -> None:
    container = RevalidationContainer()
    container.subscribed()
    container.revoke()
    terminations = container.evaluate(list(container.subscriptions.rows.values()))
    post_many = container.sender.post_many

    def meanwhile(*args: Any, **options: Any) -> Any:
        container.sender.post_many = post_many  # type: ignore[method-assign]
        assert container.terminate(terminations, container.clock.monotonic() + 10) == 0, "it is another run's to tell"
        return post_many(*args, **options)

    container.sender.post_many = meanwhile  # type: ignore[method-assign]
    assert container.terminate(terminations, container.clock.monotonic() + 10) == 1
    assert [frame["type"] for frame in container.sender.sent["c"]] == ["error", "status"]


def test_what_a_dead_run_marked_is_looked_at_again() -> None:
    container = RevalidationContainer()
    container.subscribed()
    container.revoke()
    container.subscriptions.claim_termination(
        container.subscriptions.rows[KEY], TerminationClaim("dead", int(container.clock.now()))
    )
    assert container.run() == 0 and container.tasks.queued == [(PASS, TERMINATION_CLAIM_S)]
    container.clock.advance(TERMINATION_CLAIM_S)
    assert container.run() == 1 and KEY not in container.subscriptions.rows
    container.tasks.queued.clear()
    assert container.run() == 0 and container.tasks.queued == []


def test_a_run_that_was_too_slow_does_not_tell() -> None:
    container = RevalidationContainer()
    container.subscribed()
    container.revoke()
    mark = container.subscriptions.claim_termination

    def slowly(*args: Any, **options: Any) -> bool:
        done = mark(*args, **options)
        container.clock.advance(NOTIFY_WITHIN_S)
        return done

    container.subscriptions.claim_termination = slowly  # type: ignore[method-assign]
    assert container.run() == 0 and container.sender.sent == {}
    assert not container.subscriptions.rows[KEY].live, "and yet it is sent nothing"
    container.subscriptions.claim_termination = mark  # type: ignore[method-assign]
    container.clock.advance(TERMINATION_CLAIM_S)
    assert container.run() == 1 and len(container.sender.sent["c"]) == 2


def test_a_row_that_is_being_ended_is_not_unsubscribed() -> None:
    container = RevalidationContainer()
    container.subscribed()
    container.subscriptions.claim_termination(
        container.subscriptions.rows[KEY], TerminationClaim("run", int(container.clock.now()))
    )
    unsubscribe = Unsubscribe(
        connections=container.connections, subscriptions=container.subscriptions, observer=container.observer
    )
    unsubscribe("c", DATASOURCE)
    assert KEY in container.subscriptions.rows, "were it gone, the viewer could come back before it was told"
