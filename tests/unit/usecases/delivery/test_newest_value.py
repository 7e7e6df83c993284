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


def asked(world: GatewayContainer) -> None:
    message = {"type": "subscribe", "requestId": "r", "dashboardId": DASHBOARD, "datasourceId": DATASOURCE}
    world.handle(world.open(), json.dumps({**message, "sessionToken": world.token()}))


def looked(world: GatewayContainer) -> None:
    for key, attempt, stream_key, seen in world.catch_ups.queued:
        world.catch_up(CatchUpRequest(key, attempt, stream_key, seen.order if seen else None))


def with_a_value() -> GatewayContainer:
    world = GatewayContainer()
    world.subscribed("first")
    world.publish(b"1")
    return world


@pytest.mark.parametrize("from_frame", [0, 1, 2])
def test_a_throttled_answer_is_followed_by_a_second_look(from_frame: int) -> None:
    """The ack, the status, or the value is where throttling begins."""
    world = with_a_value()
    post, frames = world.sender.post, [0]

    def throttled(connection_id: str, body: bytes) -> Delivery:
        frames[0] += 1
        return post(connection_id, body) if frames[0] <= from_frame else Delivery.THROTTLED

    world.sender.post = throttled  # type: ignore[method-assign]
    asked(world)
    world.sender.post = post  # type: ignore[method-assign]
    assert world.sender.data("c") == []
    looked(world)
    assert world.sender.data("c") == [1]


def test_a_message_that_passes_during_a_second_look_comes_last() -> None:
    world = with_a_value()
    world.subscribed()
    row = world.subscriptions.rows[KEY]
    post = world.sender.post

    def overtaken(connection_id: str, body: bytes) -> Delivery:
        world.sender.post = post  # type: ignore[method-assign]
        world.clock.advance(FRESH_S)
        world.publish(b"2")
        return post(connection_id, body)

    world.sender.post = overtaken  # type: ignore[method-assign]
    assert world.catch_up(CatchUpRequest(KEY, row.generation, row.stream_key, None))
    assert world.sender.data("c") == [2, 1, 2]


def test_a_message_withheld_because_nobody_could_check_is_looked_at_again() -> None:
    world = with_a_value()
    world.subscribed()
    world.clock.advance(FRESH_S)
    read = world.access.read

    def once(*args: Any) -> Any:
        world.access.read = down  # type: ignore[method-assign, assignment]
        found = read(*args)
        world.clock.advance(FRESH_S)
        return found

    def down(*_args: object) -> Any:
        raise Unavailable("down")

    world.access.read = once  # type: ignore[method-assign, assignment]
    assert world.publish(b"2") == 0
    world.access.read = read  # type: ignore[method-assign]
    looked(world)
    assert world.sender.data("c") == [2]


@pytest.mark.parametrize(("seconds", "sent"), [(FRESH_S - 0.1, [1]), (FRESH_S, [])])
def test_a_slow_subscribe_leaves_the_first_value_to_the_second_look(seconds: float, sent: list[int]) -> None:
    world = with_a_value()
    show = world.subscriptions.make_visible

    def slowly(row: Subscription) -> bool:
        world.clock.advance(seconds)
        return show(row)

    world.subscriptions.make_visible = slowly  # type: ignore[method-assign]
    asked(world)
    assert world.sender.data("c") == sent
    looked(world)
    assert world.sender.data("c") == [1]


def test_a_late_attempt_that_fails_leaves_the_acknowledged_row() -> None:
    """It found no row; before it puts its own, another attempt of the same grant is done."""
    world = GatewayContainer()
    world.open()
    want = world.streams.touch

    def overtaken(stream: Any) -> Any:
        world.streams.touch = want  # type: ignore[method-assign]
        world.subscribe("c", DASHBOARD, DATASOURCE, world.token())
        world.authorizer.recheck = down  # type: ignore[method-assign, assignment]
        return want(stream)

    def down(*_args: object) -> Any:
        raise Unavailable("down")

    world.streams.touch = overtaken  # type: ignore[method-assign]
    assert world.subscribe("c", DASHBOARD, DATASOURCE, world.token(ttl=600)).refreshed
    assert world.subscriptions.rows[KEY].live
