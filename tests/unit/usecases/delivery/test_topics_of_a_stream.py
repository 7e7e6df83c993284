"""A stream with a wildcard is as many series as it has topics. None takes the place of another."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from tests.containers.gateway import DASHBOARD, GatewayContainer
from tidegate.domain.access import FRESH_S
from tidegate.domain.subscriptions import MOST_TOPICS, CatchUpRequest, LastValue, SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery, OutboundMessage, SendResult
from tidegate.usecases.delivery.topic_cap import TopicCap

FLEET = "fleet"


def fleet() -> GatewayContainer:
    """A dashboard with a datasource of the topics `a/+`."""
    container = GatewayContainer()
    container.add_datasource(FLEET, "a/+")
    return container


def asked(container: GatewayContainer, viewer: str = "c", *, batch: bool = False) -> None:
    message = {"type": "subscribe", "requestId": "r", "dashboardId": DASHBOARD, "datasourceId": FLEET}
    opened = container.open(viewer, ip=viewer, batch=batch)
    container.handle(opened, json.dumps({**message, "sessionToken": container.token(FLEET)}))


def looked(container: GatewayContainer) -> None:
    queued, container.catch_ups.queued[:] = list(container.catch_ups.queued), []
    for request in queued:
        container.catch_up(request)


def shown(container: GatewayContainer, viewer: str = "c") -> dict[str, Any]:
    """The value of each topic that the viewer was sent last."""
    return {frame["topic"]: frame["payload"] for frame in container.frames("data", viewer)}


def published(container: GatewayContainer, devices: Iterable[int], value: int = 1) -> None:
    for device in devices:
        container.publish(str(value).encode(), f"a/d{device}")


def stream_key(container: GatewayContainer) -> str:
    return next(row.stream_key for row in container.subscriptions.rows.values() if row.key.datasource_id == FLEET)


def test_no_topic_takes_the_place_of_another() -> None:
    """Sixteen devices publish four values each at the same moment. The broker's times order those of a device, and
    those of others come between them in any order."""
    container = fleet()
    container.subscribed("c", FLEET)
    began = round(container.clock.now() * 1000) + 1000
    messages = [(began + value * 20 + device, device, value) for value in range(4) for device in range(16)]
    arriving = sorted(messages, key=lambda message: (message[2], random.Random(message[1]).random()))
    for at_ms, device, value in arriving:
        container.publish(str(value).encode(), f"a/d{device}", at_ms=at_ms)
    seen = Counter(frame["topic"] for frame in container.frames("data"))
    assert seen == {f"a/d{device}": 4 for device in range(16)}
    assert ("messages_outdated",) not in container.observer.counts


def test_an_older_value_of_the_same_topic_is_dropped() -> None:
    container = fleet()
    container.subscribed("c", FLEET)
    container.publish(b"2", "a/x")
    container.publish(b"1", "a/x", at_ms=round(container.clock.now() * 1000) - 500)
    container.publish(b"1", "a/y", at_ms=round(container.clock.now() * 1000) - 500)
    assert shown(container) == {"a/x": 2, "a/y": 1}


@pytest.mark.parametrize("batch", [False, True])
def test_who_subscribes_gets_the_last_value_of_each_topic(batch: bool) -> None:
    container = fleet()
    container.subscribed("first", FLEET)
    published(container, range(40), 1)
    published(container, range(5), 2)
    asked(container, batch=batch)
    assert shown(container) == {f"a/d{device}": 2 if device < 5 else 1 for device in range(40)}
    kinds = [frame["type"] for frame in container.sender.sent["c"]]
    assert kinds == ["ack", "status", *["data"] * 40] and all(frame["retained"] for frame in container.frames("data"))
    container.sender.sent.clear()
    looked(container)
    assert shown(container) == {}, "the catch-up knows what was sent"


def test_a_datasource_without_a_wildcard_has_no_topic() -> None:
    container = GatewayContainer()
    container.subscribed()
    container.publish()
    (frame,) = container.frames("data")
    assert "topic" not in frame


def test_what_leaves_too_late_after_the_check_is_left_to_the_catch_up() -> None:
    container = fleet()
    container.subscribed("first", FLEET)
    published(container, range(30))
    many = container.sender.post_many

    def slowly(
        posts: Iterable[OutboundMessage],
        *,
        before_each: Callable[[OutboundMessage], bool] | None = None,
        deadline: float | None = None,
    ) -> Sequence[SendResult]:
        def before(post: OutboundMessage) -> bool:
            container.clock.advance(FRESH_S / 10)
            return before_each is None or before_each(post)

        return many(posts, before_each=before)

    container.sender.post_many = slowly  # type: ignore[method-assign]
    asked(container)
    assert 0 < len(shown(container)) < 30
    looked(container)
    assert len(shown(container)) == 30


def test_a_throttled_viewer_gets_the_topics_that_were_missed_and_no_others() -> None:
    container = fleet()
    container.subscribed("c", FLEET)
    published(container, range(10))
    looked(container)
    container.sender.sent.clear()
    container.sender.answers["c"] = Delivery.THROTTLED
    published(container, [3, 7], 2)
    container.sender.answers.clear()
    looked(container)
    assert shown(container) == {"a/d3": 2, "a/d7": 2}


def test_a_value_that_passes_during_a_catch_up_comes_last() -> None:
    container = fleet()
    container.subscribed("c", FLEET)
    published(container, range(3))
    looked(container)
    post = container.sender.post

    def overtaken(connection_id: str, body: bytes) -> Delivery:
        container.sender.post = post  # type: ignore[method-assign]
        container.clock.advance(FRESH_S)
        container.publish(b"2", "a/d1")
        return post(connection_id, body)

    container.sender.post = overtaken  # type: ignore[method-assign]
    row = container.subscriptions.rows[SubscriptionKey(DASHBOARD, "c", FLEET)]
    assert container.catch_up(CatchUpRequest(row.key, row.generation, row.stream_key))
    assert shown(container) == {"a/d0": 1, "a/d1": 2, "a/d2": 1}


def test_of_too_many_topics_the_newest_are_shown() -> None:
    container = fleet()
    container.subscribed("first", FLEET)
    published(container, range(MOST_TOPICS + 30))
    asked(container)
    assert set(shown(container)) == {f"a/d{device}" for device in range(30, MOST_TOPICS + 30)}


def test_the_stalest_topics_go_and_known_ones_cost_nothing() -> None:
    container = fleet()
    container.subscribed("c", FLEET)
    chances = random.Random(1)
    cap = TopicCap(container.last_values, chances.random, container.observer)
    trims = 0
    trim = container.last_values.trim

    def counted(stream_key: str) -> int:
        nonlocal trims
        trims += 1
        return trim(stream_key)

    container.last_values.trim = counted  # type: ignore[method-assign]
    most = 0
    for number in range(3_000):
        value = LastValue("1", number, "", f"a/d{number}")
        assert container.last_values.put_if_newer("stream", value)
        for _ in range(3):
            cap("stream", f"a/d{number}")
        most = max(most, len([key for key in container.last_values.rows if key[0] == "stream"]))
    assert trims < 100 and MOST_TOPICS < most < MOST_TOPICS + 400
    assert container.observer.counts[("topics_dropped",)] >= 3_000 - most
    assert ("stream", "a/d2999") in container.last_values.rows


def test_a_store_that_fails_to_trim_fails_no_message() -> None:
    container = fleet()

    def down(stream_key: str) -> int:
        raise Unavailable("down")

    container.last_values.trim = down  # type: ignore[method-assign]
    TopicCap(container.last_values, lambda: 0.0, container.observer)("stream", "a/d1")


def taken_back(container: GatewayContainer, topic: str) -> None:
    container.clock.advance(0.001)
    stream = container.streams.rows[stream_key(container)]
    at_ms = round(container.clock.now() * 1000)
    container.fan_out.deliver(stream, LastValue("null", at_ms, "", topic, deleted=True))


def test_a_value_that_is_taken_back_is_told_once_and_shown_to_nobody_else() -> None:
    container = fleet()
    container.subscribed("c", FLEET)
    published(container, range(2))
    looked(container)
    before = round(container.clock.now() * 1000)
    taken_back(container, "a/d1")
    container.publish(b"9", "a/d1", at_ms=before)  # an older one that is late
    looked(container)
    last = [frame for frame in container.frames("data") if frame["topic"] == "a/d1"][1:]
    assert [(frame["payload"], frame.get("deleted")) for frame in last] == [(None, True)]
    asked(container, "late")
    looked(container)
    assert shown(container, "late") == {"a/d0": 1}
    container.clock.advance(FRESH_S)  # the audience that was read before is too old
    container.publish(b"5", "a/d1")
    assert shown(container, "late") == {"a/d0": 1, "a/d1": 5}, "a new value is a value"


def test_who_missed_that_a_value_was_taken_back_is_told_by_the_catch_up() -> None:
    container = fleet()
    container.subscribed("c", FLEET)
    published(container, range(2))
    looked(container)
    container.sender.answers["c"] = Delivery.THROTTLED
    taken_back(container, "a/d1")
    container.sender.answers.clear()
    looked(container)
    assert shown(container) == {"a/d0": 1, "a/d1": None}
    assert container.frames("data")[-1]["deleted"] is True
