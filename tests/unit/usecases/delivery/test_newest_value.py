"""Each way, found by exploring, in which a viewer ended without the newest value or was sent one too late."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tidegate.domain.access import FRESH_S
from tidegate.domain.subscriptions import CatchUpRequest, LastValue, Subscription, SubscriptionKey
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
    assert container.catch_up(CatchUpRequest(KEY, row.generation, row.stream_key))
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

    def slowly(row: Subscription, shard: int = 0) -> bool:
        container.clock.advance(seconds)
        return show(row, shard)

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


# --- two invocations of the bridge, one value each ----------------------------------------------------------


def while_it_posts(container: GatewayContainer, happens: Callable[[], object]) -> None:
    """Let something happen between the next message's storing and its sending."""
    post = container.sender.post

    def overtaken(connection_id: str, body: bytes) -> Delivery:
        container.sender.post = post  # type: ignore[method-assign]
        happens()
        return post(connection_id, body)

    container.sender.post = overtaken  # type: ignore[method-assign]


def test_a_value_that_is_overtaken_while_it_is_sent_is_followed_by_the_newest() -> None:
    container = GatewayContainer()
    container.subscribed()
    while_it_posts(container, lambda: container.publish(b"2", message_id="m2"))
    container.publish(b"1", message_id="m1")
    assert container.sender.data("c") == [2, 1, 2]


def test_a_repetition_after_a_crash_sends_the_newest_again() -> None:
    """The first try died between its sending and its look. IoT Core's call is repeated after a minute."""
    container = GatewayContainer()
    container.subscribed("c")

    def dies() -> None:
        container.publish(b"2", message_id="m2")
        container.last_values.get = down  # type: ignore[method-assign, assignment]

    def down(*_args: object) -> Any:
        raise Unavailable("down")

    while_it_posts(container, dies)
    at_ms = round(container.clock.now() * 1000)
    with pytest.raises(Unavailable):
        container.publish(b"1", message_id="m1", at_ms=at_ms)
    assert container.sender.data("c") == [2, 1]
    del container.last_values.get
    container.clock.advance(60)
    container.publish(b"1", message_id="m1", at_ms=at_ms)
    assert container.sender.data("c") == [2, 1, 2]


def test_a_catch_up_that_newer_values_keep_passing_is_asked_for_again() -> None:
    container = with_a_value()
    container.subscribed()
    row, post, number = container.subscriptions.rows[KEY], container.sender.post, count(2)

    def busy(connection_id: str, body: bytes) -> Delivery:
        container.sender.post = post  # type: ignore[method-assign]
        container.clock.advance(FRESH_S)
        container.publish(str(next(number)).encode())
        container.sender.post = busy  # type: ignore[method-assign]
        return post(connection_id, body)

    container.sender.post = busy  # type: ignore[method-assign]
    assert container.catch_up(CatchUpRequest(KEY, row.generation, row.stream_key))
    container.sender.post = post  # type: ignore[method-assign]
    looked(container)
    assert container.sender.data("c")[-1] == json.loads(container.last_values.rows[row.stream_key].payload)


@pytest.mark.parametrize("outcome", [Delivery.THROTTLED, Delivery.FAILED])
def test_an_older_value_that_is_throttled_is_made_up_for(outcome: Delivery) -> None:
    container = GatewayContainer()
    container.subscribed()
    post = container.sender.post

    def throttled(connection_id: str, body: bytes) -> Delivery:
        container.sender.post = post  # type: ignore[method-assign]
        container.publish(b"2", message_id="m2")
        return outcome

    container.sender.post = throttled  # type: ignore[method-assign]
    container.publish(b"1", message_id="m1")
    looked(container)
    assert container.sender.data("c")[-1] == 2


def test_one_invocation_settles_for_all() -> None:
    """Ten older values go out after the newest. It is sent again by one of them, not by each."""
    container = GatewayContainer()
    container.subscribed()
    ten = iter(range(1, 11))

    def the_next() -> None:
        number = next(ten, None)
        if number is not None:
            while_it_posts(container, the_next)
            container.publish(str(number).encode(), message_id=f"m{number:02}")

    the_next()
    sent = container.sender.data("c")
    assert sent[-1] == 10 and len(sent) <= 20


@given(*[st.tuples(st.integers(1, 10**14), st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True))] * 2)
def test_seq_orders_as_the_stores_do(one: tuple[int, str], other: tuple[int, str]) -> None:
    first, second = LastValue("1", *one), LastValue("1", *other)
    assert (first.seq < second.seq) is (first.order < second.order)
    assert (first.seq == second.seq) is (first.order == second.order)


@pytest.mark.parametrize("message_id", ["", "ü", 'a"b', "x" * 41, "a\n"])
def test_odd_ids_of_upstreams_are_no_part_of_seq(message_id: str) -> None:
    """There the milliseconds decide: the relay gives each value of a stream its own."""
    assert LastValue("1", 1_800_000_000_000, message_id).seq == "001800000000000"


def test_what_a_device_message_costs() -> None:
    """Calls of the last value's store: docs/operations/performance.md has the units."""
    container = GatewayContainer()
    container.subscribed()
    calls: list[str] = []

    def counting(name: str) -> None:
        call = getattr(container.last_values, name)

        def counted(*args: Any) -> Any:
            calls.append(name)
            return call(*args)

        setattr(container.last_values, name, counted)

    for name in ("get", "put_if_newer", "note_overtaken", "note_settled"):
        counting(name)
    container.publish(b"1", message_id="m1")
    assert calls == ["put_if_newer", "get"]
    calls.clear()
    while_it_posts(container, lambda: container.publish(b"3", message_id="m3"))
    container.publish(b"2", message_id="m2")
    assert calls[:3] == ["put_if_newer", "put_if_newer", "get"], "both store, and the newer looks"
    assert calls[3:] == ["get", "note_overtaken", "get", "note_settled"]
