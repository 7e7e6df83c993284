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
    container = RemoteApiContainer()
    for number in range(20):
        container.subscribed(f"c{number}", ttl=100 + number)
    container.subscribed("member", user="member")
    freshest = max(container.rows(), key=lambda row: row.claim.expires_at if row.claim.principal.is_public else 0)
    container.api.asked.clear()
    assert container.check() == []
    assert len(container.api.asked) == 2 and freshest.session_token in container.api.asked
    assert container.check() == [] and len(container.api.asked) == 2, "the same pass, another batch"
    assert container.check(anew=True) == [] and len(container.api.asked) == 4
    container.clock.advance(60)
    assert container.check() == [] and len(container.api.asked) == 6


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
    container = RemoteApiContainer()
    container.subscribed("c1")
    container.subscribed("c2")
    container.subscribed("member", user="member")
    of_member = {row.session_token for row in container.rows() if row.key.connection_id == "member"}
    container.api.answer = lambda token: INTENT if token in of_member else error
    assert container.check() == [("c1", refusal), ("c2", refusal)]
    assert container.terminate(container.again(container.rows(), HOUR * 10**6), HOUR * 10**6) == 2
    assert [row.key.connection_id for row in container.rows()] == ["member"]
    assert [frame["retryable"] for frame in container.frames("error", "c1")] == [refusal.retryable]


@pytest.mark.parametrize("changes", [{"headers": {"Authorization": "Bearer another"}}, {"url": "https://x.example/"}])
def test_whoever_watches_what_is_connected_to_otherwise_now_is_told_to_come_back(changes: dict[str, object]) -> None:
    container = RemoteApiContainer()
    container.api.answer = lambda token: SSE
    container.subscribed("c1")
    assert container.check() == []
    container.api.answer = lambda token: SSE | changes
    assert container.check(anew=True) == [("c1", Refusal.INTENT_CHANGED)]
    container.subscribed("c2")
    assert container.check(anew=True) == [("c1", Refusal.INTENT_CHANGED)] * 1, "not who came since"


@pytest.mark.parametrize("error", [Unavailable("x"), ApiTimeout("x"), ApiBusy("x")])
def test_no_answer_keeps_everybody_and_is_counted(error: TidegateError) -> None:
    container = RemoteApiContainer()
    for number in range(3):
        container.subscribed(f"c{number}")
    container.api.answer = lambda token: error
    assert container.check() == [] and container.observer.counts[("indeterminate",)] == 3
    assert container.observer.counts[("introspections", error.code)] == 1


def members(container: RemoteApiContainer, count: int) -> None:
    """Viewers of a class each."""
    for number in range(count):
        container.subscribed(f"c{number}", user=f"user{number}")
    container.api.asked.clear()


def test_an_api_that_is_asked_too_often_is_left_alone() -> None:
    container = RemoteApiContainer()
    members(container, 40)
    container.api.answer = lambda token: ApiBusy("x")
    assert container.check() == []
    asked = len(container.api.asked)
    assert asked <= 8, "only questions already on their way"
    assert container.check() == [] and len(container.api.asked) == asked, "nor in the next batch"
    assert container.observer.counts[("indeterminate",)] == 80
    container.clock.advance(61)
    container.api.answer = lambda token: INTENT
    assert container.check() == [] and len(container.api.asked) == asked + 40


def test_an_api_that_is_down_does_not_hold_up_the_pass() -> None:
    container = RemoteApiContainer()
    members(container, 60)
    container.api.answer = lambda token: ApiTimeout("x")
    container.check()
    assert 5 <= len(container.api.asked) <= 13


def test_subscribes_are_left_their_share_of_the_limit() -> None:
    container = RemoteApiContainer(per_minute=10)
    members(container, 25)
    container.clock.advance(60 - container.clock.now() % 60)
    seen: set[str] = set()
    for _ in range(4):
        before = len(container.api.asked)
        container.check(anew=True)
        assert len(container.api.asked) == before + 10
        seen |= set(container.api.asked)
        container.clock.advance(60)
    assert len(seen) > 10, "not always the same ones"
    assert container.observer.counts[("indeterminate",)] == 4 * 15


def test_nothing_is_asked_after_the_deadline() -> None:
    container = RemoteApiContainer()
    members(container, 3)
    assert container.again(container.rows(), container.clock.monotonic()) == [] and container.api.asked == []
    assert container.observer.counts[("indeterminate",)] == 3


def test_a_token_about_to_end_is_not_asked_about() -> None:
    container = RemoteApiContainer()
    container.subscribed(ttl=SKEW_S)
    container.api.answer = lambda token: Unauthenticated("expired by the API's clock")
    container.api.asked.clear()
    assert container.check() == [] and container.api.asked == [] and ("indeterminate",) not in container.observer.counts


def test_a_row_without_a_token_is_kept_and_counted() -> None:
    container = RemoteApiContainer()
    container.subscribed()
    container.subscriptions.rows[KEY] = replace(container.subscriptions.rows[KEY], session_token=None)
    container.api.answer = lambda token: Denied("x")
    assert container.check() == [] and container.observer.counts[("indeterminate",)] == 1


def test_classes_are_what_the_api_answers_alike() -> None:
    container = RemoteApiContainer()
    container.subscribed("c1")
    container.subscribed("c2", ttl=10)
    container.subscribed("c3", share_version=2)
    container.subscribed("c4", user="member")
    container.subscribed("c5", intent_hash="another")
    classes = [IntrospectionKey.of(row.claim) for row in container.rows()]
    assert classes[0] == classes[1] and len(set(classes)) == 4


# --- in the passes -----------------------------------------------------------------------------------------

FULL = Task(TaskKind.FULL)


def test_the_full_revalidation_asks_once_for_a_class_however_many_pages() -> None:
    container = RemoteApiContainer()
    for number in range(60):
        container.subscribed(f"c{number}")
    container.subscribed("member", user="member")
    container.remote.raise_to(DASHBOARD, 1)
    container.api.asked.clear()
    assert container.run(FULL) == 0 and len(container.api.asked) == 2
    assert (
        container.observer.counts[("full_revalidations",)] == 1 and ("indeterminate",) not in container.observer.counts
    )


def test_the_full_revalidation_cuts_whom_feed_or_api_refuse_and_asks_for_neither_twice() -> None:
    container = RemoteApiContainer()
    container.subscribed("stale")
    container.remote.raise_to(DASHBOARD, 2)
    container.subscribed("guest", share_version=2)
    container.subscribed("member", user="member")
    of_member = {row.session_token for row in container.rows() if row.key.connection_id == "member"}
    container.api.answer = lambda token: Denied("x") if token in of_member else INTENT
    container.api.asked.clear()
    assert container.run(FULL) == 2 and [row.key.connection_id for row in container.rows()] == ["guest"]
    assert len(container.api.asked) == 2, "what the feed told needs no question"
    assert {connection_id: frames[0]["retryable"] for connection_id, frames in container.sender.sent.items()} == {
        "stale": False,
        "member": False,
    }


def test_the_full_revalidation_ends_though_the_api_is_down() -> None:
    container = RemoteApiContainer()
    for number in range(10):
        container.subscribed(f"c{number}")
    container.api.answer = lambda token: Unavailable("down")
    assert container.run(FULL) == 0 and len(container.rows()) == 10 and not container.sender.sent
    assert (
        container.observer.counts[("indeterminate",)] == 10 and container.observer.counts[("full_revalidations",)] == 1
    )


def test_an_event_of_a_dashboard_asks_again_about_those_it_does_not_name() -> None:
    container = RemoteApiContainer()
    container.subscribed("guest")
    container.subscribed("member", user="member")
    container.run(FULL)
    of_member = {row.session_token for row in container.rows() if row.key.connection_id == "member"}
    container.api.answer = lambda token: Denied("x") if token in of_member else INTENT
    assert container.run(Task(TaskKind.DASHBOARD, DASHBOARD)) == 1, "a yes of just now does not stand against an event"
    assert [row.key.connection_id for row in container.rows()] == ["guest"]
    assert container.tasks.queued == []
    assert container.run(Task(TaskKind.DASHBOARD, DASHBOARD), seconds=0) == 0
    assert container.tasks.queued == [(Task(TaskKind.DASHBOARD, DASHBOARD), 0)], "not asked in time: later"
