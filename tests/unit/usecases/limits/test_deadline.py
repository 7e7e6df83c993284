"""One deadline for all limiter calls of a request, cleaning up included. The containers give three seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tests.doubles.platform import ManualClock
from tidegate.errors import LimiterUnavailable, Unauthenticated, Unavailable
from tidegate.usecases.gateway.connect import Handshake
from tidegate.usecases.limits.deadline import LimiterDeadline


class Slow:
    """Makes calls take time, and notes how much time each limiter call was given."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.given: list[float] = []

    def limiter(self, call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        """`call` takes `seconds`; its last argument is the deadline."""

        def slow(*arguments: Any) -> Any:
            left = arguments[-1] - self._clock.monotonic()
            self.given.append(round(left, 3))
            self._clock.advance(min(seconds, left))
            if seconds >= left:
                raise Unavailable("late", code="store_timeout")
            return call(*arguments)

        return slow

    def other(self, call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        """`call` takes `seconds`, and the limiter has no part in it."""

        def slow(*arguments: Any, **options: Any) -> Any:
            self._clock.advance(seconds)
            return call(*arguments, **options)

        return slow


def slow_container(seconds: float) -> tuple[GatewayContainer, Slow]:
    container = GatewayContainer()
    slow = Slow(container.clock)
    container.rate_store.count = slow.limiter(container.rate_store.count, seconds)  # type: ignore[method-assign]
    container.caps.take = slow.limiter(container.caps.take, seconds)  # type: ignore[method-assign]
    container.caps.release = slow.limiter(container.caps.release, seconds)  # type: ignore[method-assign]
    return container, slow


def refuse(*_arguments: object) -> None:
    raise Unavailable("down")


def test_it_stands_still_between_calls() -> None:
    clock = ManualClock()
    deadline = LimiterDeadline(clock, 3)
    for spent in (1, 2):
        with deadline.running() as until_s:
            assert until_s == clock.monotonic() + 4 - spent
            clock.advance(1)
        clock.advance(100)


def test_a_failed_call_spends_it_too() -> None:
    clock = ManualClock()
    deadline = LimiterDeadline(clock, 3)
    with pytest.raises(Unavailable), deadline.running():
        clock.advance(2)
        raise Unavailable("late")
    with deadline.running() as until_s:
        assert until_s == clock.monotonic() + 1


def test_a_handshake_that_cannot_be_stored_cleans_up_within_it() -> None:
    container, slow = slow_container(0.8)
    container.connections.open = slow.other(refuse, 5)  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        container.connect(Handshake("c", "1.2.3.4", None, False))
    assert slow.given == [3, 2.2, 1.4] and not any(container.caps.holders.values())


def test_cleaning_up_ends_with_it_and_is_counted() -> None:
    container, slow = slow_container(1.4)
    container.connections.open = slow.other(refuse, 0)  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        container.connect(Handshake("c", "1.2.3.4", None, False))
    assert slow.given == [3, 1.6, 0.2] and container.observer.counts[("slots_not_freed",)] == 1


def test_a_public_subscribe_has_one_for_its_rate_and_the_quota() -> None:
    container, slow = slow_container(0.9)
    container.open()
    container.access.read = slow.other(container.access.read, 2)  # type: ignore[method-assign]
    container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    assert slow.given == [3, 2.1]


def test_a_public_subscribe_that_names_no_viewer_has_one_too() -> None:
    container, slow = slow_container(0.7)
    container.open()
    container.subscribe("c", DASHBOARD, DATASOURCE, container.token(viewer_id=None))
    assert slow.given == [3, 2.3, 1.6, 0.9]


def test_a_subscribe_that_lost_its_connection_cleans_up_within_it() -> None:
    container, slow = slow_container(0.7)
    container.open()
    put = container.subscriptions.put_hidden

    def put_and_lose(*arguments: Any) -> Any:
        done = put(*arguments)
        container.connections.rows.clear()
        return done

    container.subscriptions.put_hidden = put_and_lose  # type: ignore[method-assign, assignment]
    with pytest.raises(Unauthenticated, match="closed"):
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    assert slow.given == [3, 2.3, 1.6]


def test_a_slow_limiter_costs_a_subscribe_no_more_than_it() -> None:
    container, slow = slow_container(1.6)
    container.open()
    began = container.clock.monotonic()
    with pytest.raises(LimiterUnavailable):
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    assert slow.given == [3, 1.4] and container.clock.monotonic() - began == pytest.approx(3)
