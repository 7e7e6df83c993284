"""Whoever unsubscribed gets no more data a second after the ack, however long a frame has waited; and whoever comes
back at once gets it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tidegate.domain.client_queues import WINDOW_S, ClientQueues, Frame, Missed
from tidegate.domain.crowds import Audience
from tidegate.domain.subscriptions import Subscription, SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery
from tidegate.protocol import messages
from tidegate.usecases.delivery import audiences
from tidegate.usecases.delivery.audiences import AUDIENCE_S, Audiences
from tidegate.usecases.delivery.send_queue import SharedSendQueue

BOUND_S = 1.0


def said(container: GatewayContainer, kind: str, connection_id: str = "c", datasource_id: str = DATASOURCE) -> None:
    """A message of the client. It is acked."""
    message = {"type": kind, "requestId": "r", "dashboardId": DASHBOARD, "datasourceId": datasource_id}
    container.handle(connection_id, json.dumps({**message, "sessionToken": container.token(datasource_id)}))
    assert container.frames("ack", connection_id)[-1]["ok"]


class Relay:
    """The send queue of a relay worker, taken from by hand: a message is under way for as long as the test says."""

    def __init__(self, container: GatewayContainer, *, conflate: bool = True) -> None:
        self.container = container
        self.left: list[str | Missed] = []
        self.queue = SharedSendQueue(
            ClientQueues(conflate=conflate, window_s=WINDOW_S),
            access=container.fresh,
            left=self.left.append,
            may_send=lambda: True,
            wake=lambda: None,
            observer=container.observer,
        )

    def send(self, number: int) -> None:
        """A value, to the audience as it was read last."""
        rows = [row for key in self._streams() for row in self.container.audiences.of(key)]
        self.container.fresh.load(rows)
        self.queue.add(Frame(row, messages.data(row.key.datasource_id, str(number), 0.0, "1"), True) for row in rows)

    def leaves(self) -> Any:
        """What leaves next: the payloads of one message; None when it is withheld."""
        self.under_way = self.queue.take(self.container.clock.monotonic())
        assert self.under_way is not None, "nothing waits"
        sent = self.queue.before(self.under_way)
        if sent is None:
            return None
        self.under_way = sent
        body = json.loads(sent.body)
        return [frame["payload"] for frame in body.get("messages", [body])]

    def answered(self, delivery: Delivery = Delivery.DELIVERED) -> None:
        assert self.under_way is not None
        self.queue.answered(self.under_way, delivery)

    def _streams(self) -> set[str]:
        return {row.stream_key for row in self.container.subscriptions.rows.values()}


@pytest.mark.parametrize("waits_s", [BOUND_S, 2.5])
def test_a_frame_that_waited_behind_a_slow_message_does_not_leave(waits_s: float) -> None:
    """What was seen on the relay: the message before took its time, and the right alone was asked when it was over."""
    container = GatewayContainer()
    container.subscribed()
    relay = Relay(container)
    relay.send(1)
    assert relay.leaves() == [1]
    relay.send(2)
    said(container, "unsubscribe")
    container.clock.advance(waits_s)
    relay.answered()
    assert relay.leaves() is None
    assert relay.queue.take_outcomes() == {Delivery.DELIVERED: 1, Delivery.WITHHELD: 1}


def test_a_message_that_is_tried_again_is_asked_about_again() -> None:
    container = GatewayContainer()
    container.subscribed()
    relay = Relay(container)
    relay.send(1)
    assert relay.leaves() == [1] and relay.under_way is not None
    said(container, "unsubscribe")
    container.clock.advance(BOUND_S)
    assert relay.queue.before(relay.under_way) is None


def test_of_a_batch_the_rest_leaves() -> None:
    container = GatewayContainer()
    container.add_datasource("other", "a/other")
    container.open("c", batch=True)
    for datasource in (DATASOURCE, "other"):
        said(container, "subscribe", datasource_id=datasource)
    relay = Relay(container)
    relay.send(1)
    assert relay.leaves() == [1, 1]
    relay.send(2)
    said(container, "unsubscribe", datasource_id="other")
    container.clock.advance(BOUND_S)
    relay.answered()
    assert relay.leaves() == [2]


@pytest.mark.parametrize(("later_s", "sent"), [(0.1, [1, 2]), (BOUND_S, [1])])
def test_what_a_device_publishes_after_the_ack(later_s: float, sent: list[int]) -> None:
    """Within the second the client drops it. After that nothing is sent."""
    container = GatewayContainer()
    container.subscribed()
    container.publish(b"1")
    said(container, "unsubscribe")
    container.clock.advance(later_s)
    container.publish(b"2")
    assert container.sender.data("c") == sent


def test_a_catch_up_that_takes_long_ends_with_the_subscription() -> None:
    container = GatewayContainer()
    container.publish(b"1")
    container.open()
    said(container, "subscribe")
    (request,) = container.catch_ups.queued
    container.sender.sent.clear()
    read = container.last_values.newest

    def slowly(stream_key: str) -> Any:
        said(container, "unsubscribe")
        container.clock.advance(BOUND_S)
        return read(stream_key)

    container.publish(b"2")
    container.sender.sent.clear()
    container.last_values.newest = slowly  # type: ignore[method-assign]
    assert not container.catch_up(request)
    assert container.sender.data("c") == []


def test_who_subscribes_again_at_once_gets_what_follows() -> None:
    container = GatewayContainer()
    container.open()
    said(container, "subscribe")
    container.publish(b"1")
    said(container, "unsubscribe")
    said(container, "subscribe")
    for number in (2, 3):
        container.publish(str(number).encode())
        container.clock.advance(BOUND_S)
    assert container.sender.data("c") == [1, 1, 2, 3], "the last value again, and what follows"


def test_who_subscribes_again_ends_with_the_newest_although_the_index_lags() -> None:
    container = GatewayContainer()
    container.open()
    said(container, "subscribe")
    container.publish(b"1")
    said(container, "unsubscribe")
    container.subscriptions.lag()
    said(container, "subscribe")
    container.clock.advance(BOUND_S)
    container.publish(b"2")
    container.clock.advance(3)
    for request in container.catch_ups.queued:
        container.catch_up(request)
    assert container.sender.data("c")[-1] == 2


def test_an_index_that_forgets_a_row_for_a_moment_loses_no_value() -> None:
    """Index reads may go back. The catch-up reads the row itself."""
    container = GatewayContainer()
    container.subscribed()
    relay = Relay(container)
    relay.send(1)
    read, container.audiences.read = container.audiences.read, lambda _stream_key: Audience([])
    container.clock.advance(BOUND_S)
    assert relay.leaves() is None
    container.audiences.read = read
    (missed,) = relay.left
    assert isinstance(missed, Missed) and missed.row.key == SubscriptionKey(DASHBOARD, "c", DATASOURCE)


def test_the_audience_is_read_once_for_all_who_waited() -> None:
    container = GatewayContainer()
    for number in range(50):
        container.subscribed(f"v{number}")
    relay = Relay(container)
    reads: list[str] = []
    read = container.audiences.read

    def counted(stream_key: str) -> Any:
        reads.append(stream_key)
        return read(stream_key)

    container.audiences.read = counted
    relay.send(1)
    assert all(relay.leaves() == [1] for _ in range(25)) and len(reads) == 1
    container.clock.advance(2.5)
    assert all(relay.leaves() == [1] for _ in range(25)) and len(reads) == 2


def test_an_audience_that_cannot_be_read_is_no_reason_to_end_anybody() -> None:
    container = GatewayContainer()
    container.subscribed()
    relay = Relay(container)
    relay.send(1)
    container.clock.advance(BOUND_S)

    def down(_stream_key: str) -> Any:
        raise Unavailable("down")

    container.audiences.read = down
    assert relay.leaves() is None and len(relay.left) == 1
    assert container.observer.counts[("withheld_unchecked",)] == 1
    assert container.subscriptions.rows


def test_a_large_audience_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one that takes a second to read and to send to is never sent anything."""
    container = GatewayContainer()
    for number in range(3):
        container.subscribed(f"v{number}")
    rows = list(container.subscriptions.rows.values())
    monkeypatch.setattr(audiences, "_SMALL", 2)
    monkeypatch.setattr(audiences, "_ROW_S", 0.5)
    for count, until in ((2, AUDIENCE_S), (3, AUDIENCE_S + 0.5)):
        kept = _read(container, rows[:count])
        assert kept == pytest.approx(container.clock.monotonic() + until)


def _read(container: GatewayContainer, rows: list[Subscription]) -> float:
    made = Audiences(lambda _stream_key: Audience(rows), container.clock)
    made.of(rows[0].stream_key)
    reading = made.kept(rows[0])
    assert reading is not None
    return reading.until
