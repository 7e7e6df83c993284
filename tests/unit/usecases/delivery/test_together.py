"""A batch of device messages: together where viewers asked for it, the newest of each topic, and never for long."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.containers.gateway import DASHBOARD, PER_SECOND, GatewayContainer
from tidegate.domain import client_queues, crowds
from tidegate.domain.access import FRESH_S
from tidegate.domain.crowds import AUDIENCE_SHARDS
from tidegate.domain.tokens import DASHBOARD_SCOPE
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery
from tidegate.ports.gateway import SETTLE_S
from tidegate.protocol.batches import MAX_BYTES
from tidegate.usecases.delivery.bridge import REPEATED_S, DeviceMessage
from tidegate.usecases.delivery.together import DELAY_S, LATE_S

FLEET = "fleet"
INTERVAL_S = 1 / PER_SECOND


class Died(BaseException):
    """The process ends here."""


def fleet(*viewers: str, plain: Sequence[str] = ()) -> GatewayContainer:
    """A dashboard with a datasource of the topics `a/+`, viewers with batch frames, and `plain` ones without."""
    container = GatewayContainer()
    container.add_datasource(FLEET, "a/+")
    for viewer in (*viewers, *plain):
        watch(container, viewer, batch=viewer in viewers)
    return container


def watch(container: GatewayContainer, viewer: str, datasource: str = FLEET, *, batch: bool = False) -> None:
    container.open(viewer, ip=viewer, batch=batch)
    message = {"type": "subscribe", "requestId": "r", "dashboardId": DASHBOARD, "datasourceId": datasource}
    container.handle(viewer, json.dumps({**message, "sessionToken": container.token(datasource, ttl=7000)}))


_numbers = count(1)


def message(container: GatewayContainer, topic: str, payload: object, *, age_s: float = 0.0) -> DeviceMessage:
    container.clock.advance(0.001)
    at_ms = round((container.clock.now() - age_s) * 1000)
    return DeviceMessage("a/#", f"a/{topic}", json.dumps(payload).encode(), at_ms, f"{next(_numbers):06d}")


def batch(container: GatewayContainer, *values: tuple[str, object], age_s: float = 0.0) -> Sequence[DeviceMessage]:
    """Returns those that failed."""
    return container.bridge.batch([message(container, topic, payload, age_s=age_s) for topic, payload in values])


def shown(container: GatewayContainer, viewer: str) -> dict[str, Any]:
    """The value of each topic that the viewer was sent last."""
    return {frame["topic"]: frame["payload"] for frame in container.frames("data", viewer)}


def data_messages(container: GatewayContainer, viewer: str) -> list[list[dict[str, Any]]]:
    """The values that the viewer was sent, message by message."""
    sent = [json.loads(body) for connection, body in container.sender.bodies if connection == viewer]
    found = [[each for each in body.get("messages", [body]) if each["type"] == "data"] for body in sent]
    return [frames for frames in found if frames]


def send_parts(container: GatewayContainer) -> None:
    """Every message of the queue of parts, each by an invocation of its own, until there is none."""
    while container.crowds.asked:
        asked, container.crowds.asked = container.crowds.asked, []
        container.clock.advance(DELAY_S)
        for part in asked:
            container.send_part()(part)


def unavailable(*_args: object, **_options: object) -> Any:
    raise Unavailable("not answered")


# --- together ---------------------------------------------------------------------------------------------


def test_the_newest_of_each_topic_go_out_in_one_message() -> None:
    container = fleet("batching", plain=["plain"])
    assert not batch(container, ("x", 1), ("y", 2), ("x", 3), ("z", 4))
    (together,) = data_messages(container, "batching")
    assert [(frame["topic"], frame["payload"]) for frame in together] == [("a/y", 2), ("a/x", 3), ("a/z", 4)]
    assert data_messages(container, "plain") == [[frame] for frame in together]
    assert container.observer.counts[("messages_conflated",)] == 1 and not container.crowds.asked


def test_several_datasources_of_a_connection_share_a_message() -> None:
    container = GatewayContainer()
    for topic in ("x", "y"):
        container.add_datasource(topic, f"a/{topic}")
        watch(container, "c", topic, batch=True)
    batch(container, ("x", 1), ("y", 2))
    (together,) = data_messages(container, "c")
    assert [(frame["datasourceId"], frame["payload"]) for frame in together] == [("x", 1), ("y", 2)]


def test_no_batch_frame_is_larger_than_one_may_be_and_none_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    container = fleet("c")
    values = [(f"t{number}", "x" * 1800) for number in range(30)]
    batch(container, *values)
    sizes = [size for connection, size in container.sender.posts if connection == "c"]
    assert len(data_messages(container, "c")) == 2 and max(sizes) <= MAX_BYTES
    monkeypatch.setattr(client_queues, "KEPT_BYTES", 12_000)  # less than the batch has
    container.clock.advance(1)
    batch(container, *values)
    assert sum(map(len, data_messages(container, "c"))) == 60 and ("frames_given_up",) not in container.observer.counts


def test_what_cannot_be_shown_is_told_and_keeps_nothing_from_the_others() -> None:
    container = fleet("c")
    large = message(container, "x", "x" * 3000)
    broken = DeviceMessage("a/#", "a/y", b"{", large.timestamp_ms, "m")
    assert not container.bridge.batch([large, broken, message(container, "z", 1)])
    assert [frame["errorCode"] for frame in container.frames("error")] == [
        "STREAM_MESSAGE_TOO_LARGE",
        "STREAM_PROTOCOL_ERROR",
    ]
    assert shown(container, "c") == {"a/z": 1}


def test_who_has_no_right_any_more_gets_nothing_of_a_batch() -> None:
    container = fleet("c")
    batch(container, ("x", 1), ("y", 1))
    container.revoke()
    container.clock.advance(FRESH_S)
    batch(container, ("x", 2), ("y", 2))
    container.clock.advance(LATE_S + 2)
    batch(container, ("x", 3), ("y", 3), age_s=LATE_S + 1)
    assert container.crowds.asked
    send_parts(container)
    assert shown(container, "c") == {"a/x": 1, "a/y": 1}


def test_each_value_that_is_sent_is_kept_in_the_history() -> None:
    container = fleet()
    container.add_datasource(FLEET, "a/+", history={"seconds": 60, "everyMs": 1000})
    watch(container, "c", batch=True)
    assert not batch(container, ("x", 1), ("y", 2))
    assert not batch(container, ("z", 3), age_s=LATE_S + 1)
    assert {series.topic for series, _ in container.history.items} == {"a/x", "a/y", "a/z"}
    container.history.add = unavailable  # type: ignore[method-assign]
    container.clock.advance(1)
    assert [each.topic for each in batch(container, ("x", 4))] == ["a/x"], "it comes again, for its history"
    assert shown(container, "c")["a/x"] == 4, "and viewers do not wait for it"


# --- the interval -----------------------------------------------------------------------------------------


def test_the_topics_of_a_batch_wait_once() -> None:
    container = fleet("c")
    topics = [f"t{number}" for number in range(30)]
    batch(container, *((topic, 1) for topic in topics))
    began = container.clock.now()
    batch(container, ("new", 2), *((topic, 2) for topic in topics))
    assert container.clock.now() - began <= INTERVAL_S + 31 * 0.001 + 0.001, "not thirty times the interval"
    first, at_once, waited = data_messages(container, "c")
    assert len(first) == len(waited) == 30 and [frame["topic"] for frame in at_once] == ["a/new"]


def test_a_value_that_waited_is_sent_as_the_newest_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    container = fleet("c")
    batch(container, ("x", 1))
    newer, wait = message(container, "x", 3, age_s=-0.01), container.clock.advance

    def meanwhile(seconds: float) -> None:
        monkeypatch.setattr(container.together._interval, "_sleep", wait)
        assert not container.bridge.batch([newer]), "left to the batch that waits"
        wait(seconds)

    monkeypatch.setattr(container.together._interval, "_sleep", meanwhile)
    batch(container, ("x", 2))
    assert [frame["payload"] for frame in container.frames("data")] == [1, 3]


# --- late, short, overtaken: the topic sender ---------------------------------------------------------------


def test_a_late_value_is_not_sent_but_the_newest_is_and_together() -> None:
    container = fleet("c")
    for number in range(5):  # a queue that is behind, and is caught up with
        assert not batch(container, ("x", number), ("y", number), age_s=LATE_S + 1)
    assert not container.frames("data"), "a batch that is behind sends nothing"
    (part,) = container.crowds.asked
    assert part.topics == ("a/x", "a/y") and part.begun and container.crowds.delays == [DELAY_S]
    send_parts(container)
    (together,) = data_messages(container, "c")
    assert [(frame["topic"], frame["payload"]) for frame in together] == [("a/x", 4), ("a/y", 4)]
    assert container.observer.counts[("messages_conflated",)] == 8


def test_a_value_that_a_topic_sender_misses_is_sent_by_it_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    container = fleet("c")
    batch(container, ("x", 1), age_s=LATE_S + 1)
    (part,) = container.crowds.asked
    container.crowds.asked = []
    post, during = container.sender.post, [2, 3]

    def newer_meanwhile(connection_id: str, body: bytes) -> Delivery:
        if during:
            batch(container, ("x", during.pop(0)), age_s=LATE_S + 1)
        return post(connection_id, body)

    monkeypatch.setattr(container.sender, "post", newer_meanwhile)
    container.send_part()(part)
    assert shown(container, "c") == {"a/x": 3} and not container.crowds.asked, "nobody else was asked"


def test_a_value_that_overtook_another_is_sent_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    container = fleet("c")
    post, during = container.sender.post, [2]

    def newer_meanwhile(connection_id: str, body: bytes) -> Delivery:
        if during:
            container.clock.advance(INTERVAL_S)
            batch(container, ("x", during.pop()))
        return post(connection_id, body)

    monkeypatch.setattr(container.sender, "post", newer_meanwhile)
    batch(container, ("x", 1))
    assert shown(container, "c") == {"a/x": 1}, "the older one came last"
    send_parts(container)
    assert shown(container, "c") == {"a/x": 2} and container.observer.counts[("values_overtaken",)] == 1


def test_a_crowd_is_asked_for_once_for_all_topics_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowds, "CROWD", 16)
    viewers = [f"viewer-{number}" for number in range(48)]
    container = fleet(*viewers)
    assert not batch(container, ("x", 1), ("y", 2))
    assert [part.shard for part in container.crowds.asked] == list(range(AUDIENCE_SHARDS))
    send_parts(container)
    for viewer in viewers:
        (together,) = data_messages(container, viewer)
        assert [(frame["topic"], frame["payload"]) for frame in together] == [("a/x", 1), ("a/y", 2)]
    container.clock.advance(LATE_S + 2)
    assert not batch(container, ("x", 3), age_s=LATE_S + 1)
    send_parts(container)
    assert {shown(container, viewer)["a/x"] for viewer in viewers} == {3}


# --- what fails -------------------------------------------------------------------------------------------


def test_only_what_fails_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    container = fleet("c")
    admit = container.last_values.admit

    def one_unavailable(stream_key: str, value: Any, *args: Any) -> Any:
        return unavailable() if value.topic == "a/y" else admit(stream_key, value, *args)

    messages = [message(container, topic, 1) for topic in ("x", "y", "z")]
    with monkeypatch.context() as patched:
        patched.setattr(container.last_values, "admit", one_unavailable)
        assert container.bridge.batch(messages) == messages[1:2]
    assert shown(container, "c") == {"a/x": 1, "a/z": 1}
    assert not container.bridge.batch(messages[1:2])
    assert shown(container, "c") == {"a/x": 1, "a/z": 1, "a/y": 1}


@pytest.mark.parametrize(
    "where", ["between the store and the send", "in the send", "between the note and the question"]
)
def test_a_batch_that_dies_is_made_up_for_by_its_repetition(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_args: object, **_options: object) -> Any:
        raise Died

    container = fleet("c")
    late = where == "between the note and the question"
    messages = [message(container, topic, 1, age_s=LATE_S + 1 if late else 0) for topic in ("x", "y")]
    broken: tuple[Any, str] = {
        "between the store and the send": (container.fan_out, "frames_of"),
        "in the send": (container.sender, "post"),
        "between the note and the question": (container.crowds, "ask"),
    }[where]
    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(*broken, dies)
        container.bridge.batch(messages)
    newer = message(container, "x", 2, age_s=LATE_S + 1 if late else 0)
    if late:
        assert not container.bridge.batch([newer]), "left to a sender that was never asked for"
    container.clock.advance(180)  # the visibility timeout of the queue
    assert not container.bridge.batch(messages)
    send_parts(container)
    assert shown(container, "c") == {"a/x": 2 if late else 1, "a/y": 1}


def test_a_late_outdated_value_makes_sure_of_the_newest_but_not_each_time() -> None:
    """The batch that sent it may have died before it looked again."""
    container = fleet("c")
    old = message(container, "x", 1)
    batch(container, ("x", 2))
    container.clock.advance(REPEATED_S)
    assert not container.bridge.batch([old]) and len(container.crowds.asked) == 1
    send_parts(container)
    assert [frame["payload"] for frame in container.frames("data")] == [2, 2]
    assert not container.bridge.batch([old]) and not container.crowds.asked


def test_a_topic_sender_that_cannot_be_asked_for_is_not_relied_upon(monkeypatch: pytest.MonkeyPatch) -> None:
    container = fleet("c")
    with monkeypatch.context() as patched:
        patched.setattr(container.crowds, "ask", unavailable)
        assert len(batch(container, ("x", 1), ("y", 1), age_s=LATE_S + 1)) == 2
    assert not batch(container, ("x", 2), age_s=LATE_S + 1)
    send_parts(container)
    assert shown(container, "c") == {"a/x": 2}


def test_a_topic_sender_that_died_is_replaced_after_a_while() -> None:
    container = fleet("c")
    batch(container, ("x", 1), age_s=LATE_S + 1)
    container.crowds.asked = []
    batch(container, ("x", 2), age_s=LATE_S + 1)
    assert not container.crowds.asked, "it may live"
    container.clock.advance(SETTLE_S + 1)
    batch(container, ("x", 3), age_s=LATE_S + 1)
    send_parts(container)
    assert shown(container, "c") == {"a/x": 3}


# --- whatever comes -----------------------------------------------------------------------------------------

TOPICS, VIEWERS = ("x", "y", "z"), ("batching", "plain", "gone", "member")

#: One batch: (topic, age in seconds, how it fails), and what happens before it.
BATCHES = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(TOPICS), st.sampled_from([0.0, 0.0, 2.0, 10.0, 40.0])), max_size=8),
        st.sampled_from([0.0, 0.05, 0.2, 5.0]),
        st.sampled_from(["", "", "redelivered", "store", "queue", "sender", "lost"]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(batches=BATCHES)
def test_the_last_value_of_each_topic_comes_to_everybody_with_the_right(
    batches: list[tuple[list[tuple[str, float]], float, str]],
) -> None:
    container = fleet("batching", "gone", plain=["plain"])
    container.open("member", ip="member", batch=True)
    token = container.token("", user="member", ttl=7000, scope=DASHBOARD_SCOPE, intent_hash=None)
    assert all(container.subscribe.several("member", DASHBOARD, (FLEET,), token).values())
    container.revoke()  # guests have no right until they subscribe again; members are not concerned
    container.clock.advance(FRESH_S)
    for viewer in ("batching", "plain"):
        watch(container, viewer, batch=viewer == "batching")
    again: list[DeviceMessage] = []
    newest: dict[str, tuple[tuple[int, str], int]] = {}
    numbers = count(1)
    for values, pause_s, trouble in batches:
        container.clock.advance(pause_s)
        messages = [message(container, topic, next(numbers), age_s=age_s) for topic, age_s in values]
        for each in messages:
            found = (each.timestamp_ms, each.message_id), int(each.payload)
            newest[each.topic] = max(newest.get(each.topic, found), found)
        again += _failed(container, messages, trouble)
    container.clock.advance(180)
    while again:
        again = list(container.bridge.batch(again))
        container.clock.advance(180)
    send_parts(container)
    for request in container.catch_ups.queued:
        container.catch_up(request)
    wanted = {topic: number for topic, (_, number) in newest.items()}
    for viewer in VIEWERS:
        assert shown(container, viewer) == ({} if viewer == "gone" else wanted), viewer


def _failed(container: GatewayContainer, messages: Sequence[DeviceMessage], trouble: str) -> Sequence[DeviceMessage]:
    """Handle a batch. Returns what is to be handled again."""
    with pytest.MonkeyPatch.context() as patched:
        match trouble:
            case "store":
                patched.setattr(container.last_values, "get", unavailable)
            case "queue":
                patched.setattr(container.crowds, "ask", unavailable)
            case "sender":
                patched.setattr(container.sender, "post", lambda *_: Delivery.FAILED)
            case "lost":
                admit = container.last_values.admit

                def lost(*args: Any) -> Any:
                    admit(*args)
                    unavailable()

                patched.setattr(container.last_values, "admit", lost)
        failed = container.bridge.batch(messages)
    return messages if trouble == "redelivered" else failed
