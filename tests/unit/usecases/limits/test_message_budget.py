"""What one connection may send in a minute, and what counting it costs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tests.containers.public_viewers import PublicViewers, Viewer, default_settings
from tidegate.domain.budgets import tokens_of_viewer
from tidegate.domain.limits import FailureMode
from tidegate.errors import LimitReached, Unavailable
from tidegate.usecases.limits.message_budget import CHUNK

LIMIT = 600


def writes(container: GatewayContainer) -> list[str]:
    """Keys that the store is asked to count from now on."""
    asked: list[str] = []
    count = container.rate_store.count

    def noted(*arguments: Any) -> Any:
        asked.append(arguments[0])
        return count(*arguments)

    container.rate_store.count = noted  # type: ignore[method-assign, assignment]
    return asked


@pytest.mark.parametrize("text", ["garbage", '{"type":"ping"}', '{"type":"unsubscribe"}', ""])
def test_a_flood_is_told_and_cut_off(text: str) -> None:
    container = GatewayContainer()
    container.subscribed()
    for _ in range(LIMIT + CHUNK - 1):
        container.handle("c", text)
    assert not container.sender.closed
    container.clock.advance(1)
    container.handle("c", text)
    last = container.sender.sent["c"][-1]
    assert last["type"] == "error" and last["errorCode"] == "STREAM_RATE_LIMITED" and last["retryable"] is True
    assert last["reason"] == "limit", "the connection ends"
    left = 59 - int(container.clock.now() - 1) % 60
    assert last["message"] == (
        f"Too many messages on this connection: at most {LIMIT} in a minute. Try again in {left} seconds."
    )
    assert container.sender.closed == ["c"] and not container.connections.rows and not container.subscriptions.rows


@pytest.mark.parametrize(("sent", "counted"), [(19, 0), (50, 2), (600, 30), (10_000, 31)])
def test_what_counting_costs(sent: int, counted: int) -> None:
    container = GatewayContainer()
    asked = writes(container)
    for _ in range(sent):
        container.handle("c", "garbage")
    assert len(asked) == counted


def test_all_processes_count_together() -> None:
    """Each may let so many through that its next one would be counted, and no more."""
    container, processes, passed = GatewayContainer(), 7, 0
    budgets = [container.new_budget() for _ in range(processes)]
    for number in range(10 * LIMIT):
        try:
            budgets[number % processes].spend("c")
            passed += 1
        except LimitReached:
            pass
    assert LIMIT <= passed <= LIMIT + processes * (CHUNK - 1)
    budgets[0].spend("another")


def test_the_next_minute_is_a_new_one() -> None:
    container = GatewayContainer()
    budget = container.new_budget()
    with pytest.raises(LimitReached):
        for _ in range(2 * LIMIT):
            budget.spend("c")
    container.clock.advance(60)
    budget.spend("c")


def test_a_full_page_that_opens_twice_and_refreshes_stays() -> None:
    settings = default_settings()
    most = settings.max_subscriptions_per_connection
    assert settings.message_rate_limit_connection_per_min >= 2 * tokens_of_viewer(most, 60)
    scene, viewer = PublicViewers(most), Viewer("v", "192.0.2.1")
    scene.connect(viewer)
    for _ in range(2):
        scene.watch(viewer)
    assert scene.alive([viewer]) == most and not scene.gateway.sender.closed


def test_where_it_cannot_be_counted_the_connection_stays() -> None:
    for mode, refused in ((FailureMode.CLOSED, 1), (FailureMode.OPEN, 0)):
        container = GatewayContainer(failure_mode=mode)
        container.subscribed()

        def down(*_arguments: Any) -> Any:
            raise Unavailable("down", code="store_timeout")

        container.rate_store.count = down  # type: ignore[method-assign, assignment]
        for _ in range(CHUNK):
            container.handle("c", '{"type":"ping"}')
        errors = [frame for frame in container.sender.sent["c"] if frame["type"] == "error"]
        assert len(errors) == refused and not container.sender.closed
        assert not refused or ("unavailable" in errors[0]["message"] and errors[0]["retryable"] is True)
        assert not refused or ("reason" not in errors[0] and errors[0]["retryAfterMs"] == 2000), "nothing ended"
        assert container.observer.counts["limiter", "store_timeout", "backend_error", "realtime-messages-connection"]


def test_a_fault_of_the_budget_is_answered_too() -> None:
    """`WeakSecret` is one: the salt is not fit for production."""
    container = GatewayContainer()
    container.subscribed()

    def broken(*_arguments: Any, **_options: Any) -> Any:
        raise RuntimeError("a secret name")

    container.rates.consume = broken  # type: ignore[method-assign]
    for _ in range(CHUNK):
        container.handle("c", '{"type":"ping"}')
    (told,) = [frame for frame in container.sender.sent["c"] if frame["type"] == "error"]
    assert (told["errorCode"], told["retryable"]) == ("STREAM_CONNECT_FAILED", True)
    assert "secret" not in str(told) and container.observer.counts["faults",] == 1 and not container.sender.closed


def test_a_refused_subscribe_says_when_to_come_back() -> None:
    container = GatewayContainer(rate=1)
    container.subscribed("c")
    container.open("d", ip="c")
    body = {"dashboardId": DASHBOARD, "datasourceId": DATASOURCE, "sessionToken": container.token()}
    container.handle("d", json.dumps({"type": "subscribe", "requestId": "r", **body}))
    (ack,) = container.frames("ack", "d")
    assert ack["errorCode"] == "STREAM_RATE_LIMITED" and ack["message"].endswith(" seconds.")
