from __future__ import annotations

from dataclasses import replace

import pytest

from tests.containers.gateway import DASHBOARD
from tests.containers.remote_api import HOUR, INTENT, KEY, SSE, RemoteApiContainer
from tidegate.domain.access import Refusal
from tidegate.domain.remote_api import IntrospectionKey
from tidegate.domain.revocations import Task, TaskKind
from tidegate.errors import (
    ApiBusy,
    ApiTimeout,
    Denied,
    InvalidInput,
    NotFound,
    TidegateError,
    Unauthenticated,
    Unavailable,
)
from tidegate.usecases.remote_api.reintrospect import SKEW_S


def test_one_question_for_a_class_with_its_freshest_token() -> None:
    world = RemoteApiContainer()
    for number in range(20):
        world.subscribed(f"c{number}", ttl=100 + number)
    world.subscribed("member", user="member")
    freshest = max(world.rows(), key=lambda row: row.claim.expires_at if row.claim.principal.is_public else 0)
    world.api.asked.clear()
    assert world.check() == []
    assert len(world.api.asked) == 2 and freshest.session_token in world.api.asked
    assert world.check() == [] and len(world.api.asked) == 2, "the same pass, another batch"
    assert world.check(anew=True) == [] and len(world.api.asked) == 4
    world.clock.advance(60)
    assert world.check() == [] and len(world.api.asked) == 6


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (Denied("x"), Refusal.REVOKED),
        (NotFound("x"), Refusal.REVOKED),
        (Unauthenticated("x"), Refusal.REVOKED),
        (InvalidInput("x", code="not_streamable"), Refusal.INTENT_CHANGED),
    ],
)
def test_an_answer_ends_its_class_and_no_other(error: TidegateError, refusal: Refusal) -> None:
    world = RemoteApiContainer()
    world.subscribed("c1")
    world.subscribed("c2")
    world.subscribed("member", user="member")
    of_member = {row.session_token for row in world.rows() if row.key.connection_id == "member"}
    world.api.answer = lambda token: INTENT if token in of_member else error
    assert world.check() == [("c1", refusal), ("c2", refusal)]
    assert world.terminate(world.again(world.rows(), HOUR * 10**6), HOUR * 10**6) == 2
    assert [row.key.connection_id for row in world.rows()] == ["member"]
    assert [one["retryable"] for one in world.frames("error", "c1")] == [refusal.retryable]


@pytest.mark.parametrize("changes", [{"headers": {"Authorization": "Bearer another"}}, {"url": "https://x.example/"}])
def test_whoever_watches_what_is_connected_to_otherwise_now_is_told_to_come_back(changes: dict[str, object]) -> None:
    world = RemoteApiContainer()
    world.api.answer = lambda token: SSE
    world.subscribed("c1")
    assert world.check() == []
    world.api.answer = lambda token: SSE | changes
    assert world.check(anew=True) == [("c1", Refusal.INTENT_CHANGED)]
    world.subscribed("c2")
    assert world.check(anew=True) == [("c1", Refusal.INTENT_CHANGED)] * 1, "not who came since"


@pytest.mark.parametrize("error", [Unavailable("x"), ApiTimeout("x"), ApiBusy("x")])
def test_no_answer_keeps_everybody_and_is_counted(error: TidegateError) -> None:
    world = RemoteApiContainer()
    for number in range(3):
        world.subscribed(f"c{number}")
    world.api.answer = lambda token: error
    assert world.check() == [] and world.observer.counts[("indeterminate",)] == 3
    assert world.observer.counts[("introspections", error.code)] == 1


def members(world: RemoteApiContainer, count: int) -> None:
    """Viewers of a class each."""
    for number in range(count):
        world.subscribed(f"c{number}", user=f"user{number}")
    world.api.asked.clear()


def test_an_api_that_is_asked_too_often_is_left_alone() -> None:
    world = RemoteApiContainer()
    members(world, 40)
    world.api.answer = lambda token: ApiBusy("x")
    assert world.check() == []
    asked = len(world.api.asked)
    assert asked <= 8, "only questions already on their way"
    assert world.check() == [] and len(world.api.asked) == asked, "nor in the next batch"
    assert world.observer.counts[("indeterminate",)] == 80
    world.clock.advance(61)
    world.api.answer = lambda token: INTENT
    assert world.check() == [] and len(world.api.asked) == asked + 40


def test_an_api_that_is_down_does_not_hold_up_the_pass() -> None:
    world = RemoteApiContainer()
    members(world, 60)
    world.api.answer = lambda token: ApiTimeout("x")
    world.check()
    assert 5 <= len(world.api.asked) <= 13


def test_subscribes_are_left_their_share_of_the_limit() -> None:
    world = RemoteApiContainer(per_minute=10)
    members(world, 25)
    world.clock.advance(60 - world.clock.now() % 60)
    seen: set[str] = set()
    for _ in range(4):
        before = len(world.api.asked)
        world.check(anew=True)
        assert len(world.api.asked) == before + 10
        seen |= set(world.api.asked)
        world.clock.advance(60)
    assert len(seen) > 10, "not always the same ones"
    assert world.observer.counts[("indeterminate",)] == 4 * 15


def test_nothing_is_asked_after_the_deadline() -> None:
    world = RemoteApiContainer()
    members(world, 3)
    assert world.again(world.rows(), world.clock.monotonic()) == [] and world.api.asked == []
    assert world.observer.counts[("indeterminate",)] == 3


def test_a_token_about_to_end_is_not_asked_about() -> None:
    world = RemoteApiContainer()
    world.subscribed(ttl=SKEW_S)
    world.api.answer = lambda token: Unauthenticated("expired by the API's clock")
    world.api.asked.clear()
    assert world.check() == [] and world.api.asked == [] and ("indeterminate",) not in world.observer.counts


def test_a_row_without_a_token_is_kept_and_counted() -> None:
    world = RemoteApiContainer()
    world.subscribed()
    world.subscriptions.rows[KEY] = replace(world.subscriptions.rows[KEY], session_token=None)
    world.api.answer = lambda token: Denied("x")
    assert world.check() == [] and world.observer.counts[("indeterminate",)] == 1


def test_classes_are_what_the_api_answers_alike() -> None:
    world = RemoteApiContainer()
    world.subscribed("c1")
    world.subscribed("c2", ttl=10)
    world.subscribed("c3", share_version=2)
    world.subscribed("c4", user="member")
    world.subscribed("c5", intent_hash="another")
    classes = [IntrospectionKey.of(row.claim) for row in world.rows()]
    assert classes[0] == classes[1] and len(set(classes)) == 4


# --- in the passes -----------------------------------------------------------------------------------------

FULL = Task(TaskKind.FULL)


def test_the_full_pass_asks_once_for_a_class_however_many_pages() -> None:
    world = RemoteApiContainer()
    for number in range(60):
        world.subscribed(f"c{number}")
    world.subscribed("member", user="member")
    world.remote.raise_to(DASHBOARD, 1)
    world.api.asked.clear()
    assert world.run(FULL) == 0 and len(world.api.asked) == 2
    assert world.observer.counts[("full_revalidations",)] == 1 and ("indeterminate",) not in world.observer.counts


def test_the_full_pass_cuts_whom_feed_or_api_refuse_and_asks_for_neither_twice() -> None:
    world = RemoteApiContainer()
    world.subscribed("stale")
    world.remote.raise_to(DASHBOARD, 2)
    world.subscribed("guest", share_version=2)
    world.subscribed("member", user="member")
    of_member = {row.session_token for row in world.rows() if row.key.connection_id == "member"}
    world.api.answer = lambda token: Denied("x") if token in of_member else INTENT
    world.api.asked.clear()
    assert world.run(FULL) == 2 and [row.key.connection_id for row in world.rows()] == ["guest"]
    assert len(world.api.asked) == 2, "what the feed told needs no question"
    assert {one: frames[0]["retryable"] for one, frames in world.sender.sent.items()} == {
        "stale": False,
        "member": False,
    }


def test_the_full_pass_ends_though_the_api_is_down() -> None:
    world = RemoteApiContainer()
    for number in range(10):
        world.subscribed(f"c{number}")
    world.api.answer = lambda token: Unavailable("down")
    assert world.run(FULL) == 0 and len(world.rows()) == 10 and not world.sender.sent
    assert world.observer.counts[("indeterminate",)] == 10 and world.observer.counts[("full_revalidations",)] == 1


def test_an_event_of_a_dashboard_asks_again_about_those_it_does_not_name() -> None:
    world = RemoteApiContainer()
    world.subscribed("guest")
    world.subscribed("member", user="member")
    world.run(FULL)
    of_member = {row.session_token for row in world.rows() if row.key.connection_id == "member"}
    world.api.answer = lambda token: Denied("x") if token in of_member else INTENT
    assert world.run(Task(TaskKind.DASHBOARD, DASHBOARD)) == 1, "a yes of just now does not stand against an event"
    assert [row.key.connection_id for row in world.rows()] == ["guest"]
    assert world.tasks.queued == []
    assert world.run(Task(TaskKind.DASHBOARD, DASHBOARD), seconds=0) == 0
    assert world.tasks.queued == [(Task(TaskKind.DASHBOARD, DASHBOARD), 0)], "not asked in time: later"
