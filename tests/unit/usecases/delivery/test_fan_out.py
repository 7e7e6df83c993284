from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tidegate.domain.access import Role, UserAccess, Visibility
from tidegate.domain.subscriptions import CatchUpRequest, SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery
from tidegate.protocol.payloads import Unparsable, parsed

KEY = SubscriptionKey(DASHBOARD, "c", DATASOURCE)


def subscribe_message(container: GatewayContainer) -> str:
    fields = {"dashboardId": DASHBOARD, "datasourceId": DATASOURCE, "sessionToken": container.token()}
    return json.dumps({"type": "subscribe", "requestId": "r", **fields})


def test_one_message_reaches_every_viewer_once() -> None:
    container = GatewayContainer()
    for number in range(5):
        container.subscribed(f"c{number}")
    assert container.publish(b'{"t": 21.50}') == 5
    assert [container.sender.data(f"c{number}") for number in range(5)] == [[{"t": 21.5}]] * 5


def test_wildcards_parsers_and_entries() -> None:
    container = GatewayContainer()
    container.add_datasource("wild", "a/+")
    container.add_datasource("text", "a/b", "text")
    container.open()
    for datasource in (DATASOURCE, "wild", "text"):
        container.subscribe("c", DASHBOARD, datasource, container.token(datasource))
    container.publish(b"7")
    received = {frame["datasourceId"]: frame["payload"] for frame in container.frames("data")}
    assert received == {DATASOURCE: 7, "wild": 7, "text": "7"}
    container.publish(b"8", topic="a/other")
    assert [frame["datasourceId"] for frame in container.frames("data")][3:] == ["wild"]
    container.publish(b"\xff{", topic="a/b", message_id="n")
    assert [frame["errorCode"] for frame in container.frames("error")] == ["STREAM_PROTOCOL_ERROR"] * 2
    assert container.sender.data("c")[-1] == "\ufffd{"


def test_sizes() -> None:
    container = GatewayContainer()
    container.subscribed()
    container.publish(b'"' + b"x" * 2000 + b'"')
    assert container.frames("error")[-1]["message"] == "MQTT payload exceeded size limit"
    assert container.sender.data("c") == []
    container.publish(b'"fits"')
    assert container.sender.data("c") == ["fits"]


def test_older_messages_are_dropped() -> None:
    container = GatewayContainer()
    container.subscribed()
    container.publish(b"2", message_id="b")
    container.clock.advance(-0.5)
    assert container.publish(b"1", message_id="a") == 0
    assert container.sender.data("c") == [2]


@pytest.mark.parametrize("how", ["rotate", "private", "delete", "datasource", "expiry"])
def test_who_lost_the_right_gets_nothing_after_a_second(how: str) -> None:
    container = GatewayContainer()
    container.subscribed()
    container.publish(b"1")
    match how:
        case "rotate":
            container.revoke()
        case "private":
            container.change(visibility=Visibility.PRIVATE)
        case "delete":
            container.change(deleted=True)
        case "datasource":
            container.change(intents={DATASOURCE: "other"})
        case "expiry":
            container.clock.advance(300)
    container.clock.advance(1.0)
    assert container.publish(b"2") == 0
    assert container.sender.data("c") == [1]
    assert container.subscriptions.rows[KEY].live, "ending a subscription is revalidation's business"


def test_signed_in_viewers_as_well() -> None:
    container = GatewayContainer()
    container.subscribed("m", user="member")
    container.publish(b"1")
    container.access.users["member"] = UserAccess("member", Role.VIEWER, True, 2)
    container.clock.advance(1.0)
    assert container.publish(b"2") == 0
    container.access.users["member"] = UserAccess("member", Role.VIEWER, False, 1)
    container.clock.advance(1.0)
    assert container.publish(b"3") == 0


def test_a_decision_counts_from_the_start_of_its_read() -> None:
    container = GatewayContainer()
    container.subscribed()
    read = container.access.read

    def slow(*args: object) -> object:
        answer = read(*args)  # type: ignore[arg-type]
        container.clock.advance(1.5)
        return answer

    container.access.read = slow  # type: ignore[method-assign, assignment]
    container.publish(b"1")
    before = container.access.reads
    container.access.read = read  # type: ignore[method-assign]
    container.publish(b"2")
    assert container.access.reads == before + 1, "an answer older than a second at its arrival is not used again"


def test_answers_that_come_too_late_twice_lose_no_frame() -> None:
    """On a starved machine a read may take more than a second, and the next one may not."""
    container = GatewayContainer()
    container.subscribed()
    read, slow_reads = container.access.read, [1.5, 1.5, 1.5]

    def slow(*args: object) -> object:
        answer = read(*args)  # type: ignore[arg-type]
        container.clock.advance(slow_reads.pop() if slow_reads else 0)
        return answer

    container.access.read = slow  # type: ignore[method-assign, assignment]
    queued = len(container.catch_ups.queued)
    assert container.publish(b"1") == 1
    assert container.sender.data("c") == [1] and len(container.catch_ups.queued) == queued


def test_what_cannot_be_checked_is_withheld_and_nobody_is_ended() -> None:
    container = GatewayContainer()
    container.subscribed()

    def down(*_args: object) -> object:
        raise Unavailable("down")

    container.access.read = down  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        container.publish(b"1")
    assert container.sender.data("c") == [] and container.subscriptions.rows[KEY].live


def test_reads_do_not_grow_with_the_audience() -> None:
    costs = []
    for viewers in (1, 50):
        container = GatewayContainer()
        for number in range(viewers):
            container.subscribed(f"c{number}")
        container.publish(b"1")
        before = container.access.reads
        for number in range(10):
            container.publish(b"2", message_id=f"m{number}")
        costs.append(container.access.reads - before)
    assert costs[0] == costs[1] == 0, "within the second nothing is read again"


def test_gone_viewers_are_released_and_never_keep_it_from_others() -> None:
    container = GatewayContainer()
    container.subscribed("gone")
    container.subscribed("c")
    container.sender.answers["gone"] = Delivery.GONE
    assert container.publish(b"1") == 1
    assert "gone" not in container.connections.rows and container.sender.closed == ["gone"]
    assert [key.connection_id for key in container.subscriptions.rows] == ["c"]


@pytest.mark.parametrize("outcome", [Delivery.THROTTLED, Delivery.FAILED])
def test_the_newest_value_is_tried_again(outcome: Delivery) -> None:
    container = GatewayContainer()
    container.subscribed()
    container.sender.answers["c"] = outcome
    container.publish(b"1")
    (look,) = container.catch_ups.queued
    assert look.key == KEY and not look.seen
    container.publish(b"2")
    with pytest.raises(Unavailable):
        container.catch_up(look)
    del container.sender.answers["c"]
    assert container.catch_up(look)
    assert container.sender.data("c") == [2]


def test_a_catch_up_is_only_for_the_attempt_that_asked() -> None:
    container = GatewayContainer()
    container.subscribed()
    container.publish(b"1")
    row = container.subscriptions.rows[KEY]
    stream_key = row.stream_key
    value = container.last_values.rows[stream_key]
    assert not container.catch_up(CatchUpRequest(KEY, row.generation, stream_key, {"": value.order})), (
        "it has seen the newest"
    )
    assert not container.catch_up(CatchUpRequest(KEY, "other", stream_key))
    container.revoke()
    assert not container.catch_up(CatchUpRequest(KEY, row.generation, stream_key))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["publish", "subscribe", "catch up", "lag", "wait"]), max_size=14))
def test_whoever_subscribed_ends_with_the_newest_value(steps: list[str]) -> None:
    """Lagging indexes and cached audiences lose live frames; last value and catch-up make up for it."""
    container = GatewayContainer()
    numbers = count(1)

    def publish() -> None:
        number = next(numbers)
        container.publish(str(number).encode(), message_id=f"m{number:03d}")

    def subscribe() -> None:
        if "c" not in container.connections.rows:
            container.open()
            container.handle("c", subscribe_message(container))

    actions: dict[str, Callable[[], object]] = {
        "publish": publish,
        "subscribe": subscribe,
        "lag": container.subscriptions.lag,
        "catch up": container.subscriptions.catch_up,
        "wait": lambda: container.clock.advance(0.4),
    }
    for step in steps:
        actions[step]()
    container.subscriptions.catch_up()
    container.clock.advance(3)
    for request in container.catch_ups.queued:
        container.catch_up(request)
    known = list(container.last_values.rows.values())
    if container.frames("ack") and known:
        assert str(container.sender.data("c")[-1]) == known[0].payload


def test_the_bridge_never_misses_a_stream_announced_before_the_message() -> None:
    container = GatewayContainer()
    container.publish(b"0")  # the list of streams is cached, empty
    container.subscribed()
    assert container.publish(b"1") == 1
    queries = container.streams.queries
    container.publish(b"2")
    assert container.streams.queries == queries, "and the list is not read for every message"


@pytest.mark.parametrize("bad", [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b"[" * 100_000])
def test_payloads_no_browser_would_read(bad: bytes) -> None:
    with pytest.raises(Unparsable):
        parsed(bad, "json")


def test_json_is_checked_but_not_rewritten() -> None:
    assert parsed(b' {"big": 12345678901234567890.10} \n', "json") == '{"big": 12345678901234567890.10}'
