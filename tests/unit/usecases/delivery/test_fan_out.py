from __future__ import annotations

import json

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


def subscribe_message(world: GatewayContainer) -> str:
    fields = {"dashboardId": DASHBOARD, "datasourceId": DATASOURCE, "sessionToken": world.token()}
    return json.dumps({"type": "subscribe", "requestId": "r", **fields})


def test_one_message_reaches_every_viewer_once() -> None:
    world = GatewayContainer()
    for number in range(5):
        world.subscribed(f"c{number}")
    assert world.publish(b'{"t": 21.50}') == 5
    assert [world.sender.data(f"c{number}") for number in range(5)] == [[{"t": 21.5}]] * 5


def test_wildcards_parsers_and_entries() -> None:
    world = GatewayContainer()
    world.add_datasource("wild", "a/+")
    world.add_datasource("text", "a/b", "text")
    world.open()
    for datasource in (DATASOURCE, "wild", "text"):
        world.subscribe("c", DASHBOARD, datasource, world.token(datasource))
    world.publish(b"7")
    received = {one["datasourceId"]: one["payload"] for one in world.frames("data")}
    assert received == {DATASOURCE: 7, "wild": 7, "text": "7"}
    world.publish(b"8", topic="a/other")
    assert [one["datasourceId"] for one in world.frames("data")][3:] == ["wild"]
    world.publish(b"\xff{", topic="a/b", message_id="n")
    assert [one["errorCode"] for one in world.frames("error")] == ["STREAM_PROTOCOL_ERROR"] * 2
    assert world.sender.data("c")[-1] == "\ufffd{"


def test_sizes() -> None:
    world = GatewayContainer()
    world.subscribed()
    world.publish(b'"' + b"x" * 2000 + b'"')
    assert world.frames("error")[-1]["message"] == "MQTT payload exceeded size limit"
    assert world.sender.data("c") == []
    world.publish(b'"fits"')
    assert world.sender.data("c") == ["fits"]


def test_older_messages_are_dropped() -> None:
    world = GatewayContainer()
    world.subscribed()
    world.publish(b"2", message_id="b")
    world.clock.advance(-0.5)
    assert world.publish(b"1", message_id="a") == 0
    assert world.sender.data("c") == [2]


@pytest.mark.parametrize("how", ["rotate", "private", "delete", "datasource", "expiry"])
def test_who_lost_the_right_gets_nothing_after_a_second(how: str) -> None:
    world = GatewayContainer()
    world.subscribed()
    world.publish(b"1")
    match how:
        case "rotate":
            world.revoke()
        case "private":
            world.change(visibility=Visibility.PRIVATE)
        case "delete":
            world.change(deleted=True)
        case "datasource":
            world.change(intents={DATASOURCE: "other"})
        case "expiry":
            world.clock.advance(300)
    world.clock.advance(1.0)
    assert world.publish(b"2") == 0
    assert world.sender.data("c") == [1]
    assert world.subscriptions.rows[KEY].live, "ending a subscription is revalidation's business"


def test_signed_in_viewers_as_well() -> None:
    world = GatewayContainer()
    world.subscribed("m", user="member")
    world.publish(b"1")
    world.access.users["member"] = UserAccess("member", Role.VIEWER, True, 2)
    world.clock.advance(1.0)
    assert world.publish(b"2") == 0
    world.access.users["member"] = UserAccess("member", Role.VIEWER, False, 1)
    world.clock.advance(1.0)
    assert world.publish(b"3") == 0


def test_a_decision_counts_from_the_start_of_its_read() -> None:
    world = GatewayContainer()
    world.subscribed()
    read = world.access.read

    def slow(*args: object) -> object:
        answer = read(*args)  # type: ignore[arg-type]
        world.clock.advance(1.5)
        return answer

    world.access.read = slow  # type: ignore[method-assign, assignment]
    world.publish(b"1")
    before = world.access.reads
    world.access.read = read  # type: ignore[method-assign]
    world.publish(b"2")
    assert world.access.reads == before + 1, "an answer older than a second at its arrival is not used again"


def test_what_cannot_be_checked_is_withheld_and_nobody_is_ended() -> None:
    world = GatewayContainer()
    world.subscribed()

    def down(*_args: object) -> object:
        raise Unavailable("down")

    world.access.read = down  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        world.publish(b"1")
    assert world.sender.data("c") == [] and world.subscriptions.rows[KEY].live


def test_reads_do_not_grow_with_the_audience() -> None:
    costs = []
    for viewers in (1, 50):
        world = GatewayContainer()
        for number in range(viewers):
            world.subscribed(f"c{number}")
        world.publish(b"1")
        before = world.access.reads
        for number in range(10):
            world.publish(b"2", message_id=f"m{number}")
        costs.append(world.access.reads - before)
    assert costs[0] == costs[1] == 0, "within the second nothing is read again"


def test_gone_viewers_are_released_and_never_keep_it_from_others() -> None:
    world = GatewayContainer()
    world.subscribed("gone")
    world.subscribed("c")
    world.sender.answers["gone"] = Delivery.GONE
    assert world.publish(b"1") == 1
    assert "gone" not in world.connections.rows and world.sender.closed == ["gone"]
    assert [key.connection_id for key in world.subscriptions.rows] == ["c"]


@pytest.mark.parametrize("outcome", [Delivery.THROTTLED, Delivery.FAILED])
def test_the_newest_value_is_tried_again(outcome: Delivery) -> None:
    world = GatewayContainer()
    world.subscribed()
    world.sender.answers["c"] = outcome
    world.publish(b"1")
    ((key, attempt, stream_key, seen),) = world.catch_ups.queued
    assert key == KEY and seen is None
    world.publish(b"2")
    look = CatchUpRequest(key, attempt, stream_key, None)
    with pytest.raises(Unavailable):
        world.catch_up(look)
    del world.sender.answers["c"]
    assert world.catch_up(look)
    assert world.sender.data("c") == [2]


def test_a_second_look_is_only_for_the_attempt_that_asked() -> None:
    world = GatewayContainer()
    world.subscribed()
    world.publish(b"1")
    row = world.subscriptions.rows[KEY]
    stream_key = row.stream.partition("#")[0]
    value = world.last_values.rows[stream_key]
    assert not world.catch_up(CatchUpRequest(KEY, row.generation, stream_key, value.order)), "it has seen the newest"
    assert not world.catch_up(CatchUpRequest(KEY, "other", stream_key, None))
    world.revoke()
    assert not world.catch_up(CatchUpRequest(KEY, row.generation, stream_key, None))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["publish", "subscribe", "catch up", "lag", "wait"]), max_size=14))
def test_whoever_subscribed_ends_with_the_newest_value(steps: list[str]) -> None:
    """Lagging indexes and cached audiences lose live frames; last value and catch-up make up for it."""
    world = GatewayContainer()
    number = 0
    for step in steps:
        match step:
            case "publish":
                number += 1
                world.publish(str(number).encode(), message_id=f"m{number:03d}")
            case "subscribe":
                if "c" not in world.connections.rows:
                    world.open()
                    world.handle("c", subscribe_message(world))
            case "lag":
                world.subscriptions.lag()
            case "catch up":
                world.subscriptions.catch_up()
            case "wait":
                world.clock.advance(0.4)
    world.subscriptions.catch_up()
    world.clock.advance(3)
    for key, attempt, stream_key, seen in world.catch_ups.queued:
        world.catch_up(CatchUpRequest(key, attempt, stream_key, seen.order if seen else None))
    known = list(world.last_values.rows.values())
    if world.frames("ack") and known:
        assert str(world.sender.data("c")[-1]) == known[0].payload


def test_the_bridge_never_misses_a_stream_announced_before_the_message() -> None:
    world = GatewayContainer()
    world.publish(b"0")  # the list of streams is cached, empty
    world.subscribed()
    assert world.publish(b"1") == 1
    queries = world.streams.queries
    world.publish(b"2")
    assert world.streams.queries == queries, "and the list is not read for every message"


@pytest.mark.parametrize("bad", [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b"[" * 100_000])
def test_payloads_no_browser_would_read(bad: bytes) -> None:
    with pytest.raises(Unparsable):
        parsed(bad, "json")


def test_json_is_checked_but_not_rewritten() -> None:
    assert parsed(b' {"big": 12345678901234567890.10} \n', "json") == '{"big": 12345678901234567890.10}'
