from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal
from tidegate.domain.client_queues import KEPT_BYTES, Batch, ClientQueues, Frame
from tidegate.domain.subscriptions import Subscription, SubscriptionKey
from tidegate.protocol import batches

WINDOW_S = 0.1


def row(connection: str, datasource: str = "s", *, batch: bool = False) -> Subscription:
    claim = Claim("d", datasource, Principal(PUBLIC_SUBJECT, 1), "hash", 10**10)
    return Subscription(SubscriptionKey("d", connection, datasource), "attempt", claim, "stream", True, batch=batch)


def frame(
    connection: str,
    number: int,
    datasource: str = "s",
    *,
    batch: bool = False,
    data: bool = True,
    topic: str | None = None,
) -> Frame:
    return Frame(row(connection, datasource, batch=batch), str(number).encode(), data, topic)


def numbers(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [int(frame.body) for frame in batch.frames]


@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=12))
def test_every_frame_is_in_one_message_that_is_not_too_large(payloads: list[bytes]) -> None:
    bodies = [json.dumps(payload.hex()[: len(payload)]).encode() for payload in payloads]
    messages = list(batches.split(bodies))
    read = [json.loads(message) for message in messages]
    assert [frame for got in read for frame in (got["messages"] if isinstance(got, dict) else [got])] == [
        json.loads(body) for body in bodies
    ]
    for message, got in zip(messages, read, strict=True):
        assert not isinstance(got, dict) or len(message) <= batches.MAX_BYTES
        if isinstance(got, dict):
            assert got["type"] == "batch" and len(got["messages"]) > 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3), st.booleans(), st.booleans(), st.sampled_from([None, "a", "b"])),
        st.tuples(st.just("take")),
        st.tuples(st.just("done"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.floats(0, 0.15)),
    ),
    max_size=60,
)


class ObservedQueues:
    """Queues, what was added to them, and what they gave. Connections 0 and 1 are plain, 2 and 3 asked for batch
    frames; each has two subscriptions."""

    def __init__(self, *, conflate: bool) -> None:
        self.queues = ClientQueues(conflate=conflate, window_s=WINDOW_S)
        self.now = 0.0
        self.added: dict[object, list[Frame]] = defaultdict(list)
        self.sent: dict[object, list[Frame]] = defaultdict(list)
        self._number = 0
        self._under_way: dict[object, Batch] = {}
        self._last_at: dict[object, float] = {}

    def add(self, connection: int, second: bool, data: bool, topic: str | None) -> None:
        self._number += 1
        name = "t" if second else "s"
        made = frame(f"c{connection}", self._number, name, batch=connection > 1, data=data, topic=topic)
        self.added[made.queue_key].append(made)
        self.queues.add(made)

    def take(self) -> bool:
        """Take the next message. False when there is none."""
        batch = self.queues.take(self.now)
        if batch is None:
            return False
        assert batch.queue_key not in self._under_way, "one message of a queue at a time"
        if batch.frames[0].row.batch:
            assert self.now >= self._last_at.get(batch.queue_key, -1.0) + WINDOW_S
            self._last_at[batch.queue_key] = self.now
        else:
            assert len(batch.frames) == 1
        self._under_way[batch.queue_key] = batch
        self.sent[batch.queue_key] += batch.frames
        return True

    def done(self, which: int) -> None:
        """The message taken as the `which`-th of those under way has been answered; nothing when there are fewer."""
        for key in list(self._under_way)[which : which + 1]:
            del self._under_way[key]
            self.queues.done(key)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def drain(self) -> None:
        """Take and answer until nothing is left."""
        for _ in range(4 * self._number + 4):
            while self._under_way:
                self.done(0)
            self.wait(WINDOW_S)
            while self.take():
                pass


def assert_only_older_data_is_missing(frames: list[Frame], sent: list[Frame]) -> None:
    """Of one queue: in order, each once, and what is missing gave way to newer data of its subscription and topic."""
    left = iter(frames)
    assert all(any(made is taken for made in left) for taken in sent), "in order, each once"
    for missing in frames:
        if any(missing is taken for taken in sent):
            continue
        assert missing.is_data
        series = missing.row.key, missing.topic
        data = [made for made in frames if (made.row.key, made.topic) == series and made.is_data]
        assert data[-1] is not missing and any(data[-1] is taken for taken in sent), "the newest is sent"


@given(STEPS, st.booleans())
def test_queues_keep_their_order_and_lose_nothing_but_what_is_given_up(
    steps: list[tuple[Any, ...]], conflate: bool
) -> None:
    observed = ObservedQueues(conflate=conflate)
    for name, *arguments in steps:
        getattr(observed, name)(*arguments)
    observed.drain()
    assert observed.queues.empty and observed.queues.due is None and not observed.queues.ready(observed.now)
    for key, frames in observed.added.items():
        assert conflate or len(observed.sent[key]) == len(frames), "nothing is missing"
        assert_only_older_data_is_missing(frames, observed.sent[key])
    added, sent = (sum(map(len, frames.values())) for frames in (observed.added, observed.sent))
    assert observed.queues.given_up == added - sent


def test_behind_a_slow_viewer_the_newest_wins() -> None:
    queues = ClientQueues(conflate=True)
    for number in range(3):
        queues.add(frame("slow", number))
    assert numbers(queues.take(0)) == [0], "nothing is given up before it waits for an answer"
    for number in range(3, 9):
        queues.add(frame("slow", number))
        queues.add(frame("fast", number))
        assert numbers(queues.take(0)) == [number]
        queues.done(row("fast").key)
    assert queues.take(0) is None
    queues.done(row("slow").key)
    assert numbers(queues.take(0)) == [8] and queues.given_up == 7


def test_a_queue_of_batches_waits_for_its_window_and_takes_what_came() -> None:
    queues = ClientQueues(conflate=True, window_s=WINDOW_S)
    queues.add(frame("c", 1, batch=True))
    first = queues.take(5.0)
    assert numbers(first) == [1] and first is not None
    queues.done(first.queue_key)
    for number, datasource in ((2, "s"), (3, "t"), (4, "s")):
        queues.add(frame("c", number, datasource, batch=True))
    assert queues.take(5.05) is None and queues.due == 5.0 + WINDOW_S and queues.waiting == 0
    second = queues.take(5.0 + WINDOW_S)
    assert second is not None and numbers(second) == [2, 3, 4]
    assert json.loads(second.body) == {"type": "batch", "messages": [2, 3, 4]}
    queues.done(second.queue_key)
    assert not queues.empty, "the window of the last message is remembered"
    assert queues.take(6.0) is None and queues.empty


def test_what_waits_is_bounded() -> None:
    queues = ClientQueues(conflate=False)
    body = b"x" * (KEPT_BYTES // 8)
    for _ in range(20):
        queues.add(Frame(row("c"), body, True))
    queues.add(Frame(row("c"), b"last", True))
    left = []
    while (batch := queues.take(0)) is not None:
        left.append(batch.body)
        queues.done(batch.queue_key)
    assert left[-1] == b"last" and sum(map(len, left)) <= KEPT_BYTES and queues.given_up == 21 - len(left)


def test_what_waits_can_be_dropped() -> None:
    queues = ClientQueues(conflate=False)
    for number in range(3):
        queues.add(frame("c", number))
    batch = queues.take(0)
    assert batch is not None and [int(frame.body) for frame in queues.drop(batch.queue_key)] == [1, 2]
    queues.done(batch.queue_key)
    assert queues.empty and queues.take(0) is None


def test_behind_a_slow_viewer_the_newest_of_each_topic_is_kept() -> None:
    queues = ClientQueues(conflate=True)
    queues.add(frame("slow", 0, topic="a"))
    assert numbers(queues.take(0)) == [0]
    for number, topic in enumerate(("a", "b", "a", "c", "b"), start=1):
        queues.add(frame("slow", number, topic=topic))
    sent = []
    for _ in range(3):
        queues.done(row("slow").key)
        sent += numbers(queues.take(0))
    assert sent == [3, 4, 5] and queues.given_up == 2
