from __future__ import annotations

import json
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal
from tidegate.domain.client_queues import KEPT_BYTES, Frame, Lines, Sending
from tidegate.domain.subscriptions import Subscription, SubscriptionKey
from tidegate.protocol import batches

WINDOW_S = 0.1


def row(connection: str, datasource: str = "s", *, batch: bool = False) -> Subscription:
    claim = Claim("d", datasource, Principal(PUBLIC_SUBJECT, 1), "hash", 10**10)
    return Subscription(SubscriptionKey("d", connection, datasource), "attempt", claim, "stream#0", True, batch=batch)


def frame(connection: str, number: int, datasource: str = "s", *, batch: bool = False, data: bool = True) -> Frame:
    return Frame(row(connection, datasource, batch=batch), str(number).encode(), data)


def numbers(sending: Sending | None) -> list[int]:
    assert sending is not None
    return [int(one.body) for one in sending.frames]


@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=12))
def test_every_frame_is_in_one_message_that_is_not_too_large(payloads: list[bytes]) -> None:
    bodies = [json.dumps(payload.hex()[: len(payload)]).encode() for payload in payloads]
    messages = list(batches.split(bodies))
    read = [json.loads(one) for one in messages]
    assert [one for got in read for one in (got["messages"] if isinstance(got, dict) else [got])] == [
        json.loads(one) for one in bodies
    ]
    for message, got in zip(messages, read, strict=True):
        assert not isinstance(got, dict) or len(message) <= batches.MAX_BYTES
        if isinstance(got, dict):
            assert got["type"] == "batch" and len(got["messages"]) > 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3), st.booleans(), st.booleans()),
        st.tuples(st.just("take")),
        st.tuples(st.just("done"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.floats(0, 0.15)),
    ),
    max_size=60,
)


@given(STEPS, st.booleans())
def test_lines_keep_their_order_and_lose_nothing_but_what_is_given_up(
    steps: list[tuple[object, ...]], conflate: bool
) -> None:
    """Connections 0 and 1 are plain, 2 and 3 asked for batch frames; each has two subscriptions."""
    lines = Lines(conflate=conflate, window_s=WINDOW_S)
    now, number = 0.0, 0
    added: dict[object, list[Frame]] = defaultdict(list)
    sent: dict[object, list[Frame]] = defaultdict(list)
    under_way: dict[object, Sending] = {}
    last_at: dict[object, float] = {}

    def take() -> bool:
        sending = lines.take(now)
        if sending is None:
            return False
        assert sending.line not in under_way, "one message of a line at a time"
        if sending.frames[0].row.batch:
            assert now >= last_at.get(sending.line, -1.0) + WINDOW_S
            last_at[sending.line] = now
        else:
            assert len(sending.frames) == 1
        under_way[sending.line] = sending
        sent[sending.line] += sending.frames
        return True

    for step in steps:
        match step:
            case ("add", int(connection), bool(second), bool(data)):
                number += 1
                made = frame(f"c{connection}", number, "t" if second else "s", batch=connection > 1, data=data)
                added[made.line].append(made)
                lines.add(made)
            case ("take",):
                take()
            case ("done", int(which)) if which < len(under_way):
                key = list(under_way)[which]
                del under_way[key]
                lines.done(key)
            case ("wait", float(seconds)):
                now += seconds
            case _:
                pass
    for _ in range(4 * len(steps) + 4):
        for key in list(under_way):
            del under_way[key]
            lines.done(key)
        now += WINDOW_S
        while take():
            pass
    assert lines.empty and lines.due is None and not lines.ready(now)
    for key, frames in added.items():
        left = iter(frames)
        assert all(any(one is other for other in left) for one in sent[key]), "in order, each once"
        missing = [one for one in frames if not any(one is other for other in sent[key])]
        assert conflate or not missing
        for one in missing:
            assert one.is_data
            newer = [other for other in frames if other.row.key == one.row.key and other.is_data]
            assert newer[-1] is not one and any(other is newer[-1] for other in sent[key]), "the newest is sent"
    assert lines.given_up == sum(map(len, added.values())) - sum(map(len, sent.values()))


def test_behind_a_slow_viewer_the_newest_wins() -> None:
    lines = Lines(conflate=True)
    for number in range(3):
        lines.add(frame("slow", number))
    assert numbers(lines.take(0)) == [0], "nothing is given up before it waits for an answer"
    for number in range(3, 9):
        lines.add(frame("slow", number))
        lines.add(frame("fast", number))
        assert numbers(lines.take(0)) == [number]
        lines.done(row("fast").key)
    assert lines.take(0) is None
    lines.done(row("slow").key)
    assert numbers(lines.take(0)) == [8] and lines.given_up == 7


def test_a_batch_line_waits_for_its_window_and_takes_what_came() -> None:
    lines = Lines(conflate=True, window_s=WINDOW_S)
    lines.add(frame("c", 1, batch=True))
    first = lines.take(5.0)
    assert numbers(first) == [1] and first is not None
    lines.done(first.line)
    for number, datasource in ((2, "s"), (3, "t"), (4, "s")):
        lines.add(frame("c", number, datasource, batch=True))
    assert lines.take(5.05) is None and lines.due == 5.0 + WINDOW_S and lines.waiting == 0
    second = lines.take(5.0 + WINDOW_S)
    assert second is not None and numbers(second) == [2, 3, 4]
    assert json.loads(second.body) == {"type": "batch", "messages": [2, 3, 4]}
    lines.done(second.line)
    assert not lines.empty, "the window of the last message is remembered"
    assert lines.take(6.0) is None and lines.empty


def test_what_waits_is_bounded() -> None:
    lines = Lines(conflate=False)
    body = b"x" * (KEPT_BYTES // 8)
    for _ in range(20):
        lines.add(Frame(row("c"), body, True))
    lines.add(Frame(row("c"), b"last", True))
    left = []
    while (sending := lines.take(0)) is not None:
        left.append(sending.body)
        lines.done(sending.line)
    assert left[-1] == b"last" and sum(map(len, left)) <= KEPT_BYTES and lines.given_up == 21 - len(left)


def test_what_waits_can_be_dropped() -> None:
    lines = Lines(conflate=False)
    for number in range(3):
        lines.add(frame("c", number))
    sending = lines.take(0)
    assert sending is not None and [int(one.body) for one in lines.drop(sending.line)] == [1, 2]
    lines.done(sending.line)
    assert lines.empty and lines.take(0) is None
