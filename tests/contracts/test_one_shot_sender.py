"""What is sent once and done, over real sockets to a stand-in for the platform: the bridge's frames and a catch-up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tests.servers.management import ManagementServer
from tidegate.adapters.aws.management_api import ManagementApi
from tidegate.adapters.aws.sigv4 import Credentials
from tidegate.domain.access import FRESH_S
from tidegate.domain.client_queues import Frame
from tidegate.domain.subscriptions import CatchUpRequest, LastValue, Subscription, SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery, OutboundMessage
from tidegate.protocol import messages
from tidegate.usecases.delivery.catch_up import CatchUp
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.senders import OneShotSender


@pytest.fixture
def management() -> Iterator[ManagementServer]:
    server = ManagementServer()
    yield server
    server.close()


class Container:
    """Viewers of two datasources, with the one-shot sender and the catch-up over one management API."""

    def __init__(self, management: ManagementServer, *viewers: str, batch: bool = False) -> None:
        self.gateway, self.management = GatewayContainer(), management
        self.gateway.add_datasource("other", "a/other")
        for viewer in viewers:
            self.gateway.open(viewer, ip=viewer, batch=batch)
            for datasource in (DATASOURCE, "other"):
                self.gateway.subscribe(viewer, DASHBOARD, datasource, self.gateway.token(datasource))
        gateway = self.gateway
        self.queued = len(gateway.catch_ups.queued)
        self.api = ManagementApi(
            management.url, region="r", credentials=Credentials("AKID", "secret", "token"), observer=gateway.observer
        )
        self.send = OneShotSender(
            access=FreshAccess(gateway.access, gateway.audiences, gateway.clock),
            sender=self.api,
            failure_handler=gateway.failure_handler,
            observer=gateway.observer,
        )
        self.catch_up = CatchUp(
            subscriptions=gateway.subscriptions,
            streams=gateway.streams,
            last_values=gateway.last_values,
            access=gateway.access,
            sender=self.api,
            catch_ups=gateway.catch_ups,
            end_connection=gateway.end_connection,
            clock=gateway.clock,
            observer=gateway.observer,
        )

    def row(self, viewer: str, datasource: str = DATASOURCE) -> Subscription:
        return self.gateway.subscriptions.rows[SubscriptionKey(DASHBOARD, viewer, datasource)]

    def frame(self, number: int, viewer: str, datasource: str = DATASOURCE, *, filler: str = "") -> Frame:
        payload = json.dumps([number, filler])
        return Frame(self.row(viewer, datasource), messages.data(datasource, payload, 0.0, "1"), True)

    def messages(self, viewer: str) -> list[list[int]]:
        """The numbers a viewer was sent, by message."""
        sent: list[dict[str, Any]] = [json.loads(body) for body in self.management.received.get(viewer, [])]
        return [[frame["payload"][0] for frame in message.get("messages", [message])] for message in sent]

    def revoke(self, **changes: Any) -> None:
        """The right is lost, and what was read of it is no longer fresh."""
        self.gateway.change(**changes)
        self.gateway.clock.advance(FRESH_S)

    def look(self, viewer: str) -> CatchUpRequest:
        row = self.row(viewer)
        self.gateway.last_values.put_if_newer(row.stream_key, LastValue("[7]", 1000, "m"))
        return CatchUpRequest(row.key, row.generation, row.stream_key)


def test_plain_frames_leave_one_by_one_and_in_order(management: ManagementServer) -> None:
    container = Container(management, "a", "b")
    frames = [container.frame(number, viewer) for number in range(20) for viewer in ("a", "b")]
    assert container.send(frames) == {Delivery.DELIVERED: 40}
    for viewer in ("a", "b"):
        assert container.messages(viewer) == [[number] for number in range(20)]


def test_batches_leave_in_order_without_waiting_for_a_window(management: ManagementServer) -> None:
    container = Container(management, "a", batch=True)
    large = "x" * 10_000
    frames = [container.frame(number, "a", ("other", DATASOURCE)[number % 2], filler=large) for number in range(10)]
    assert container.send(frames) == {Delivery.DELIVERED: 10}
    assert container.messages("a") == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_a_retried_batch_holds_only_what_is_still_allowed(management: ManagementServer) -> None:
    container = Container(management, "a", batch=True)

    def answer(_method: str, _viewer: str, nth: int) -> int:
        if nth == 1:
            hashes = dict(container.gateway.access.dashboards[DASHBOARD].intents) | {"other": "changed"}
            container.revoke(intents=hashes)
        return 429 if nth == 1 else 200

    management.answer = answer
    outcomes = container.send([container.frame(1, "a"), container.frame(2, "a", "other")])
    assert outcomes == {Delivery.DELIVERED: 1, Delivery.WITHHELD: 1}
    assert container.messages("a") == [[1]] and management.requests == [("POST", "a")] * 2


def test_who_is_gone_is_not_sent_the_rest_and_released_once(management: ManagementServer) -> None:
    container = Container(management, "gone", "b")
    management.answer = lambda _method, viewer, _nth: 410 if viewer == "gone" else 200
    frames = [container.frame(number, viewer) for number in range(5) for viewer in ("gone", "b")]
    assert container.send(frames) == {Delivery.GONE: 5, Delivery.DELIVERED: 5}
    assert management.requests.count(("POST", "gone")) == 1
    assert "gone" not in container.gateway.connections.rows and container.gateway.sender.closed == ["gone"]


def test_what_cannot_be_sent_is_caught_up_with_once_a_subscription(management: ManagementServer) -> None:
    container = Container(management, "a", "b")
    management.answer = lambda _method, viewer, _nth: 500 if viewer == "a" else 200
    assert container.send([container.frame(1, "a"), container.frame(1, "b")]) == {
        Delivery.FAILED: 1,
        Delivery.DELIVERED: 1,
    }
    (request,) = container.gateway.catch_ups.queued[container.queued :]
    assert request.key == container.row("a").key


# --- the catch-up -----------------------------------------------------------------------------------------------


def test_a_catch_up_sends_the_newest_value(management: ManagementServer) -> None:
    container = Container(management, "a")
    assert container.catch_up(container.look("a"))
    assert container.messages("a") == [[7]]


def test_a_catch_up_asks_again_before_its_retry(management: ManagementServer) -> None:
    """The platform throttles; until it is tried again, the right is lost."""
    container = Container(management, "a")

    def answer(_method: str, _viewer: str, _nth: int) -> int:
        container.revoke(deleted=True)
        return 429

    management.answer = answer
    assert not container.catch_up(container.look("a"))
    assert management.requests == [("POST", "a")] and management.received == {}
    assert len(container.gateway.catch_ups.queued) == container.queued


def test_a_catch_up_that_is_not_sent_comes_back_by_its_queue_alone(management: ManagementServer) -> None:
    container = Container(management, "a")
    management.answer = lambda _method, _viewer, _nth: 500
    with pytest.raises(Unavailable):
        container.catch_up(container.look("a"))
    assert len(container.gateway.catch_ups.queued) == container.queued


def test_a_catch_up_that_cannot_be_checked_comes_back_as_well(management: ManagementServer) -> None:
    container = Container(management, "a")
    look = container.look("a")

    def silent(*_args: object) -> Any:
        raise Unavailable("the store did not answer")

    container.gateway.access.read = silent  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        container.catch_up(look)
    assert management.requests == []


def test_a_catch_up_releases_who_is_gone(management: ManagementServer) -> None:
    container = Container(management, "a")
    management.answer = lambda _method, _viewer, _nth: 410
    assert not container.catch_up(container.look("a"))
    assert "a" not in container.gateway.connections.rows


# --- results ----------------------------------------------------------------------------------------------------


def test_equal_messages_have_results_of_their_own(management: ManagementServer) -> None:
    container = Container(management)
    management.answer = lambda _method, _viewer, nth: 200 if nth == 2 else 413
    posts = [OutboundMessage("a", b"x") for _ in range(3)]
    results = container.api.post_many(posts)
    assert all(result.post is post for result, post in zip(results, posts, strict=True))
    assert sorted(result.delivery for result in results) == ["delivered", "too_large", "too_large"]
