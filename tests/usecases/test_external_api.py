"""The gateway's use cases with an external API behind them, which tests let say anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.usecases.gateway_world import DASHBOARD, DATASOURCE, GatewayWorld
from tidegate.adapters.memory.stores import MemoryAttestedAccess
from tidegate.domain.access import Refusal
from tidegate.domain.errors import (
    ApiBusy,
    ApiTimeout,
    CouldNotCheck,
    Denied,
    InvalidInput,
    NotFound,
    PolicyBlocked,
    TidegateError,
    Unauthenticated,
)
from tidegate.domain.external_api import ExternalPage, Introspected, ShareRevoked, TokenClass
from tidegate.domain.limits import FailureMode, RateDecision
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.stream_policy import StreamPolicy
from tidegate.domain.subscriptions import Subscription, SubscriptionKey
from tidegate.usecases.cut_viewers import CutViewers
from tidegate.usecases.follow_external_feed import FollowExternalFeed
from tidegate.usecases.grant_external import ExternalGrant
from tidegate.usecases.judge import Judge
from tidegate.usecases.reintrospect import SKEW_S, Reintrospect

KEY = SubscriptionKey(DASHBOARD, "c", DATASOURCE)
INTENT: dict[str, object] = {
    "protocol": "mqtt",
    "topic": "a/b",
    "brokerProfileId": "b",
    "transport": "iot-core",
    "parser": "json",
    "topicAllowlist": [],
    "username": "u",
    "password": "pw-7",
}
HOUR = 3600.0


class Api:
    """`external_ports.Introspections`; `answer` is an intent, or an error to raise."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[str], dict[str, object] | Exception] = lambda token: INTENT

    def introspect(self, token: str, dashboard_id: str, datasource_id: str) -> Introspected:
        self.asked.append(token)
        answer = self.answer(token)
        if isinstance(answer, Exception):
            raise answer
        return Introspected(answer)


class ExternalWorld(GatewayWorld):
    """The same gateway, asking `api`."""

    def __init__(self, per_minute: int = 300) -> None:
        super().__init__()
        self.api, self.attested = Api(), MemoryAttestedAccess()
        policy = StreamPolicy(frozenset({"mqtt", "sse"}), ("a/#",))
        self.subscribe._grant = ExternalGrant(
            introspections=self.api, access=self.attested, policy=policy, observer=self.observer
        )
        self.fan_out._access._access = self.attested
        self.judge = Judge(access=self.attested, clock=self.clock, observer=self.observer)
        self.again = Reintrospect(
            introspections=self.api, per_minute=per_minute, clock=self.clock, observer=self.observer
        )
        self.cut = CutViewers(
            subscriptions=self.subscriptions,
            connections=self.connections,
            sender=self.sender,
            end_connection=self.end_connection,
            clock=self.clock,
            observer=self.observer,
        )

    def rows(self) -> list[Subscription]:
        return list(self.subscriptions.rows.values())

    def check(self, *, anew: bool = False) -> list[tuple[str, Refusal]]:
        """Who would be cut, by connection."""
        judged = self.again(self.rows(), self.clock.monotonic() + HOUR, anew=anew)
        return sorted((row.key.connection_id, refusal) for row, refusal in judged)


# --- subscribing -------------------------------------------------------------------------------------------


def test_a_subscribe_asks_and_keeps_the_token_out_of_sight() -> None:
    world = ExternalWorld()
    world.open()
    token = world.token()
    world.subscribe("c", DASHBOARD, DATASOURCE, token)
    row = world.subscriptions.rows[KEY]
    assert world.api.asked == [token] and row.live and row.session_token == token
    assert token not in repr(row) and "pw-7" not in repr(row)
    assert world.publish() == 1
    assert world.observer.counts[("introspections", "granted")] == 1


def test_a_refresh_keeps_the_newest_token_only() -> None:
    world = ExternalWorld()
    world.open()
    first, newest, older = world.token(ttl=100), world.token(ttl=300), world.token(ttl=200)
    for token in (first, newest, older):
        world.subscribe("c", DASHBOARD, DATASOURCE, token)
    row = world.subscriptions.rows[KEY]
    assert row.session_token == newest and row.claim.expires_at == int(world.clock.now()) + 300
    assert len(world.api.asked) == 3, "every refresh is asked about"


@pytest.mark.parametrize(
    "error",
    [
        Denied("x"),
        NotFound("x"),
        Unauthenticated("x"),
        InvalidInput("x"),
        CouldNotCheck("x"),
        ApiTimeout("x"),
        ApiBusy("x"),
    ],
)
def test_a_refusal_admits_nobody_and_ends_nobody(error: TidegateError) -> None:
    world = ExternalWorld()
    world.open()
    world.api.answer = lambda token: error
    with pytest.raises(type(error)):
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    assert not world.subscriptions.rows
    world.api.answer = lambda token: INTENT
    world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    world.api.answer = lambda token: error
    with pytest.raises(type(error)):
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    assert world.subscriptions.rows[KEY].live
    assert world.observer.counts[("introspections", error.code)] == 2


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"topic": "elsewhere"}, PolicyBlocked),
        ({"topicAllowlist": ["a/c"]}, PolicyBlocked),
        ({"topic": "a/#/b"}, PolicyBlocked),
        ({"protocol": "http"}, PolicyBlocked),
        ({"protocol": "sse", "url": "https://x.example"}, PolicyBlocked),
        ({"transport": "external"}, PolicyBlocked),
        ({"transport": None}, PolicyBlocked),
        ({"topic": None}, CouldNotCheck),
        ({"brokerProfileId": 7}, CouldNotCheck),
        ({"topicAllowlist": "a/#"}, CouldNotCheck),
        ({"topicAllowlist": [1]}, CouldNotCheck),
        ({"protocol": None}, CouldNotCheck),
    ],
)
def test_what_an_intent_has_to_be(changes: dict[str, object], kind: type[TidegateError]) -> None:
    world = ExternalWorld()
    world.open()
    world.api.answer = lambda token: INTENT | changes
    with pytest.raises(kind):
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    assert not world.subscriptions.rows


def test_secrets_are_no_part_of_a_streams_name_but_the_broker_is() -> None:
    policy = StreamPolicy(frozenset({"mqtt"}), ("a/#",))
    keys = [
        Introspected(INTENT | changes).stream(policy, 0).stream_key
        for changes in ({}, {"password": "another"}, {"brokerProfileId": "b2"}, {"parser": "text"})
    ]
    assert keys[0] == keys[1] and len(set(keys)) == 3


def test_a_revocation_that_the_feed_told_beats_an_older_answer() -> None:
    world = ExternalWorld()
    world.open()

    def revoked_meanwhile(token: str) -> dict[str, object]:
        world.attested.raise_to(DASHBOARD, 2)
        return INTENT

    world.api.answer = revoked_meanwhile
    with pytest.raises(Denied):
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    assert not world.subscriptions.rows
    world.subscribe("c", DASHBOARD, DATASOURCE, world.token(share_version=2))
    assert world.subscriptions.rows[KEY].live


def test_a_raised_version_withholds_and_cuts_guests_only() -> None:
    world = ExternalWorld()
    world.subscribed("guest")
    world.subscribed("member", user="member")
    world.attested.raise_to(DASHBOARD, 2)
    assert world.publish() == 1 and world.sender.data("member") == [1] and world.sender.data("guest") == []
    assert [(row.key.connection_id, why) for row, why in world.judge(world.rows())] == [("guest", Refusal.REVOKED)]


def test_a_token_without_an_intent_is_of_the_one_told() -> None:
    world = ExternalWorld()
    world.open()
    world.subscribe("c", DASHBOARD, DATASOURCE, world.token(intent_hash=None))
    first = world.subscriptions.rows[KEY]
    world.api.answer = lambda token: INTENT | {"topic": "a/c"}
    world.subscribe("c", DASHBOARD, DATASOURCE, world.token(intent_hash=None))
    second = world.subscriptions.rows[KEY]
    assert first.attempt != second.attempt and first.stream != second.stream, "not a refresh: another datasource"


# --- asking again ------------------------------------------------------------------------------------------


def test_one_question_for_a_class_with_its_freshest_token() -> None:
    world = ExternalWorld()
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
    world = ExternalWorld()
    world.subscribed("c1")
    world.subscribed("c2")
    world.subscribed("member", user="member")
    of_member = {row.session_token for row in world.rows() if row.key.connection_id == "member"}
    world.api.answer = lambda token: INTENT if token in of_member else error
    assert world.check() == [("c1", refusal), ("c2", refusal)]
    assert world.cut(world.again(world.rows(), HOUR * 10**6), HOUR * 10**6) == 2
    assert [row.key.connection_id for row in world.rows()] == ["member"]
    assert [one["retryable"] for one in world.frames("error", "c1")] == [refusal.retryable]


@pytest.mark.parametrize("error", [CouldNotCheck("x"), ApiTimeout("x"), ApiBusy("x")])
def test_no_answer_keeps_everybody_and_is_counted(error: TidegateError) -> None:
    world = ExternalWorld()
    for number in range(3):
        world.subscribed(f"c{number}")
    world.api.answer = lambda token: error
    assert world.check() == [] and world.observer.counts[("indeterminate",)] == 3
    assert world.observer.counts[("introspections", error.code)] == 1


def members(world: ExternalWorld, count: int) -> None:
    """Viewers of a class each."""
    for number in range(count):
        world.subscribed(f"c{number}", user=f"user{number}")
    world.api.asked.clear()


def test_an_api_that_is_asked_too_often_is_left_alone() -> None:
    world = ExternalWorld()
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
    world = ExternalWorld()
    members(world, 60)
    world.api.answer = lambda token: ApiTimeout("x")
    world.check()
    assert 5 <= len(world.api.asked) <= 13


def test_subscribes_are_left_their_share_of_the_limit() -> None:
    world = ExternalWorld(per_minute=10)
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
    world = ExternalWorld()
    members(world, 3)
    assert world.again(world.rows(), world.clock.monotonic()) == [] and world.api.asked == []
    assert world.observer.counts[("indeterminate",)] == 3


def test_a_token_about_to_end_is_not_asked_about() -> None:
    world = ExternalWorld()
    world.subscribed(ttl=SKEW_S)
    world.api.answer = lambda token: Unauthenticated("expired by the API's clock")
    world.api.asked.clear()
    assert world.check() == [] and world.api.asked == [] and ("indeterminate",) not in world.observer.counts


def test_a_row_without_a_token_is_kept_and_counted() -> None:
    world = ExternalWorld()
    world.subscribed()
    world.subscriptions.rows[KEY] = replace(world.subscriptions.rows[KEY], session_token=None)
    world.api.answer = lambda token: Denied("x")
    assert world.check() == [] and world.observer.counts[("indeterminate",)] == 1


def test_classes_are_what_the_api_answers_alike() -> None:
    world = ExternalWorld()
    world.subscribed("c1")
    world.subscribed("c2", ttl=10)
    world.subscribed("c3", share_version=2)
    world.subscribed("c4", user="member")
    world.subscribed("c5", intent_hash="another")
    classes = [TokenClass.of(row.claim) for row in world.rows()]
    assert classes[0] == classes[1] and len(set(classes)) == 4


# --- the feed ----------------------------------------------------------------------------------------------


class Feed:
    """The API's feed, our cursor, the queue and the lease in one; cursors are numbers as text."""

    def __init__(self) -> None:
        self.events: list[ShareRevoked] = []
        self.position: str | None = None
        self.tasks: list[Task] = []
        self.due = 0
        self.expire_next = False
        self.log: list[str] = []

    def read(self, cursor: str | None, limit: int) -> ExternalPage:
        start = 0 if cursor is None else int(cursor)
        expired, self.expire_next = self.expire_next, False
        end = min(start + limit, len(self.events))
        return ExternalPage(tuple(self.events[start:end]), str(end), expired)

    def cursor(self) -> str | None:
        return self.position

    def move_cursor(self, old: str | None, new: str) -> bool:
        self.log.append("move")
        if self.position != old:
            return False
        self.position = new
        return True

    def queue(self, task: Task, delay_s: int = 0) -> None:
        self.log.append(f"queue {task.kind.value}")
        self.tasks.append(task)

    def make_due(self) -> None:
        self.log.append("due")
        self.due += 1


class Versions(MemoryAttestedAccess):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self._log = log

    def raise_to(self, dashboard_id: str, version: int) -> None:
        self._log.append("raise")
        super().raise_to(dashboard_id, version)


class FeedWorld:
    def __init__(self, batch: int = 100) -> None:
        self.feed = Feed()
        self.versions = Versions(self.feed.log)
        self.observer = GatewayWorld().observer
        self.follow = FollowExternalFeed(
            feed=self.feed,
            cursors=self.feed,
            versions=self.versions,
            full_passes=self.feed,
            tasks=self.feed,
            batch=batch,
            observer=self.observer,
        )

    def add(self, count: int) -> None:
        start = len(self.feed.events)
        self.feed.events += [ShareRevoked(f"d{number}", number + 1) for number in range(start, start + count)]

    def applied(self) -> bool:
        """Every event's version is raised and its dashboard's task queued."""
        queued = {task.target for task in self.feed.tasks if task.kind is TaskKind.DASHBOARD}
        return all(
            self.versions.revoked_below.get(event.dashboard_id, 0) >= event.share_version
            and event.dashboard_id in queued
            for event in self.feed.events
        )


def test_versions_rise_before_tasks_are_queued_before_the_cursor_moves() -> None:
    world = FeedWorld()
    world.add(1)
    assert world.follow() == 1 and world.feed.log == ["raise", "queue dashboard", "move"]
    world.feed.log.clear()
    assert world.follow() == 0 and world.feed.log == [], "nothing new writes nothing"


def test_one_task_for_a_dashboard_and_its_highest_version() -> None:
    world = FeedWorld()
    world.feed.events = [ShareRevoked("d", version) for version in (4, 7, 5)]
    assert world.follow() == 3
    assert world.versions.revoked_below == {"d": 7} and world.feed.tasks == [Task(TaskKind.DASHBOARD, "d")]
    world.feed.events.append(ShareRevoked("d", 3))
    world.follow()
    assert world.versions.revoked_below == {"d": 7}, "it only grows"


def test_full_batches_are_continued_at_once_and_a_flood_by_the_next_run() -> None:
    world = FeedWorld(batch=10)
    world.add(95)
    assert world.follow() == 95 and world.applied()
    assert world.observer.counts[("events_polled",)] == 95
    flood = FeedWorld(batch=1)
    flood.add(60)
    assert flood.follow() == 50 and flood.feed.tasks[-1] == Task(TaskKind.POLL)
    assert flood.follow() == 10 and flood.applied()


def test_an_expired_cursor_is_a_full_pass_before_the_cursor_moves() -> None:
    world = FeedWorld()
    world.add(1)
    world.feed.expire_next = True
    world.follow()
    assert world.feed.log == ["due", "queue full", "raise", "queue dashboard", "move"]
    assert world.observer.counts[("cursor_expired",)] == 1 and world.feed.due == 1


def test_another_reader_that_is_further_goes_on() -> None:
    world = FeedWorld(batch=1)
    world.add(3)
    read = world.feed.read

    def overtaken(cursor: str | None, limit: int) -> ExternalPage:
        page = read(cursor, limit)
        world.feed.position = "3"
        return page

    world.feed.read = overtaken  # type: ignore[method-assign]
    assert world.follow() == 1 and world.feed.position == "3"


@pytest.mark.parametrize("answer_lost", [False, True])
@pytest.mark.parametrize("step", range(13))
def test_no_event_is_ever_skipped(step: int, answer_lost: bool) -> None:
    """The process dies before, or loses the answer of, every single write."""
    world = FeedWorld(batch=2)
    world.add(5)
    world.feed.expire_next = step == 0
    left = [step]

    def dying(target: object, method: str) -> None:
        original = getattr(target, method)

        def call(*args: Any) -> object:
            left[0] -= 1
            if left[0] == -1 and not answer_lost:
                raise CouldNotCheck("died before")
            result = original(*args)
            if left[0] == -1:
                raise CouldNotCheck("the answer was lost")
            return result

        setattr(target, method, call)

    dying(world.versions, "raise_to")
    for method in ("queue", "move_cursor", "make_due"):
        dying(world.feed, method)
    with pytest.raises(CouldNotCheck):
        world.follow()
    done = world.feed.events[: int(world.feed.position or 0)]
    assert all(world.versions.revoked_below.get(one.dashboard_id) for one in done), "applied before the cursor moved"
    world.follow()
    assert world.applied() and world.feed.position == "5"


# --- the limiter -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(FailureMode))
def test_what_another_admitted_uncounted_is_admitted_and_counted_so(mode: FailureMode) -> None:
    world = GatewayWorld(failure_mode=mode)
    world.rate_store.count = lambda *_args: RateDecision(True, 9, 0, counted=False)  # type: ignore[method-assign]
    assert world.rates.consume("s", "k", 10).allowed
    counts = world.observer.counts
    assert counts[("limiter", "backend_error", "s")] == counts[("limiter", "fail_open", "s")] == 1
    assert ("limiter", "allowed", "s") not in counts
