from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tidegate.domain.access import PUBLIC_SUBJECT, Role, UserAccess, Visibility
from tidegate.domain.limits import FailureMode
from tidegate.domain.profiles import BrokerProfile, Transport
from tidegate.domain.subscriptions import Subscription, SubscriptionKey, TerminationClaim
from tidegate.errors import (
    Denied,
    LimiterUnavailable,
    LimitReached,
    NotFound,
    PolicyBlocked,
    TidegateError,
    Unauthenticated,
    Unavailable,
)
from tidegate.usecases.gateway.subscribe import Busy

KEY = SubscriptionKey(DASHBOARD, "c", DATASOURCE)


def test_a_viewer_subscribes_and_refreshes() -> None:
    world = GatewayContainer()
    world.open()
    first = world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    row = world.subscriptions.rows[KEY]
    assert not first.refreshed and row.live and row.generation == first.row.generation
    world.clock.advance(100)
    again = world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    assert again.refreshed
    moved = world.subscriptions.rows[KEY]
    assert moved.generation == row.generation and moved.claim.expires_at == row.claim.expires_at + 100
    shorter = world.subscribe("c", DASHBOARD, DATASOURCE, world.token(ttl=10))
    assert shorter.refreshed and world.subscriptions.rows[KEY].claim.expires_at == moved.claim.expires_at


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (lambda world: world.change(visibility=Visibility.PRIVATE), Denied),
        (lambda world: world.revoke(), Denied),
        (lambda world: world.change(deleted=True), NotFound),
        (lambda world: world.change(intents={}), NotFound),
        (lambda world: world.change(intents={DATASOURCE: "other"}), Denied),
        (lambda world: world.access.dashboards.clear(), NotFound),
        (lambda world: world.access.intents.clear(), Unavailable),
        (lambda world: world.profiles.by_broker.clear(), Denied),
        (lambda world: world.clock.advance(300), Unauthenticated),
        (lambda world: world.connections.rows.clear(), Unauthenticated),
    ],
)
def test_who_may_not_leaves_no_trace(prepare: Callable[[GatewayContainer], object], error: type[TidegateError]) -> None:
    world = GatewayContainer()
    world.open()
    token = world.token()
    prepare(world)
    with pytest.raises(error):
        world.subscribe("c", DASHBOARD, DATASOURCE, token)
    assert not world.subscriptions.rows and not any(world.caps.holders.values())


def test_policies() -> None:
    world = GatewayContainer()
    world.open()
    world.profiles.by_broker["b"] = BrokerProfile("b", "b", Transport.IOT_CORE)
    with pytest.raises(Denied, match="public usage"):
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    assert not world.subscribe("c", DASHBOARD, DATASOURCE, world.token(user="member")).refreshed
    narrow = BrokerProfile("b", "b", Transport.IOT_CORE, allow_public_use=True, topic_allowlist=("a/c",))
    world.profiles.by_broker["b"] = narrow
    with pytest.raises(PolicyBlocked, match="broker policy"):
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    other = GatewayContainer(allowed_topics=["z/#"])
    other.open()
    with pytest.raises(PolicyBlocked, match="gateway policy"):
        other.subscribe("c", DASHBOARD, DATASOURCE, other.token())


def test_a_token_is_for_its_own_datasource() -> None:
    world = GatewayContainer()
    world.open()
    with pytest.raises(Denied, match="identifiers"):
        world.subscribe("c", "other", DATASOURCE, world.token())
    with pytest.raises(Denied, match="scope"):
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token(scope="datasource:fetch"))
    with pytest.raises(Unauthenticated):
        world.subscribe("c", DASHBOARD, DATASOURCE, "forged")


def test_signed_in_viewers() -> None:
    world = GatewayContainer()
    world.open()
    world.access.users["guest"] = UserAccess("guest", Role.VIEWER, True, 1)
    with pytest.raises(Denied):
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token(user="guest"))
    world.subscribe("c", DASHBOARD, DATASOURCE, world.token(user="guest", share_version=1))
    world.access.users["member"] = UserAccess("member", Role.VIEWER, True, 2)
    with pytest.raises(Denied):
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token(user="member"))


def test_public_limits_count_address_and_share_version() -> None:
    world = GatewayContainer(rate=2)
    world.open()
    for _ in range(2):
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    with pytest.raises(LimitReached) as refused:
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    assert refused.value.retry_after_ms
    world.subscribe("c", DASHBOARD, DATASOURCE, world.token(user="member"))
    world.clock.advance(60)
    world.subscribe("c", DASHBOARD, DATASOURCE, world.token())


def test_a_limiter_that_is_down() -> None:
    for mode, refused in ((FailureMode.CLOSED, True), (FailureMode.OPEN, False)):
        world = GatewayContainer(failure_mode=mode)
        world.open()
        world.rate_store.count = _down  # type: ignore[method-assign, assignment]
        world.caps.take = _down  # type: ignore[method-assign]
        if refused:
            with pytest.raises(LimiterUnavailable):
                world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
        else:
            world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
        outcome = "fail_closed" if refused else "fail_open"
        assert any(outcome in key for key in world.observer.counts), world.observer.counts


def _down(*_args: object, **_options: object) -> bool:
    raise Unavailable("down")


def test_the_dashboards_cap_counts_connections_and_releases_what_it_refused() -> None:
    world = GatewayContainer(per_dashboard=2)
    world.add_datasource("second", "a/c")
    for number in range(2):
        world.subscribed(f"c{number}")
    world.subscribe("c0", DASHBOARD, "second", world.token("second"))  # the connection counts once
    world.open("late")
    with pytest.raises(LimitReached, match="dashboard connection limit"):
        world.subscribe("late", DASHBOARD, DATASOURCE, world.token())
    assert not world.connections.rows["late"].subscriptions
    world.subscribe("c1", DASHBOARD, DATASOURCE, world.token())  # a refresh is exempt
    world.end_connection.disconnected("c0")
    world.subscribe("late", DASHBOARD, DATASOURCE, world.token())


def test_caps_hold_under_concurrency() -> None:
    world = GatewayContainer(per_dashboard=90, per_connection=3)

    def arrive(number: int) -> bool:
        world.open(f"c{number}", f"ip{number}")
        try:
            world.subscribe(f"c{number}", DASHBOARD, DATASOURCE, world.token())
        except LimitReached:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(arrive, range(200)))
    assert results.count(True) == 90
    assert sum(len(holders) for holders in world.caps.holders.values()) == 90


def test_another_dashboard_under_the_same_datasource_id() -> None:
    world = GatewayContainer()
    world.subscribed()
    world.access.dashboards["other"] = replace(world.access.dashboards[DASHBOARD], dashboard_id="other")
    world.access.intents[("other", DATASOURCE)] = world.access.intents[(DASHBOARD, DATASOURCE)]
    token = world.token(dashboard_id="other")
    with pytest.raises(Denied, match="dashboard mismatch"):
        world.subscribe("c", "other", DATASOURCE, token)
    assert list(world.subscriptions.rows) == [KEY]


# --- what may happen in between ----------------------------------------------------------------------------


def between(world: GatewayContainer, method: str, happens: Callable[[], object], *, after: bool) -> None:
    """Let something happen once, right before or after a step on the subscription store."""
    original = getattr(world.subscriptions, method)
    left = [True]

    def stepped(*args: object) -> object:
        once = left.pop() if left else False
        if once and not after:
            happens()
        result = original(*args)
        if once and after:
            happens()
        return result

    setattr(world.subscriptions, method, stepped)


@pytest.mark.parametrize("method", ["get", "put_hidden"])
@pytest.mark.parametrize("after", [False, True])
def test_a_revocation_between_any_steps_leaves_no_live_row(method: str, after: bool) -> None:
    world = GatewayContainer()
    world.open()
    token = world.token()
    between(world, method, world.revoke, after=after)
    with pytest.raises(Denied):
        world.subscribe("c", DASHBOARD, DATASOURCE, token)
    assert not world.subscriptions.rows


@pytest.mark.parametrize("method", ["get", "put_hidden"])
@pytest.mark.parametrize("after", [False, True])
def test_a_disconnect_between_any_steps_leaves_nothing(method: str, after: bool) -> None:
    world = GatewayContainer()
    world.open()
    between(world, method, lambda: world.end_connection.disconnected("c"), after=after)
    with pytest.raises(Unauthenticated):
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    assert not world.subscriptions.rows
    assert not any(world.caps.holders.values()), "a slot taken after the connection went must be given back"


def test_two_attempts_on_one_row_both_end_subscribed() -> None:
    world = GatewayContainer()
    world.open()
    token = world.token()
    inner = []
    between(
        world,
        "put_hidden",
        lambda: inner.append(world.subscribe("c", DASHBOARD, DATASOURCE, token)),
        after=True,
    )
    outer = world.subscribe("c", DASHBOARD, DATASOURCE, token)
    row = world.subscriptions.rows[KEY]
    assert row.live and {outer.row.generation, inner[0].row.generation} == {row.generation}


def test_a_row_that_is_being_cut_is_waited_for_then_refused() -> None:
    world = GatewayContainer()
    world.subscribed()
    world.subscriptions.claim_termination(world.subscriptions.rows[KEY], TerminationClaim("run", 0))
    with pytest.raises(Busy) as busy:
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    assert busy.value.temporary
    assert world.subscriptions.rows[KEY].termination, "its viewer must hear of the cut first"


def test_a_lost_verification_takes_the_row_back() -> None:
    world = GatewayContainer()
    world.open()
    token = world.token()
    reads = world.access.read

    def fail_after_put(*args: object) -> object:
        if world.subscriptions.rows:
            raise Unavailable("down")
        return reads(*args)  # type: ignore[arg-type]

    world.access.read = fail_after_put  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        world.subscribe("c", DASHBOARD, DATASOURCE, token)
    assert not world.subscriptions.rows and not world.connections.rows["c"].subscriptions


def test_a_newer_version_replaces_and_an_older_attempt_cannot() -> None:
    world = GatewayContainer()
    world.subscribed()
    old = world.subscriptions.rows[KEY]
    world.revoke()
    world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
    new = world.subscriptions.rows[KEY]
    assert new.generation != old.generation and new.live
    assert not world.subscriptions.put_hidden(replace(old, generation="late"))


# --- messages ----------------------------------------------------------------------------------------------


def message(kind: str, **fields: str) -> str:
    return json.dumps({"type": kind, "requestId": "r", "datasourceId": DATASOURCE, **fields})


def test_a_subscribe_is_acked_told_and_given_the_last_value() -> None:
    world = GatewayContainer()
    world.subscribed("first")
    world.publish(b'{"t":1.50}')
    world.open()
    world.handle("c", message("subscribe", dashboardId=DASHBOARD, sessionToken=world.token()))
    kinds = [one["type"] for one in world.sender.sent["c"]]
    assert kinds == ["ack", "status", "data"]
    data = world.frames("data")[0]
    assert data["payload"] == {"t": 1.5} and data["retained"] is True
    assert [key.connection_id for key, *_ in world.catch_ups.queued] == ["c"]
    world.handle("c", message("subscribe", dashboardId=DASHBOARD, sessionToken=world.token()))
    assert [one["type"] for one in world.sender.sent["c"]][3:] == ["ack"], "a refresh says nothing more"


@pytest.mark.parametrize(
    ("token", "code", "retryable"),
    [
        (lambda world: "forged", "STREAM_AUTH_FAILED", False),
        (lambda world: world.token(ttl=-1), "STREAM_AUTH_FAILED", True),
        (lambda world: world.token(share_version=0), "STREAM_AUTH_FAILED", False),
        (lambda world: world.token(intent_hash="old"), "STREAM_AUTH_FAILED", True),
        (lambda world: world.token("gone"), "STREAM_AUTH_FAILED", False),
    ],
)
def test_refusals_say_whether_to_come_back(
    token: Callable[[GatewayContainer], str], code: str, retryable: bool
) -> None:
    world = GatewayContainer()
    world.open()
    world.handle("c", message("subscribe", dashboardId=DASHBOARD, sessionToken=token(world)))
    (ack,) = world.frames("ack")
    assert (ack["ok"], ack["errorCode"], ack["retryable"]) == (False, code, retryable)
    assert (ack["requestId"], ack["datasourceId"]) == ("r", DATASOURCE)


def test_faults_stay_inside() -> None:
    world = GatewayContainer()
    world.open()

    def broken(*_args: object) -> Subscription:
        raise RuntimeError("table tidegate-x-17 exploded")

    world.subscriptions.get = broken  # type: ignore[method-assign, assignment]
    world.handle("c", message("subscribe", dashboardId=DASHBOARD, sessionToken=world.token()))
    (ack,) = world.frames("ack")
    assert ack["message"] == "Subscription failed" and ack["retryable"] is True
    assert world.observer.faults


def test_unsubscribe_and_ping() -> None:
    world = GatewayContainer()
    world.subscribed()
    world.handle("c", message("unsubscribe"))
    world.handle("c", message("unsubscribe"))
    world.handle("c", message("ping"))
    kinds = [(one["type"], one.get("status")) for one in world.sender.sent["c"]]
    assert kinds == [("status", "disconnected"), ("ack", None), ("ack", None), ("pong", None)]
    assert not world.subscriptions.rows and not world.connections.rows["c"].subscriptions


def test_an_answer_to_nobody_ends_the_connection() -> None:
    from tidegate.ports.delivery import Delivery

    world = GatewayContainer()
    world.subscribed()
    world.sender.answers["c"] = Delivery.GONE
    world.handle("c", message("ping"))
    assert not world.connections.rows and not world.subscriptions.rows and world.sender.closed == ["c"]
    assert PUBLIC_SUBJECT == "public"
