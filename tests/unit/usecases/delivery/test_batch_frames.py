"""Connections that asked for `batch` frames: fewer messages, the same frames, and nothing more than is allowed."""

from __future__ import annotations

import json

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tidegate.domain.client_queues import Frame
from tidegate.ports.delivery import Delivery
from tidegate.protocol import messages


def subscribe_message(container: GatewayContainer, datasource: str = DATASOURCE) -> str:
    fields = {"dashboardId": DASHBOARD, "datasourceId": datasource, "sessionToken": container.token(datasource)}
    return json.dumps({"type": "subscribe", "requestId": "r", **fields})


def test_the_first_answer_is_one_message() -> None:
    container = GatewayContainer()
    for viewer, batch in (("first", False), ("plain", False), ("batch", True)):
        container.open(viewer, batch=batch)
        if viewer == "plain":
            container.publish(b"7")
        before = len(container.sender.posts)
        container.handle(viewer, subscribe_message(container))
        sent = [viewer_id for viewer_id, _ in container.sender.posts[before:]]
        kinds = [frame["type"] for frame in container.sender.sent[viewer]]
        assert kinds == (["ack", "status"] if viewer == "first" else ["ack", "status", "data"])
        assert len(sent) == (1 if batch else len(kinds))
        if viewer == "first":
            container.publish(b"6")


def test_a_refusal_is_never_a_batch() -> None:
    container = GatewayContainer()
    container.open("c", batch=True)
    container.handle("c", subscribe_message(container).replace('"requestId": "r"', '"requestId": ""'))
    container.handle("c", '{"type": "ping"}')
    assert [frame["type"] for frame in container.sender.sent["c"]] == ["ack", "pong"] and len(
        container.sender.posts
    ) == 2


def test_no_answer_is_larger_than_a_frame_may_be() -> None:
    """What a client sends comes back in its answers: just within the limit itself, they may be beyond it."""
    container = GatewayContainer()
    for viewer, batch in (("plain", False), ("batch", True)):
        container.open(viewer, batch=batch)
        ping = json.dumps({"type": "ping", "requestId": "x" * 3950})
        assert len(ping) <= 4000, "what it says is within the limit"
        container.handle(viewer, ping)
        (answer,) = container.sender.sent[viewer]
        assert (answer["type"], answer["errorCode"]) == ("error", "STREAM_MESSAGE_TOO_LARGE")


def test_of_a_batch_only_what_is_allowed_leaves() -> None:
    container = GatewayContainer()
    container.add_datasource("other", "a/other")
    container.open("c", batch=True)
    for datasource in (DATASOURCE, "other"):
        container.handle("c", subscribe_message(container, datasource))
    rows = list(container.subscriptions.rows.values())
    assert len(rows) == 2 and all(row.batch for row in rows)
    container.sender.posts.clear()

    def send(value: str) -> dict[Delivery, int]:
        frames = [Frame(row, messages.data(row.key.datasource_id, value, 0.0, "1"), True) for row in rows]
        return dict(container.send(frames))

    assert send("1") == {Delivery.DELIVERED: 2} and len(container.sender.posts) == 1
    intents = container.access.dashboards[DASHBOARD].intents
    container.change(intents={**intents, "other": "another intent"})
    container.clock.advance(1.0)
    assert send("2") == {Delivery.DELIVERED: 1, Delivery.WITHHELD: 1}
    container.change(share_version=9)
    container.clock.advance(1.0)
    assert send("3") == {Delivery.WITHHELD: 2}
    assert container.sender.data("c") == [1, 1, 2]
