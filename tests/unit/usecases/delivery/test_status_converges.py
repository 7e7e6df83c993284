"""Each way in which a viewer ended with a status that is not the stream's: told too early, too late, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tidegate.domain.access import FRESH_S
from tidegate.domain.intents import build_intent, intent_hash
from tidegate.domain.subscriptions import Fault, LastValue, Stream, Subscription, SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery
from tidegate.protocol.messages import ErrorCode

KEY = SubscriptionKey(DASHBOARD, "c", DATASOURCE)
REFUSED = Fault(ErrorCode.CONNECT_FAILED.value, "Upstream refused the connection")


class Relayed(GatewayContainer):
    """The gateway, with a datasource that the relay feeds, and the part of the relay that tells the status."""

    def __init__(self) -> None:
        super().__init__()
        source = {"id": DATASOURCE, "type": "sse", "settings": {"url": "https://source.example/", "parser": "json"}}
        intent = build_intent(DASHBOARD, source)
        self.access.intents[DASHBOARD, DATASOURCE] = intent
        self.change(intents={DATASOURCE: intent_hash(intent)})

    @property
    def stream(self) -> Stream:
        (stream,) = self.streams.rows.values()
        return stream

    def reports(self, fault: Fault | None = None) -> None:
        """The relay stores the status, then tells those it sees."""
        self.streams.note_status(self.stream, fault is None, fault)
        if fault is None:
            self.fan_out.connected(self.stream)
        else:
            self.fan_out.notify(self.stream, ErrorCode(fault.code), fault.text, status=True)

    def asks(self, *, batch: bool = False) -> None:
        message = {"type": "subscribe", "requestId": "r", "dashboardId": DASHBOARD, "datasourceId": DATASOURCE}
        self.handle(self.open(batch=batch), json.dumps({**message, "sessionToken": self.token()}))

    def looks(self) -> None:
        for request in self.catch_ups.queued:
            self.catch_up(request)

    @property
    def states(self) -> list[str]:
        flat: list[dict[str, Any]] = []
        for frame in self.sender.sent.get("c", []):
            flat += frame["messages"] if frame["type"] == "batch" else [frame]
        return [frame["status"] for frame in flat if frame["type"] == "status"]


def test_what_changed_before_the_row_was_visible_is_told_at_once() -> None:
    """The stream is read when it is registered. The relay connects it before the row is visible, so it tells nobody."""
    container = Relayed()
    show = container.subscriptions.make_visible

    def connected_first(row: Subscription, shard: int = 0) -> bool:
        container.reports()
        return show(row, shard)

    container.subscriptions.make_visible = connected_first  # type: ignore[method-assign]
    container.asks()
    assert container.states == ["connected"]


@pytest.mark.parametrize("fault", [None, REFUSED])
def test_what_changed_while_the_index_lagged_is_told_by_the_catch_up(fault: Fault | None) -> None:
    container = Relayed()
    container.subscriptions.lag()
    container.asks()
    container.reports(fault)
    assert container.states == ["connecting"], "the row is not in the index"
    container.subscriptions.catch_up()
    container.looks()
    assert container.states == ["connecting", "error" if fault else "connected"]


def test_a_status_that_was_overtaken_by_the_gateways_is_told_again() -> None:
    """The relay tells `connected` between the gateway's reading and its sending. `connecting` comes last."""
    container = Relayed()
    post = container.sender.post

    def overtaken(connection_id: str, body: bytes) -> Delivery:
        if b'"connecting"' in body:
            container.sender.post = post  # type: ignore[method-assign]
            container.reports()
        return post(connection_id, body)

    container.sender.post = overtaken  # type: ignore[method-assign]
    container.asks()
    assert container.states == ["connected", "connecting"]
    container.looks()
    assert container.states[-1] == "connected"


def test_a_status_that_changes_during_a_catch_up_comes_last() -> None:
    container = Relayed()
    container.asks()
    container.streams.note_status(container.stream, True)
    post = container.sender.post

    def overtaken(connection_id: str, body: bytes) -> Delivery:
        container.sender.post = post  # type: ignore[method-assign]
        container.clock.advance(FRESH_S)
        container.reports(REFUSED)
        return post(connection_id, body)

    container.sender.post = overtaken  # type: ignore[method-assign]
    container.looks()
    assert container.states == ["connecting", "error", "connected", "error"]


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("how", [Delivery.THROTTLED, Delivery.FAILED])
def test_a_status_that_could_not_be_sent_is_told_by_a_catch_up(how: Delivery, batch: bool) -> None:
    container = Relayed()
    container.asks(batch=batch)
    container.catch_ups.queued.clear()
    container.sender.answers["c"] = how
    container.reports()
    del container.sender.answers["c"]
    container.looks()
    assert container.states == ["connecting", "connected"]


@pytest.mark.parametrize("batch", [False, True])
def test_a_first_status_that_could_not_be_sent_is_told_by_the_catch_up(batch: bool) -> None:
    container = Relayed()
    container.sender.answers["c"] = Delivery.THROTTLED
    container.asks(batch=batch)
    del container.sender.answers["c"]
    container.looks()
    assert container.states == ["connecting"]


def test_who_missed_a_value_only_is_told_no_status() -> None:
    """A catch-up under throttling costs one message, not two."""
    container = Relayed()
    container.asks()
    container.catch_ups.queued.clear()
    container.sender.answers["c"] = Delivery.THROTTLED
    container.fan_out.deliver(container.stream, LastValue("7", 1, ""))
    del container.sender.answers["c"]
    container.looks()
    assert container.sender.data("c") == [7] and container.states == ["connecting"]


def test_who_comes_while_it_is_refused_is_told_why() -> None:
    """The relay tells equal faults in a row only once."""
    container = Relayed()
    container.subscribed("earlier")
    container.reports(REFUSED)
    container.asks()
    status = container.frames("status")[-1]
    assert (status["status"], status["errorCode"], status["message"]) == ("error", REFUSED.code, REFUSED.text)


def test_where_nothing_changed_nothing_is_told_twice() -> None:
    container = Relayed()
    container.asks()
    container.looks()
    assert container.states == ["connecting"]


def test_a_status_that_cannot_be_read_leaves_the_subscription_and_comes_later() -> None:
    container = Relayed()
    read = container.streams.relayed

    def down(_stream_key: str) -> Stream | None:
        raise Unavailable("down")

    container.streams.relayed = down  # type: ignore[method-assign, assignment]
    container.asks()
    assert container.subscriptions.rows[KEY].live and container.states == ["connecting"]
    container.streams.relayed = read  # type: ignore[method-assign]
    container.streams.rows[container.stream.stream_key] = replace(container.stream, connected=True, status_number=1)
    container.looks()
    assert container.states == ["connecting", "connected"]
