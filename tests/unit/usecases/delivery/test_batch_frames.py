"""Connections that asked for `batch` frames: fewer messages, the same frames, and nothing more than is allowed."""

from __future__ import annotations

import json

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tidegate.domain.client_queues import Frame
from tidegate.ports.delivery import Delivery
from tidegate.protocol import messages


def subscribe_message(world: GatewayContainer, datasource: str = DATASOURCE) -> str:
    fields = {"dashboardId": DASHBOARD, "datasourceId": datasource, "sessionToken": world.token(datasource)}
    return json.dumps({"type": "subscribe", "requestId": "r", **fields})


def test_the_first_answer_is_one_message() -> None:
    world = GatewayContainer()
    for viewer, batch in (("first", False), ("plain", False), ("batch", True)):
        world.open(viewer, batch=batch)
        if viewer == "plain":
            world.publish(b"7")
        before = len(world.sender.posts)
        world.handle(viewer, subscribe_message(world))
        sent = [one for one, _ in world.sender.posts[before:]]
        kinds = [one["type"] for one in world.sender.sent[viewer]]
        assert kinds == (["ack", "status"] if viewer == "first" else ["ack", "status", "data"])
        assert len(sent) == (1 if batch else len(kinds))
        if viewer == "first":
            world.publish(b"6")


def test_a_refusal_is_never_a_batch() -> None:
    world = GatewayContainer()
    world.open("c", batch=True)
    world.handle("c", subscribe_message(world).replace('"requestId": "r"', '"requestId": ""'))
    world.handle("c", '{"type": "ping"}')
    assert [one["type"] for one in world.sender.sent["c"]] == ["ack", "pong"] and len(world.sender.posts) == 2


def test_no_answer_is_larger_than_a_frame_may_be() -> None:
    """What a client sends comes back in its answers: just within the limit itself, they may be beyond it."""
    world = GatewayContainer()
    for viewer, batch in (("plain", False), ("batch", True)):
        world.open(viewer, batch=batch)
        ping = json.dumps({"type": "ping", "requestId": "x" * 3950})
        assert len(ping) <= 4000, "what it says is within the limit"
        world.handle(viewer, ping)
        (answer,) = world.sender.sent[viewer]
        assert (answer["type"], answer["errorCode"]) == ("error", "STREAM_MESSAGE_TOO_LARGE")


def test_of_a_batch_only_what_is_allowed_leaves() -> None:
    world = GatewayContainer()
    world.add_datasource("other", "a/other")
    world.open("c", batch=True)
    for datasource in (DATASOURCE, "other"):
        world.handle("c", subscribe_message(world, datasource))
    rows = list(world.subscriptions.rows.values())
    assert len(rows) == 2 and all(row.batch for row in rows)
    world.sender.posts.clear()

    def send(value: str) -> dict[Delivery, int]:
        frames = [Frame(row, messages.data(row.key.datasource_id, value, 0.0), True) for row in rows]
        return dict(world.send(frames))

    assert send("1") == {Delivery.DELIVERED: 2} and len(world.sender.posts) == 1
    intents = world.access.dashboards[DASHBOARD].intents
    world.change(intents={**intents, "other": "another intent"})
    world.clock.advance(1.0)
    assert send("2") == {Delivery.DELIVERED: 1, Delivery.WITHHELD: 1}
    world.change(share_version=9)
    world.clock.advance(1.0)
    assert send("3") == {Delivery.WITHHELD: 2}
    assert world.sender.data("c") == [1, 1, 2]
