"""The one-shot sender and the catch-up within a send quota, over real sockets to a stand-in for the platform."""

from __future__ import annotations

from dataclasses import replace
from random import random

import pytest

from tests.contracts.test_one_shot_sender import Container
from tests.doubles.send_quota import MemorySendQuota
from tests.servers.management import ManagementServer
from tidegate.adapters.system import SystemClock
from tidegate.domain.send_quota import WHOLE, SendQuota
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery
from tidegate.usecases.delivery.catch_up import CatchUp
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.paced_queue import Pace
from tidegate.usecases.delivery.senders import OneShotSender, Patience


class Paced(Container):
    """As `Container`, with a quota of which other senders take nothing. Time is real."""

    def __init__(self, management: ManagementServer, *viewers: str, per_second: int = 1_000) -> None:
        super().__init__(management, *viewers)
        gateway, clock = self.gateway, SystemClock()
        self.quota = MemorySendQuota(SendQuota(per_second))
        self.pace = Pace(self.quota, self.quota.quota, clock=clock, chance=random, observer=gateway.observer)
        self.patience = Patience(clock, 0.3)
        self.send = OneShotSender(
            access=FreshAccess(gateway.access, gateway.audiences, gateway.clock),
            sender=self.api,
            failure_handler=gateway.failure_handler,
            observer=gateway.observer,
            pace=self.pace,
            patience=self.patience,
        )
        gateway.clock.monotonic = clock.monotonic  # type: ignore[method-assign]
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
            pace=self.pace,
        )


def test_a_message_to_few_viewers_is_one_ask(management: ManagementServer) -> None:
    container = Paced(management, "a", "b", "c")
    container.patience.begin()
    assert container.send([container.frame(1, viewer) for viewer in "abc"]) == {Delivery.DELIVERED: 3}
    assert container.quota.asks == 1 and sum(container.quota.granted.values()) == 3


def test_nobody_to_send_to_is_no_ask(management: ManagementServer) -> None:
    container = Paced(management)
    assert container.send([]) == {} and container.quota.asks == 0


def test_more_viewers_than_a_window_has_take_more_windows(management: ManagementServer) -> None:
    container = Paced(management, *(f"v{number}" for number in range(30)), per_second=150)
    container.patience.begin()
    assert container.send([container.frame(1, f"v{number}") for number in range(30)]) == {Delivery.DELIVERED: 30}
    assert max(container.quota.granted.values()) <= 15 and len(container.quota.granted) >= 2


def test_the_platform_that_throttles_lowers_the_share_before_the_call_ends(management: ManagementServer) -> None:
    container = Paced(management, "a")
    management.answer = lambda _method, _viewer, nth: 429 if nth == 1 else 200
    container.patience.begin()
    assert container.send([container.frame(1, "a")]) == {Delivery.DELIVERED: 1}
    assert container.quota.windows[0].share < WHOLE


def test_a_catch_up_that_the_platform_throttles_lowers_it_too(management: ManagementServer) -> None:
    container = Paced(management, "a")
    management.answer = lambda _method, _viewer, nth: 429 if nth == 1 else 200
    assert container.catch_up(container.look("a"))
    assert container.quota.asks == 1
    assert container.quota.windows[0].share < WHOLE


def test_what_is_refused_gets_a_catch_up(management: ManagementServer) -> None:
    container = Paced(management, "a", "b")
    container.quota.broken = True
    container.patience.begin()
    assert container.send([container.frame(1, viewer) for viewer in "ab"]) == {Delivery.REFUSED: 2}
    assert management.requests == []
    asked = container.gateway.catch_ups.queued[container.queued :]
    assert {request.key.connection_id for request in asked} == {"a", "b"}


def test_a_catch_up_that_has_nothing_to_send_asks_nothing(management: ManagementServer) -> None:
    container = Paced(management, "a")
    row = container.row("a")
    look = container.look("a")
    seen = {"": (1000, "m")}
    assert not container.catch_up(type(look)(row.key, row.generation, row.stream_key, seen=seen))
    assert container.quota.asks == 0


def test_a_catch_up_that_is_refused_is_postponed_and_nothing_fails(management: ManagementServer) -> None:
    container = Paced(management, "a")
    container.quota.broken = True
    look = container.look("a")
    for times in range(1, 4):
        assert not container.catch_up(look)
        look = container.gateway.catch_ups.queued[-1]
        assert look.postponed == times and look.key == container.row("a").key
    assert container.gateway.observer.counts[("catch_ups_postponed",)] == 3
    with pytest.raises(Unavailable, match="for minutes"):
        container.catch_up(replace(look, postponed=20))
    container.quota.broken = False
    assert container.catch_up(look) and container.messages("a") == [[7]]
