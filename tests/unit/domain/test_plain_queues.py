"""Queues without window and conflation, as the one-shot sender fills them: all leaves at once, nothing gives way."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal
from tidegate.domain.client_queues import Batch, ClientQueues, Frame
from tidegate.domain.subscriptions import Subscription, SubscriptionKey


def frame(connection: str, number: int, *, batch: bool) -> Frame:
    claim = Claim("d", "s", Principal(PUBLIC_SUBJECT, 1), "hash", 10**10)
    row = Subscription(SubscriptionKey("d", connection, "s"), "attempt", claim, "stream#0", True, batch=batch)
    return Frame(row, json.dumps([connection, number]).encode(), True)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=40))
def test_everything_leaves_at_once_and_in_order(added: list[tuple[int, int]]) -> None:
    """Connections 0 and 1 are plain, 2 and 3 asked for batch frames."""
    queues = ClientQueues()
    for connection, number in added:
        queues.add(frame(f"c{connection}", number, batch=connection > 1))
    sent: dict[str, list[int]] = {}
    while (batch := queues.take(0.0)) is not None:
        content = json.loads(batch.body)
        frames = content["messages"] if isinstance(content, dict) else [content]
        assert {connection for connection, _ in frames} == {batch.connection_id}
        assert queues.due is None, "no window has to pass"
        sent.setdefault(batch.connection_id, []).extend(number for _, number in frames)
        queues.done(batch.queue_key)
    assert queues.empty and not queues.given_up
    expected: dict[str, list[int]] = {}
    for connection, number in added:
        expected.setdefault(f"c{connection}", []).append(number)
    assert sent == expected


def test_one_message_of_a_queue_is_under_way_at_a_time() -> None:
    queues = ClientQueues()
    for number in range(2):
        queues.add(frame("c", number, batch=False))
    first = queues.take(0.0)
    assert first is not None and queues.take(0.0) is None and not queues.ready(0.0)
    queues.done(first.queue_key)
    assert queues.ready(0.0) == 1


def test_equal_batches_are_two_messages() -> None:
    """Results go by the object, so a batch must be equal to itself alone."""
    one = frame("c", 1, batch=True)
    assert Batch("c", (one,)) != Batch("c", (one,))
    both = Batch("c", (one, one))
    assert (both.connection_id, json.loads(both.body)["type"]) == ("c", "batch")
