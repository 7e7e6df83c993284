"""How many upstreams one person's dashboards hold: exact, paid by each owner, and free again by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tests.containers.public_viewers import default_settings
from tests.containers.remote_api import SSE, RemoteApiContainer
from tests.doubles.platform import PlainKeys
from tidegate.domain.access import Role, UserAccess
from tidegate.domain.budgets import new_subscriptions
from tidegate.domain.intents import build_intent, intent_hash
from tidegate.domain.limits import FailureMode
from tidegate.domain.upstreams import MARGIN_S, STEP_S, held_until, upstreams_of_owner
from tidegate.errors import LimiterUnavailable, LimitReached, TidegateError, Unavailable
from tidegate.usecases.limits.upstream_quota import UpstreamQuota

TTL_S = 300


class Scene(GatewayContainer):
    """Dashboards of some owners, with a datasource `s<number>` for each source of SSE."""

    def __init__(self, limit: int = 2, sources: int = 4, failure_mode: FailureMode = FailureMode.CLOSED) -> None:
        super().__init__(upstreams_per_owner=limit, failure_mode=failure_mode)
        self.sources = sources
        self.dashboard("one", "owner")

    def dashboard(self, dashboard_id: str, owner_id: str) -> None:
        self.access.users.setdefault(owner_id, UserAccess(owner_id, Role.EDITOR, True, 1))
        self.add_dashboard(dashboard_id)
        for number in range(self.sources):
            self.source(dashboard_id, f"s{number}", f"https://example.com/{number}")
        self.owned(dashboard_id, owner_id)

    def owned(self, dashboard_id: str, owner_id: str) -> None:
        dashboard = self.access.dashboards[dashboard_id]
        self.access.dashboards[dashboard_id] = replace(dashboard, owner_id=owner_id)

    def source(self, dashboard_id: str, datasource_id: str, url: str) -> None:
        intent = build_intent(dashboard_id, {"id": datasource_id, "type": "sse", "settings": {"url": url}})
        dashboard = self.access.dashboards[dashboard_id]
        self.access.intents[(dashboard_id, datasource_id)] = intent
        intents = {**dashboard.intents, datasource_id: intent_hash(intent)}
        self.access.dashboards[dashboard_id] = replace(dashboard, intents=intents)

    def watches(self, viewer: str, datasource_id: str, dashboard: str = "one", ttl: int = TTL_S) -> bool:
        """A viewer subscribes or refreshes. Whether it was allowed."""
        if viewer not in self.connections.rows:
            self.open(viewer, viewer)
        token = self.token(datasource_id, dashboard=dashboard, ttl=ttl)
        try:
            self.subscribe(viewer, dashboard, datasource_id, token)
        except LimitReached as refused:
            assert refused.code == "cap_reached" and "upstreams" in refused.refusal
            return False
        return True

    def in_use(self, owner_id: str) -> dict[str, int]:
        """Stream key -> the latest expiry of a live subscription to it that an owner's dashboards have."""
        found: dict[str, int] = {}
        for row in self.subscriptions.rows.values():
            owner = self.access.dashboards[row.key.dashboard_id].owner_id
            if row.live and row.protocol == "sse" and owner == owner_id and row.claim.expires_at > self.clock.now():
                found[row.stream_key] = max(found.get(row.stream_key, 0), row.claim.expires_at)
        return found


def test_the_upstreams_of_an_owner_are_bounded_over_all_dashboards() -> None:
    scene = Scene(limit=2)
    scene.dashboard("two", "owner")
    assert scene.watches("a", "s0") and scene.watches("b", "s1", "two")
    for dashboard in ("one", "two"):
        assert not scene.watches("c", "s2", dashboard)
    assert scene.watches("c", "s0", "two"), "equal datasources share an upstream"
    assert not scene.connections.rows["c"].subscriptions.keys() & {"s2"}, "a refusal reserves nothing"
    assert {stream.stream_key for stream in scene.streams.of_source(None).streams} == scene.in_use("owner").keys()


def test_each_owner_pays_for_a_shared_upstream() -> None:
    scene = Scene(limit=1)
    scene.dashboard("two", "other")
    assert scene.watches("a", "s0") and scene.watches("a", "s1", "two")
    assert not scene.watches("b", "s1") and not scene.watches("b", "s0", "two")


def test_what_the_relay_does_not_hold_is_not_counted() -> None:
    scene = Scene(limit=1)
    assert scene.watches("a", "s0")
    scene.subscribe("a", DASHBOARD, DATASOURCE, scene.token())
    assert len(scene.holds.held["owner|owner"]) == 1


def test_the_refusal_says_which_limit_and_when_a_place_is_free() -> None:
    scene = Scene(limit=1)
    assert scene.watches("a", "s0")
    scene.clock.advance(10)
    scene.open("b")
    message = {"type": "subscribe", "requestId": "r", "dashboardId": "one", "datasourceId": "s1"}
    scene.handle("b", json.dumps(message | {"sessionToken": scene.token("s1", dashboard="one")}))
    (told,) = scene.frames("ack", "b")
    seconds = held_until(int(scene.clock.now()) - 10 + TTL_S) - int(scene.clock.now())
    text = "Too many upstreams for the dashboards of this owner: at most 1 at the same time"
    assert told["message"] == f"{text}. Try again in {seconds} seconds."
    assert (told["errorCode"], told["retryable"]) == ("STREAM_RATE_LIMITED", True)
    assert seconds * 1000 - 1000 < told["retryAfterMs"] <= seconds * 1000
    scene.clock.advance(seconds)
    assert scene.watches("b", "s1"), "as it was told"


def test_a_place_is_free_after_the_last_token_however_the_viewers_went() -> None:
    scene = Scene(limit=1)
    for viewer in ("leaves", "dies", "ends"):
        assert scene.watches(viewer, "s0")
    scene.handle("leaves", json.dumps({"type": "unsubscribe", "requestId": "r", "datasourceId": "s0"}))
    scene.connections.rows.pop("dies")
    scene.end_connection.disconnected("ends")
    assert not scene.watches("b", "s1")
    scene.clock.advance(TTL_S + STEP_S + MARGIN_S)
    assert scene.watches("b", "s1")


def test_a_refresh_holds_on_and_is_not_refused() -> None:
    scene = Scene(limit=1)
    assert scene.watches("a", "s0")
    for _ in range(6):
        scene.clock.advance(TTL_S // 2)
        assert scene.watches("a", "s0") and not scene.watches("b", "s1")
    scene.holds.held.clear()  # as if it had been admitted while the store was down
    scene.upstreams._held.clear()
    assert scene.watches("b", "s1")
    scene.clock.advance(STEP_S)
    assert scene.watches("a", "s0"), "it is counted again, above the limit"
    assert len(scene.holds.held["owner|owner"]) == 2 and not scene.watches("c", "s2")


def test_a_refresh_that_comes_too_late_is_a_new_subscription() -> None:
    """Its place may be somebody else's by then. Otherwise an owner would let all tokens end to begin as many anew."""
    scene = Scene(limit=1)
    assert scene.watches("a", "s0")
    scene.clock.advance(TTL_S + STEP_S + MARGIN_S)
    assert scene.watches("b", "s1")
    assert scene.subscriptions.rows and not scene.watches("a", "s0")
    scene.clock.advance(TTL_S + STEP_S + MARGIN_S)
    assert scene.watches("a", "s0"), "there is room"


def test_a_dashboard_that_changes_hands_is_paid_by_who_has_it() -> None:
    scene = Scene(limit=1)
    assert scene.watches("a", "s0")
    scene.dashboard("two", "other")
    scene.owned("one", "other")
    scene.clock.advance(STEP_S)
    assert scene.watches("a", "s0"), "from the next refresh on"
    assert not scene.watches("b", "s1", "two")
    scene.dashboard("three", "owner")
    scene.clock.advance(TTL_S + STEP_S + MARGIN_S)
    assert scene.watches("c", "s1", "three")


def test_many_at_once_are_exact() -> None:
    scene = Scene(limit=7, sources=40)

    def arrive(number: int) -> bool:
        return scene.watches(f"v{number}", f"s{number % 40}")

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(arrive, range(80)))
    assert len(scene.in_use("owner")) == len(scene.holds.held["owner|owner"]) == 7
    assert results.count(True) == 14


def test_a_popular_dashboard_costs_a_write_for_each_upstream_and_minute() -> None:
    """In each process."""
    scene = Scene(limit=5)
    for viewer in range(100):
        for number in range(3):
            assert scene.watches(f"v{viewer}", f"s{number}")
    assert scene.holds.writes == 3
    scene.clock.advance(STEP_S)
    for viewer in range(100):
        assert scene.watches(f"v{viewer}", "s0")
    assert scene.holds.writes == 4


def down(*_arguments: object) -> int | None:
    raise Unavailable("down", code="store_timeout")


@pytest.mark.parametrize("mode", list(FailureMode))
def test_what_cannot_be_counted_is_for_the_failure_mode(mode: FailureMode) -> None:
    scene = Scene(failure_mode=mode)
    assert scene.watches("a", "s0")
    scene.clock.advance(STEP_S)
    scene.holds.hold = down  # type: ignore[method-assign, assignment]
    counted = scene.observer.counts
    counted.clear()
    assert scene.watches("a", "s0"), "a refresh is nobody's to refuse"
    failed = ("limiter", "store_timeout", "backend_error", "cap-upstreams")
    assert counted[failed] == 1
    if mode is FailureMode.OPEN:
        assert scene.watches("b", "s1")
    else:
        with pytest.raises(LimiterUnavailable, match="temporarily unavailable"):
            scene.watches("b", "s1")
        assert not scene.connections.rows["b"].subscriptions
    outcome = "fail_open" if mode is FailureMode.OPEN else "fail_closed"
    assert counted[failed] == 2 and counted["limiter", outcome, "cap-upstreams"] == 1


def test_a_remote_api_names_no_owner_so_nothing_is_counted() -> None:
    container = RemoteApiContainer()
    container.api.answer = lambda _token: SSE
    container.subscribed()
    assert container.streams.of_source(None).streams and not container.holds.held


def test_a_process_forgets_the_oldest_and_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.usecases.limits.upstream_quota._REMEMBERED", 2)
    scene = Scene(limit=4)
    for number in (0, 1, 2):
        assert scene.watches("a", f"s{number}")
    assert scene.holds.writes == 3
    assert scene.watches("b", "s2") and scene.holds.writes == 3
    assert scene.watches("b", "s0") and scene.holds.writes == 4


def test_the_default_follows_from_the_others() -> None:
    chosen = default_settings()
    assert chosen.max_upstreams_per_owner == upstreams_of_owner(chosen.max_subscriptions_per_connection)
    assert chosen.max_upstreams_per_owner <= new_subscriptions(chosen.max_subscriptions_per_connection)


# --- whatever happens -------------------------------------------------------------------------------------------


class Holding(RuleBasedStateMachine):
    """Viewers of two owners' dashboards come, refresh, leave and vanish, over two processes, while time passes."""

    LIMIT = 2
    OWNERS: Mapping[str, str] = {"one": "owner", "two": "owner", "three": "other"}

    @initialize()
    def begin(self) -> None:
        self.scene = Scene(limit=self.LIMIT)
        for dashboard, owner in self.OWNERS.items():
            self.scene.dashboard(dashboard, owner)
        self.processes = [self.scene.upstreams, self._process()]

    def _process(self) -> UpstreamQuota:
        scene = self.scene
        return UpstreamQuota(
            holds=scene.holds,
            keys=PlainKeys(),
            limit=self.LIMIT,
            failure_mode=FailureMode.CLOSED,
            clock=scene.clock,
            observer=scene.observer,
        )

    viewers = st.sampled_from("ab")
    dashboards = st.sampled_from(sorted(OWNERS))
    sources = st.sampled_from(["s0", "s1", "s2"])

    @rule(
        viewer=viewers,
        source=sources,
        at=dashboards,
        ttl=st.sampled_from([60, 75, 300]),
        process=st.booleans(),
    )
    def subscribe(self, viewer: str, source: str, at: str, ttl: int, process: bool) -> None:
        scene = self.scene
        scene.subscribe._upstreams = self.processes[process]
        owner = self.OWNERS[at]
        before = set(scene.in_use(owner))
        try:
            allowed = scene.watches(f"{viewer}-{at}", source, at, ttl)
        except TidegateError:
            return  # of another kind: the subscription is ending
        if not allowed:
            held = scene.holds.held[f"owner|{owner}"]
            assert len([until for until in held.values() if until > scene.clock.now()]) >= self.LIMIT
            assert set(scene.in_use(owner)) == before

    @rule(viewer=viewers, source=sources, at=dashboards)
    def unsubscribe(self, viewer: str, source: str, at: str) -> None:
        message = {"type": "unsubscribe", "requestId": "r", "datasourceId": source}
        self.scene.handle(f"{viewer}-{at}", json.dumps(message))

    @rule(viewer=viewers, at=dashboards)
    def vanish(self, viewer: str, at: str) -> None:
        self.scene.end_connection.disconnected(f"{viewer}-{at}")

    @rule(seconds=st.sampled_from([7, 60, 150, 430]))
    def wait(self, seconds: int) -> None:
        self.scene.clock.advance(seconds)

    @rule()
    def revalidate(self) -> None:
        """Rows whose token has ended are removed, some time later."""
        for row in list(self.scene.subscriptions.rows.values()):
            if row.claim.expires_at <= self.scene.clock.now():
                self.scene.subscriptions.remove(row)

    @rule(process=st.booleans())
    def restart(self, process: bool) -> None:
        self.processes[process] = self._process()

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "scene"):
            return
        for owner in set(self.OWNERS.values()):
            used, held = self.scene.in_use(owner), self.scene.holds.held.get(f"owner|{owner}", {})
            assert len(used) <= self.LIMIT and len(held) <= self.LIMIT
            for stream_key, expires_at in used.items():
                assert held[stream_key[:16]] >= expires_at


TestHolding = Holding.TestCase
TestHolding.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
