"""An audience that is too large for one sender: spread over shards, and sent to in parts."""

from __future__ import annotations

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tests.doubles.stores import MemorySubscriptions
from tidegate.domain import crowds
from tidegate.domain.crowds import AUDIENCE_SHARDS, CrowdPart
from tidegate.domain.subscriptions import Subscription
from tidegate.domain.tokens import DASHBOARD_SCOPE
from tidegate.errors import Unavailable
from tidegate.ports.gateway import SETTLE_S

VIEWERS = [f"viewer-{number}=" for number in range(6 * AUDIENCE_SHARDS)]


@pytest.fixture(autouse=True)
def small_crowds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowds, "CROWD", 16)


def crowded() -> GatewayContainer:
    container = GatewayContainer()
    for viewer in VIEWERS:
        container.subscribed(viewer)
    return container


def payloads(container: GatewayContainer, viewer: str) -> list[object]:
    return [frame["payload"] for frame in container.frames("data", viewer)]


def send_parts(container: GatewayContainer) -> None:
    """Every message of the queue, each by an invocation of its own."""
    asked, container.crowds.asked = container.crowds.asked, []
    for part in asked:
        container.send_part()(part)


def test_a_crowd_is_sent_to_in_parts_and_everybody_once() -> None:
    container = crowded()
    assert container.publish(b"1") == 0, "the bridge itself sends nothing"
    assert sorted(part.shard for part in container.crowds.asked) == list(range(AUDIENCE_SHARDS))
    assert not any(payloads(container, viewer) for viewer in VIEWERS)
    send_parts(container)
    assert [payloads(container, viewer) for viewer in VIEWERS] == [[1]] * len(VIEWERS)
    assert not container.crowds.asked and container.observer.counts[("crowds_sent_in_parts",)] == 1


def test_few_are_sent_to_by_the_bridge_although_they_were_many() -> None:
    container = crowded()
    for viewer in VIEWERS[:-4]:
        container.end_connection.gone(viewer)
    assert container.publish(b"1") == 4 and not container.crowds.asked


def test_the_mark_is_there_before_the_first_row_of_another_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    show, shown = MemorySubscriptions.make_visible, []

    def marked(self: MemorySubscriptions, row: Subscription, shard: int = 0) -> bool:
        shown.append((shard, row.stream_key in self.marked_until))
        return show(self, row, shard)

    monkeypatch.setattr(MemorySubscriptions, "make_visible", marked)
    container = crowded()
    assert {mark for shard, mark in shown if shard} == {True} and not shown[0][1]
    (stream,) = container.streams.rows.values()
    assert stream.crowd_until == container.subscriptions.marked_until[stream.stream_key]


def test_several_datasources_of_a_dashboard_are_spread_as_well() -> None:
    container = GatewayContainer()
    for viewer in VIEWERS:
        container.open(viewer, ip=viewer)
        token = container.token("", scope=DASHBOARD_SCOPE, intent_hash=None)
        assert all(container.subscribe.several(viewer, DASHBOARD, (DATASOURCE,), token).values())
    assert len(set(container.subscriptions.shards.values())) > AUDIENCE_SHARDS // 2
    container.publish(b"1")
    send_parts(container)
    assert [payloads(container, viewer) for viewer in VIEWERS] == [[1]] * len(VIEWERS)


def test_values_that_come_while_a_part_is_sent_are_sent_by_its_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    container = crowded()
    container.publish(b"1")
    (part, *_) = container.crowds.asked
    container.crowds.asked = []
    first = next(key for key, shard in container.subscriptions.shards.items() if shard == part.shard).connection_id
    post, during = container.sender.post, [b"2", b"3"]

    def newer_meanwhile(connection_id: str, body: bytes) -> object:
        if during:
            container.publish(during.pop(0))
            again = next(each for each in container.crowds.asked if each.shard == part.shard)
            container.send_part()(again)  # the other invocation ends at once
            container.crowds.asked = []
        return post(connection_id, body)

    monkeypatch.setattr(container.sender, "post", newer_meanwhile)
    container.send_part()(part)
    assert payloads(container, first)[-1] == 3 and container.observer.counts[("parts_left_to_another",)] == 2


def test_a_part_that_is_never_the_newest_goes_on_in_another_invocation(monkeypatch: pytest.MonkeyPatch) -> None:
    container = crowded()
    container.publish(b"0")
    part = container.crowds.asked[0]
    container.crowds.asked = []
    post, values = container.sender.post, iter(range(1, 100))

    def always_newer(connection_id: str, body: bytes) -> object:
        container.publish(str(next(values)).encode())
        return post(connection_id, body)

    monkeypatch.setattr(container.sender, "post", always_newer)
    container.send_part()(part)
    assert container.crowds.asked[-1] == part, "and nobody is the part's sender meanwhile"
    monkeypatch.undo()
    monkeypatch.setattr(crowds, "CROWD", 16)
    send_parts(container)
    newest = {payloads(container, viewer)[-1] for viewer in VIEWERS}
    assert len(newest) == 1


def test_a_part_whose_sender_died_has_another_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    class Died(BaseException):
        pass

    def dies(*_args: object) -> None:
        raise Died

    container = crowded()
    container.publish(b"1")
    part = container.crowds.asked[0]
    with monkeypatch.context() as patched:
        patched.setattr(container.last_values, "get", dies)
        with pytest.raises(Died):
            container.send_part()(part)
    container.send_part()(part)
    assert not any(payloads(container, viewer) for viewer in VIEWERS), "it may live"
    container.clock.advance(SETTLE_S + 1)
    container.send_part()(part)
    assert any(payloads(container, viewer) for viewer in VIEWERS)


def test_a_part_that_failed_is_sent_when_its_message_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    container = crowded()
    container.publish(b"1")
    part = container.crowds.asked[0]

    def silent(*_args: object) -> None:
        raise Unavailable("the store did not answer")

    with monkeypatch.context() as patched:
        patched.setattr(container.access, "read", silent)
        with pytest.raises(Unavailable):
            container.send_part()(part)
    container.send_part()(part)
    assert any(payloads(container, viewer) for viewer in VIEWERS), "nobody waits for the one that failed"


def test_parts_that_cannot_be_asked_for_bring_the_message_again(monkeypatch: pytest.MonkeyPatch) -> None:
    container = crowded()

    def silent(*_args: object) -> None:
        raise Unavailable("the queue did not answer")

    monkeypatch.setattr(container.crowds, "ask", silent)
    with pytest.raises(Unavailable):
        container.publish(b"1")


def test_a_fault_of_one_message_is_told_to_every_part() -> None:
    container = crowded()
    container.publish(b"{")
    assert {part.fault.code for part in container.crowds.asked if part.fault} == {"STREAM_PROTOCOL_ERROR"}
    send_parts(container)
    assert all(len(container.frames("error", viewer)) == 1 for viewer in VIEWERS)


def test_a_viewer_who_lost_the_right_gets_nothing_of_a_part() -> None:
    container = crowded()
    container.publish(b"1")
    container.revoke()
    container.clock.advance(2)
    send_parts(container)
    assert not any(payloads(container, viewer) for viewer in VIEWERS)


def test_a_part_of_a_stream_without_a_value_ends() -> None:
    container = crowded()
    container.send_part()(CrowdPart("none", 3))
    assert not container.crowds.asked
