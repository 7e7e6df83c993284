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


@pytest.mark.parametrize("asked", [{"datasourceId": "s"}, {"datasourceIds": ["s", "t"]}], ids=["one", "several"])
def test_the_log_is_given_the_dashboard_of_a_message(asked: dict[str, object]) -> None:
    container = GatewayContainer()
    message = {"type": "subscribe", "requestId": "r", "dashboardId": "asked-for", "sessionToken": "wrong", **asked}
    container.handle(container.open(), json.dumps(message))
    assert container.observer.said == {"dashboard": "asked-for"}


def test_a_viewer_subscribes_and_refreshes() -> None:
    container = GatewayContainer()
    container.open()
    first = container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    row = container.subscriptions.rows[KEY]
    assert not first.refreshed and row.live and row.generation == first.row.generation
    container.clock.advance(100)
    again = container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    assert again.refreshed
    moved = container.subscriptions.rows[KEY]
    assert moved.generation == row.generation and moved.claim.expires_at == row.claim.expires_at + 100
    shorter = container.subscribe("c", DASHBOARD, DATASOURCE, container.token(ttl=10))
    assert shorter.refreshed and container.subscriptions.rows[KEY].claim.expires_at == moved.claim.expires_at


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (lambda container: container.change(visibility=Visibility.PRIVATE), Denied),
        (lambda container: container.revoke(), Denied),
        (lambda container: container.change(deleted=True), NotFound),
        (lambda container: container.change(intents={}), NotFound),
        (lambda container: container.change(intents={DATASOURCE: "other"}), Denied),
        (lambda container: container.access.dashboards.clear(), NotFound),
        (lambda container: container.access.intents.clear(), Unavailable),
        (lambda container: container.profiles.by_broker.clear(), Denied),
        (lambda container: container.clock.advance(300), Unauthenticated),
        (lambda container: container.connections.rows.clear(), Unauthenticated),
    ],
)
def test_who_may_not_leaves_no_trace(prepare: Callable[[GatewayContainer], object], error: type[TidegateError]) -> None:
    container = GatewayContainer()
    container.open()
    token = container.token()
    prepare(container)
    with pytest.raises(error):
        container.subscribe("c", DASHBOARD, DATASOURCE, token)
    assert not container.subscriptions.rows and not any(container.caps.holders.values())


def test_policies() -> None:
    container = GatewayContainer()
    container.open()
    container.profiles.by_broker["b"] = BrokerProfile("b", "b", Transport.IOT_CORE)
    with pytest.raises(Denied, match="public usage"):
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    assert not container.subscribe("c", DASHBOARD, DATASOURCE, container.token(user="member")).refreshed
    narrow = BrokerProfile("b", "b", Transport.IOT_CORE, allow_public_use=True, topic_allowlist=("a/c",))
    container.profiles.by_broker["b"] = narrow
    with pytest.raises(PolicyBlocked, match="broker policy"):
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    other = GatewayContainer(allowed_topics=["z/#"])
    other.open()
    with pytest.raises(PolicyBlocked, match="gateway policy"):
        other.subscribe("c", DASHBOARD, DATASOURCE, other.token())


def test_a_profile_for_members_only_reaches_members_only() -> None:
    """Whatever the visibility, and with a login or without: who is not a member is refused."""
    container = GatewayContainer()
    container.open()
    container.profiles.by_broker["b"] = BrokerProfile("b", "b", Transport.IOT_CORE)
    for user_id, role in (("stranger", Role.VIEWER), ("author", Role.EDITOR), ("owner", Role.VIEWER)):
        container.access.users[user_id] = UserAccess(user_id, role, True, 1)
    container.access.users["boss"] = UserAccess("boss", Role.ADMIN, True, 1)
    for visibility in (Visibility.LINK, Visibility.PUBLIC):
        container.change(visibility=visibility)
        guests = [container.token(user=user_id, share_version=1) for user_id in ("stranger", "author")]
        for token in (container.token(), *guests):
            with pytest.raises(Denied, match="public usage"):
                container.subscribe("c", DASHBOARD, DATASOURCE, token)
        assert not container.subscriptions.rows
    for user_id in ("member", "owner", "boss"):
        container.open(user_id)
        container.subscribe(user_id, DASHBOARD, DATASOURCE, container.token(user=user_id))


def test_a_member_who_is_removed_from_a_public_dashboard_comes_back_as_a_guest() -> None:
    container = GatewayContainer()
    container.open()
    container.change(visibility=Visibility.PUBLIC)
    container.subscribe("c", DASHBOARD, DATASOURCE, container.token(user="member"))
    container.change(acl={})
    assert container.authorizer.recheck([container.subscriptions.rows[KEY].claim], container.clock.now())[0]
    with pytest.raises(Denied):
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token(user="member"))
    container.subscribe("c", DASHBOARD, DATASOURCE, container.token(user="member", share_version=1))


def test_a_token_is_for_its_own_datasource() -> None:
    container = GatewayContainer()
    container.open()
    with pytest.raises(Denied, match="identifiers"):
        container.subscribe("c", "other", DATASOURCE, container.token())
    with pytest.raises(Denied, match="scope"):
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token(scope="datasource:fetch"))
    with pytest.raises(Unauthenticated):
        container.subscribe("c", DASHBOARD, DATASOURCE, "forged")


def test_signed_in_viewers() -> None:
    container = GatewayContainer()
    container.open()
    container.access.users["guest"] = UserAccess("guest", Role.VIEWER, True, 1)
    with pytest.raises(Denied):
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token(user="guest"))
    container.subscribe("c", DASHBOARD, DATASOURCE, container.token(user="guest", share_version=1))
    container.access.users["member"] = UserAccess("member", Role.VIEWER, True, 2)
    with pytest.raises(Denied):
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token(user="member"))


def test_public_limits_count_address_and_share_version() -> None:
    """New subscriptions count. A refresh does not, and neither does a user."""
    container = GatewayContainer(rate=2)
    for name in ("c0", "c1", "c2", "c3"):
        container.open(name)
    for name in ("c0", "c1"):
        for _ in range(5):
            container.subscribe(name, DASHBOARD, DATASOURCE, container.token(viewer_id=name))
    with pytest.raises(LimitReached) as refused:
        container.subscribe("c2", DASHBOARD, DATASOURCE, container.token(viewer_id="three"))
    assert refused.value.retry_after_ms
    container.subscribe("c2", DASHBOARD, DATASOURCE, container.token(user="member"))
    container.clock.advance(60)
    container.subscribe("c3", DASHBOARD, DATASOURCE, container.token(viewer_id="four"))


def test_a_limiter_that_is_down() -> None:
    for mode, refused in ((FailureMode.CLOSED, True), (FailureMode.OPEN, False)):
        container = GatewayContainer(failure_mode=mode)
        container.open()
        container.rate_store.count = _down  # type: ignore[method-assign, assignment]
        container.caps.take = _down  # type: ignore[method-assign]
        if refused:
            with pytest.raises(LimiterUnavailable):
                container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
        else:
            container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
        outcome = "fail_closed" if refused else "fail_open"
        assert any(outcome in key for key in container.observer.counts), container.observer.counts


def _down(*_args: object, **_options: object) -> bool:
    raise Unavailable("down")


def test_the_dashboards_cap_counts_connections_and_releases_what_it_refused() -> None:
    container = GatewayContainer(per_dashboard=2)
    container.add_datasource("second", "a/c")
    for number in range(2):
        container.subscribed(f"c{number}")
    container.subscribe("c0", DASHBOARD, "second", container.token("second"))  # the connection counts once
    container.open("late")
    with pytest.raises(LimitReached, match="dashboard connection limit"):
        container.subscribe("late", DASHBOARD, DATASOURCE, container.token())
    assert not container.connections.rows["late"].subscriptions
    container.subscribe("c1", DASHBOARD, DATASOURCE, container.token())  # a refresh is exempt
    container.end_connection.disconnected("c0")
    container.subscribe("late", DASHBOARD, DATASOURCE, container.token())


def test_caps_hold_under_concurrency() -> None:
    container = GatewayContainer(per_dashboard=90, per_connection=3)

    def arrive(number: int) -> bool:
        container.open(f"c{number}", f"ip{number}")
        try:
            container.subscribe(f"c{number}", DASHBOARD, DATASOURCE, container.token())
        except LimitReached:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(arrive, range(200)))
    assert results.count(True) == 90
    assert sum(len(holders) for holders in container.caps.holders.values()) == 90


def test_another_dashboard_under_the_same_datasource_id() -> None:
    container = GatewayContainer()
    container.subscribed()
    container.access.dashboards["other"] = replace(container.access.dashboards[DASHBOARD], dashboard_id="other")
    container.access.intents[("other", DATASOURCE)] = container.access.intents[(DASHBOARD, DATASOURCE)]
    token = container.token(dashboard_id="other")
    with pytest.raises(Denied, match="dashboard mismatch"):
        container.subscribe("c", "other", DATASOURCE, token)
    assert list(container.subscriptions.rows) == [KEY]


# --- what may happen in between ----------------------------------------------------------------------------


def between(container: GatewayContainer, method: str, happens: Callable[[], object], *, after: bool) -> None:
    """Let something happen once, right before or after a step on the subscription store."""
    original = getattr(container.subscriptions, method)
    left = [True]

    def stepped(*args: object) -> object:
        once = left.pop() if left else False
        if once and not after:
            happens()
        result = original(*args)
        if once and after:
            happens()
        return result

    setattr(container.subscriptions, method, stepped)


@pytest.mark.parametrize("method", ["get", "put_hidden"])
@pytest.mark.parametrize("after", [False, True])
def test_a_revocation_between_any_steps_leaves_no_live_row(method: str, after: bool) -> None:
    container = GatewayContainer()
    container.open()
    token = container.token()
    between(container, method, container.revoke, after=after)
    with pytest.raises(Denied):
        container.subscribe("c", DASHBOARD, DATASOURCE, token)
    assert not container.subscriptions.rows


@pytest.mark.parametrize("method", ["get", "put_hidden"])
@pytest.mark.parametrize("after", [False, True])
def test_a_disconnect_between_any_steps_leaves_nothing(method: str, after: bool) -> None:
    container = GatewayContainer()
    container.open()
    between(container, method, lambda: container.end_connection.disconnected("c"), after=after)
    with pytest.raises(Unauthenticated):
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    assert not container.subscriptions.rows
    assert not any(container.caps.holders.values()), "a slot taken after the connection went must be given back"


def test_two_attempts_on_one_row_both_end_subscribed() -> None:
    container = GatewayContainer()
    container.open()
    token = container.token()
    inner = []
    between(
        container,
        "put_hidden",
        lambda: inner.append(container.subscribe("c", DASHBOARD, DATASOURCE, token)),
        after=True,
    )
    outer = container.subscribe("c", DASHBOARD, DATASOURCE, token)
    row = container.subscriptions.rows[KEY]
    assert row.live and {outer.row.generation, inner[0].row.generation} == {row.generation}


def test_a_row_that_is_being_cut_is_waited_for_then_refused() -> None:
    container = GatewayContainer()
    container.subscribed()
    container.subscriptions.claim_termination(container.subscriptions.rows[KEY], TerminationClaim("run", 0))
    with pytest.raises(Busy) as busy:
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    assert busy.value.temporary
    assert container.subscriptions.rows[KEY].termination, "its viewer must hear of the cut first"


def test_a_lost_verification_takes_the_row_back() -> None:
    container = GatewayContainer()
    container.open()
    token = container.token()
    reads = container.access.read

    def fail_after_put(*args: object) -> object:
        if container.subscriptions.rows:
            raise Unavailable("down")
        return reads(*args)  # type: ignore[arg-type]

    container.access.read = fail_after_put  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        container.subscribe("c", DASHBOARD, DATASOURCE, token)
    assert not container.subscriptions.rows and not container.connections.rows["c"].subscriptions


def test_a_newer_version_replaces_and_an_older_attempt_cannot() -> None:
    container = GatewayContainer()
    container.subscribed()
    old = container.subscriptions.rows[KEY]
    container.revoke()
    container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    new = container.subscriptions.rows[KEY]
    assert new.generation != old.generation and new.live
    assert not container.subscriptions.put_hidden(replace(old, generation="late"))


# --- messages ----------------------------------------------------------------------------------------------


def message(kind: str, **fields: str) -> str:
    return json.dumps({"type": kind, "requestId": "r", "datasourceId": DATASOURCE, **fields})


def test_a_subscribe_is_acked_told_and_given_the_last_value() -> None:
    container = GatewayContainer()
    container.subscribed("first")
    container.publish(b'{"t":1.50}')
    container.open()
    container.handle("c", message("subscribe", dashboardId=DASHBOARD, sessionToken=container.token()))
    kinds = [frame["type"] for frame in container.sender.sent["c"]]
    assert kinds == ["ack", "status", "data"]
    data = container.frames("data")[0]
    assert data["payload"] == {"t": 1.5} and data["retained"] is True
    assert [request.key.connection_id for request in container.catch_ups.queued] == ["c"]
    container.handle("c", message("subscribe", dashboardId=DASHBOARD, sessionToken=container.token()))
    assert [frame["type"] for frame in container.sender.sent["c"]][3:] == ["ack"], "a refresh says nothing more"


@pytest.mark.parametrize(
    ("token", "code", "retryable"),
    [
        (lambda container: "forged", "STREAM_AUTH_FAILED", False),
        (lambda container: container.token(ttl=-1), "STREAM_AUTH_FAILED", True),
        (lambda container: container.token(share_version=0), "STREAM_AUTH_FAILED", False),
        (lambda container: container.token(intent_hash="old"), "STREAM_AUTH_FAILED", True),
        (lambda container: container.token("gone"), "STREAM_AUTH_FAILED", False),
    ],
)
def test_refusals_say_whether_to_come_back(
    token: Callable[[GatewayContainer], str], code: str, retryable: bool
) -> None:
    container = GatewayContainer()
    container.open()
    container.handle("c", message("subscribe", dashboardId=DASHBOARD, sessionToken=token(container)))
    (ack,) = container.frames("ack")
    assert (ack["ok"], ack["errorCode"], ack["retryable"]) == (False, code, retryable)
    assert (ack["requestId"], ack["datasourceId"]) == ("r", DATASOURCE)


def test_faults_stay_inside() -> None:
    container = GatewayContainer()
    container.open()

    def broken(*_args: object) -> Subscription:
        raise RuntimeError("table tidegate-x-17 exploded")

    container.subscriptions.get = broken  # type: ignore[method-assign, assignment]
    container.handle("c", message("subscribe", dashboardId=DASHBOARD, sessionToken=container.token()))
    (ack,) = container.frames("ack")
    assert ack["message"] == "Subscription failed" and ack["retryable"] is True
    assert ack["retryAfterMs"] == 2000, "not at once: every page would ask in the same moment"
    assert container.observer.faults


def test_unsubscribe_and_ping() -> None:
    container = GatewayContainer()
    container.subscribed()
    container.handle("c", message("unsubscribe"))
    container.handle("c", message("unsubscribe"))
    container.handle("c", message("ping"))
    kinds = [(frame["type"], frame.get("status")) for frame in container.sender.sent["c"]]
    assert kinds == [("status", "disconnected"), ("ack", None), ("ack", None), ("pong", None)]
    assert not container.subscriptions.rows and not container.connections.rows["c"].subscriptions


def test_an_answer_to_nobody_ends_the_connection() -> None:
    from tidegate.ports.delivery import Delivery

    container = GatewayContainer()
    container.subscribed()
    container.sender.answers["c"] = Delivery.GONE
    container.handle("c", message("ping"))
    assert not container.connections.rows and not container.subscriptions.rows and container.sender.closed == ["c"]
    assert PUBLIC_SUBJECT == "public"
