"""Sending on and on, over real sockets to a stand-in for the platform whose answers come when the tests say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from random import random
from threading import Event

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tests.doubles.send_quota import MemorySendQuota
from tests.servers.management import ManagementServer
from tests.settling import settle
from tidegate.adapters.aws import bulk_sender as bulk_sender
from tidegate.adapters.aws.management_api import ManagementApi
from tidegate.adapters.aws.sigv4 import Credentials
from tidegate.adapters.system import SystemClock
from tidegate.domain.client_queues import Frame
from tidegate.domain.send_quota import SendQuota
from tidegate.domain.subscriptions import Subscription
from tidegate.ports.delivery import Delivery
from tidegate.protocol import messages
from tidegate.usecases.delivery import senders as send_frames
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.paced_queue import Pace
from tidegate.usecases.delivery.senders import BackgroundSender


class SenderContainer:
    """Viewers of one datasource, each on a connection of its own; some asked for batch frames."""

    def __init__(self, management: ManagementServer, viewers: list[str], *, batch: bool = False) -> None:
        self.gateway = GatewayContainer()
        self.gateway.add_datasource("other", "a/other")
        for viewer in viewers:
            self.gateway.open(viewer, batch=batch)
            for datasource in (DATASOURCE, "other") if batch else (DATASOURCE,):
                self.gateway.subscribe(viewer, DASHBOARD, datasource, self.gateway.token(datasource))
        self.management = management
        self.may = True

    @contextmanager
    def sending(self, *, conflate: bool, per_second: int = 0) -> Iterator[BackgroundSender]:
        """`per_second`: a quota of which other senders take nothing; 0 is none."""
        gateway, quota, system = self.gateway, SendQuota(per_second), SystemClock()
        keys = Credentials("AKID", "secret", "token")
        made = BackgroundSender(
            access=FreshAccess(gateway.access, gateway.audiences, gateway.clock),
            sender=ManagementApi(self.management.url, region="r", credentials=keys, observer=gateway.observer),
            failure_handler=gateway.failure_handler,
            may_send=lambda: self.may,
            conflate=conflate,
            observer=gateway.observer,
            pace=Pace(MemorySendQuota(quota), quota, clock=system, chance=random, observer=gateway.observer)
            if per_second
            else None,
        )
        try:
            yield made
        finally:
            made.close()

    def frames(self, number: int) -> list[Frame]:
        rows = self.gateway.subscriptions.rows.values()
        return [Frame(row, messages.data(row.key.datasource_id, str(number), 0.0, "1"), True) for row in rows]

    def got(self, viewer: str) -> list[int]:
        """The values a viewer was sent, batches taken apart."""
        sent = [json.loads(body) for body in self.management.received.get(viewer, [])]
        return [frame["payload"] for body in sent for frame in body.get("messages", [body])]


def test_a_slow_viewer_keeps_nobody_waiting_and_ends_with_the_newest(
    management: ManagementServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_sender, "ANSWER_S", 60.0)
    container, released = SenderContainer(management, ["slow", *(f"c{n}" for n in range(40))]), Event()
    management.answer = lambda _method, viewer, _nth: 200 if viewer != "slow" or released.wait(20) else 500
    with container.sending(conflate=True) as sending:
        for number in range(30):
            sending(container.frames(number))
            settle(lambda n=number: all(container.got(f"c{viewer}")[-1:] == [n] for viewer in range(40)))  # type: ignore[misc]
        assert all(container.got(f"c{viewer}") == list(range(30)) for viewer in range(40)), "nobody missed anything"
        assert container.got("slow") == []
        released.set()
        settle(lambda: container.got("slow") == [0, 29])
        assert sending.flush()


def test_without_conflation_everybody_gets_everything_in_order(
    management: ManagementServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_sender, "ANSWER_S", 60.0)
    monkeypatch.setattr(send_frames, "FLUSH_S", 20.0)
    container, released = SenderContainer(management, ["slow", "a", "b"]), Event()
    management.answer = lambda _method, viewer, _nth: 200 if viewer != "slow" or released.wait(20) else 500
    with container.sending(conflate=False) as sending:
        for number in range(300):
            sending(container.frames(number))
        settle(lambda: len(management.received.get("a", ())) == len(management.received.get("b", ())) == 300)
        released.set()
        assert sending.flush()
    for viewer in ("slow", "a", "b"):
        assert container.got(viewer) == list(range(300))


def test_a_sender_that_is_behind_is_waited_for_while_it_goes_on(
    management: ManagementServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handing over waits for what is left to send, however long it takes, as long as there are answers."""
    monkeypatch.setattr(send_frames, "FLUSH_S", 0.5)
    container = SenderContainer(management, ["a"])

    def slowly(_method: str, _viewer: str, _nth: int) -> int:
        Event().wait(0.02)
        return 200

    management.answer = slowly
    with container.sending(conflate=False) as sending:
        for number in range(60):
            sending(container.frames(number))
        assert sending.flush()
        assert container.got("a") == list(range(60))


def test_a_viewer_that_never_answers_is_given_up_and_looked_at_again(
    management: ManagementServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_sender, "ANSWER_S", 0.2)
    monkeypatch.setattr(send_frames, "FLUSH_S", 0.01)
    container, never = SenderContainer(management, ["dead", "c"]), Event()
    before = len(container.gateway.catch_ups.queued)
    management.answer = lambda _method, viewer, _nth: 200 if viewer != "dead" or never.wait(20) else 500
    try:
        with container.sending(conflate=True) as sending:
            sending(container.frames(1))
            settle(lambda: container.got("c") == [1])
            assert not sending.flush(), "somebody is still under way"
            settle(lambda: len(container.gateway.catch_ups.queued) > before)
            (request,) = container.gateway.catch_ups.queued[before:]
            assert request.key.connection_id == "dead"
            settle(lambda: container.gateway.observer.counts.get(("deliveries", Delivery.FAILED.value)) == 1)
    finally:
        never.set()


def test_catch_ups_that_the_queue_does_not_take_are_asked_for_until_it_does(
    management: ManagementServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_frames, "_COUNTED_S", 0.02)
    container = SenderContainer(management, ["a", "b"])
    queue, queue_many, refusals = container.gateway.catch_ups, container.gateway.catch_ups.queue_many, count()
    before = len(queue.queued)
    monkeypatch.setattr(
        queue, "queue_many", lambda asked, until: asked if next(refusals) < 3 else queue_many(asked, until)
    )
    management.answer = lambda _method, _viewer, _nth: 429
    with container.sending(conflate=True) as sending:
        sending(container.frames(1))
        settle(lambda: {request.key.connection_id for request in queue.queued[before:]} == {"a", "b"})


def test_who_is_gone_is_released_once_and_not_sent_to_again(management: ManagementServer) -> None:
    container = SenderContainer(management, ["gone", "c"])
    rows: list[Subscription] = list(container.gateway.subscriptions.rows.values())
    management.answer = lambda _method, viewer, _nth: 410 if viewer == "gone" else 200
    with container.sending(conflate=False) as sending:
        for number in range(50):
            sending([Frame(row, messages.data(row.key.datasource_id, str(number), 0.0, "1"), True) for row in rows])
        settle(lambda: len(container.got("c")) == 50)
        settle(lambda: "gone" not in container.gateway.connections.rows)
        asked = management.requests.count(("POST", "gone"))
        sending([Frame(row, messages.data(row.key.datasource_id, "50", 0.0, "1"), True) for row in rows])
        settle(lambda: len(container.got("c")) == 51)
    assert management.requests.count(("POST", "gone")) == asked == 1
    assert container.gateway.sender.closed == ["gone"]


def test_batches_hold_what_came_in_a_window_in_order(management: ManagementServer) -> None:
    container = SenderContainer(management, ["b"], batch=True)
    with container.sending(conflate=False) as sending:
        for number in range(40):
            sending(container.frames(number))
        settle(lambda: len(container.got("b")) == 80)
    assert container.got("b") == [number for number in range(40) for _ in range(2)]
    assert len(management.received["b"]) < 10, "some messages, not eighty"


def test_without_the_lease_nothing_leaves_and_the_newest_is_looked_for(management: ManagementServer) -> None:
    container = SenderContainer(management, ["c"])
    queued = len(container.gateway.catch_ups.queued)
    container.may = False
    with container.sending(conflate=True) as sending:
        sending(container.frames(1))
        assert sending.flush()
    assert container.got("c") == [] and len(container.gateway.catch_ups.queued) == queued + 1


def test_a_sender_that_broke_says_so_and_lets_nobody_wait(management: ManagementServer) -> None:
    container = SenderContainer(management, ["c"])

    def broken() -> bool:
        raise RuntimeError("a fault of ours")

    with container.sending(conflate=True) as sending:
        sending._send_queue._may_send = broken
        sending(container.frames(1))
        settle(lambda: not sending.healthy)
        for number in range(600):
            sending(container.frames(number))


def test_a_crowd_that_uses_the_quota_up_keeps_no_other_stream_waiting(management: ManagementServer) -> None:
    """The crowd would need seconds for one value. Its newest wins, and another stream's goes in between."""
    crowd = [f"c{number}" for number in range(400)]
    container = SenderContainer(management, crowd)
    gateway = container.gateway
    gateway.subscribe("c0", DASHBOARD, "other", gateway.token("other"))
    quiet = [row for row in gateway.subscriptions.rows.values() if row.key.datasource_id == "other"]
    others = [row for row in gateway.subscriptions.rows.values() if row.key.datasource_id == DATASOURCE]

    def add(rows: list[Subscription], number: int) -> None:
        sending([Frame(row, messages.data(row.key.datasource_id, str(number), 0.0, "1"), True) for row in rows])

    def got(number: int) -> bool:
        return number in container.got("c0")

    with container.sending(conflate=True, per_second=200) as sending:
        for number in range(5):
            add(others, number)
            add(quiet, 100 + number)
            settle(lambda n=number: got(100 + n))  # type: ignore[misc]
        assert len(management.received) < len(crowd), "the crowd still waits"
        settle(lambda: all(container.got(viewer)[-1:] == [4] for viewer in crowd[1:]))
        assert gateway.observer.counts[("frames_conflated_by_quota",)] > len(crowd)
