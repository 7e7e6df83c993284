from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal
from tidegate.domain.client_queues import ClientQueues, Frame
from tidegate.domain.fair_order import FairOrder
from tidegate.domain.subscriptions import Subscription, SubscriptionKey

PLACES = st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"))


def frame(dashboard: str, stream: str, connection: str) -> Frame:
    claim = Claim(dashboard, "s", Principal(PUBLIC_SUBJECT, 1), "hash", 10**10)
    row = Subscription(SubscriptionKey(dashboard, connection, "s"), "attempt", claim, stream, True)
    return Frame(row, b"{}", True)


def test_a_quiet_dashboard_is_next_though_a_crowded_one_came_first() -> None:
    queues = ClientQueues()
    for number in range(1_000):
        queues.add(frame("crowded", "one", f"c{number}"))
    queues.add(frame("quiet", "two", "q"))
    taken = [queues.take(0.0) for _ in range(2)]
    assert [batch.connection_id for batch in taken if batch] == ["c0", "q"]


def test_streams_of_a_dashboard_take_turns() -> None:
    order = FairOrder()
    for client in range(4):
        order.add(client, ("d", "busy"))
    order.add("other", ("d", "quiet"))
    assert [order.take() for _ in range(5)] == [0, "other", 1, 2, 3]


def test_who_comes_again_is_behind_the_others_of_the_stream() -> None:
    order = FairOrder()
    for client in ("a", "b"):
        order.add(client, ("d", "s"))
    assert order.take() == "a"
    order.add("a", ("d", "s"))
    assert [order.take(), order.take()] == ["b", "a"]


def test_from_an_empty_order_nothing_is_taken() -> None:
    with pytest.raises(LookupError, match="nobody is ready"):
        FairOrder().take()


@given(st.lists(st.one_of(PLACES, st.none()), max_size=80))
def test_everybody_is_taken_once_and_nobody_twice_while_another_waits(steps: list[tuple[str, str] | None]) -> None:
    order, waiting = FairOrder(), dict[int, tuple[str, str]]()
    turns: list[tuple[str, frozenset[str]]] = []  # whose turn it was, and which dashboards were ready then
    for number, place in enumerate([*steps, *[None] * len(steps)]):
        if place is not None:
            order.add(number, place)
            waiting[number] = place
        elif waiting:
            ready = frozenset(dashboard for dashboard, _ in waiting.values())
            client = order.take()
            assert isinstance(client, int)
            turns.append((waiting.pop(client)[0], ready))
        assert len(order) == len(waiting)
    assert not waiting
    for (before, ready), (after, ready_then) in itertools.pairwise(turns):
        waited = (ready & ready_then) - {before}
        assert not waited or after != before, f"{before} twice while {waited} waited"


@given(st.lists(st.one_of(PLACES, st.none()), max_size=60))
def test_newcomers_are_served_within_the_turns_that_are_named(steps: list[tuple[str, str] | None]) -> None:
    """None takes. After every step, that many turns serve each place that was not served since it became ready, while
    others wait that were served already."""
    for end in range(len(steps) + 1):
        order = FairOrder()
        for number, place in enumerate(steps[:end]):
            if place is not None:
                order.add(number, place)
            elif len(order):
                order.take()
        while turns := order.newcomers(100):
            for _ in range(min(turns, len(order))):
                order.take()
            assert order.newcomers(100) == 0
    assert FairOrder().newcomers(100) == 0
