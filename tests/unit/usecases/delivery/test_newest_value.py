"""Each way, found by exploring, in which a viewer ended without the newest value or was sent one too late."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tidegate.domain.access import FRESH_S
from tidegate.domain.subscriptions import CatchUpRequest, Subscription, SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery

KEY = SubscriptionKey(DASHBOARD, "c", DATASOURCE)


def asked(container: GatewayContainer) -> None:
    message = {"type": "subscribe", "requestId": "r", "dashboardId": DASHBOARD, "datasourceId": DATASOURCE}
    container.handle(container.open(), json.dumps({**message, "sessionToken": container.token()}))


def looked(container: GatewayContainer) -> None:
    for request in container.catch_ups.queued:
        container.catch_up(request)


def with_a_value() -> GatewayContainer:
    container = GatewayContainer()
    container.subscribed("first")
    container.publish(b"1")
    return container


@pytest.mark.parametrize("from_frame", [0, 1, 2])
def test_a_throttled_answer_is_followed_by_a_catch_up(from_frame: int) -> None:
    """The ack, the status, or the value is where throttling begins."""
    container = with_a_value()
    post, frames = container.sender.post, [0]

    def throttled(connection_id: str, body: bytes) -> Delivery:
        frames[0] += 1
        return post(connection_id, body) if frames[0] <= from_frame else Delivery.THROTTLED

    container.sender.post = throttled  # type: ignore[method-assign]
    asked(container)
    container.sender.post = post  # type: ignore[method-assign]
    assert container.sender.data("c") == []
    looked(container)
    assert container.sender.data("c") == [1]


def test_a_message_that_passes_during_a_catch_up_comes_last() -> None:
    container = with_a_value()
    container.subscribed()
    row = container.subscriptions.rows[KEY]
    post = container.sender.post

    def overtaken(connection_id: str, body: bytes) -> Delivery:
        container.sender.post = post  # type: ignore[method-assign]
        container.clock.advance(FRESH_S)
        container.publish(b"2")
        return post(connection_id, body)

    container.sender.post = overtaken  # type: ignore[method-assign]
    assert container.catch_up(CatchUpRequest(KEY, row.generation, row.stream_key, None))
    assert container.sender.data("c") == [2, 1, 2]


def test_a_message_withheld_because_nobody_could_check_is_looked_at_again() -> None:
    container = with_a_value()
    container.subscribed()
    container.clock.advance(FRESH_S)
    read = container.access.read

    def once(*args: Any) -> Any:
        container.access.read = down  # type: ignore[method-assign, assignment]
        found = read(*args)
        container.clock.advance(FRESH_S)
        return found

    def down(*_args: object) -> Any:
        raise Unavailable("down")

    container.access.read = once  # type: ignore[method-assign, assignment]
    assert container.publish(b"2") == 0
    container.access.read = read  # type: ignore[method-assign]
    looked(container)
    assert container.sender.data("c") == [2]


@pytest.mark.parametrize(("seconds", "sent"), [(FRESH_S - 0.1, [1]), (FRESH_S, [])])
def test_a_slow_subscribe_leaves_the_first_value_to_the_catch_up(seconds: float, sent: list[int]) -> None:
    container = with_a_value()
    show = container.subscriptions.make_visible

    def slowly(row: Subscription) -> bool:
        container.clock.advance(seconds)
        return show(row)

    container.subscriptions.make_visible = slowly  # type: ignore[method-assign]
    asked(container)
    assert container.sender.data("c") == sent
    looked(container)
    assert container.sender.data("c") == [1]


def test_a_late_attempt_that_fails_leaves_the_acknowledged_row() -> None:
    """It found no row; before it puts its own, another attempt of the same grant is done."""
    container = GatewayContainer()
    container.open()
    want = container.streams.touch

    def overtaken(stream: Any) -> Any:
        container.streams.touch = want  # type: ignore[method-assign]
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
        container.authorizer.recheck = down  # type: ignore[method-assign, assignment]
        return want(stream)

    def down(*_args: object) -> Any:
        raise Unavailable("down")

    container.streams.touch = overtaken  # type: ignore[method-assign]
    assert container.subscribe("c", DASHBOARD, DATASOURCE, container.token(ttl=600)).refreshed
    assert container.subscriptions.rows[KEY].live
