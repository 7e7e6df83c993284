"""Viewers who are throttled or gone, many at once: the work ends in time, and whoever is left is found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from threading import Barrier, Lock

import pytest

from tests.containers.gateway import GatewayContainer
from tests.doubles.platform import Died, ManualClock
from tidegate.adapters.aws import catch_up_queue
from tidegate.adapters.aws.catch_up_queue import SqsCatchUpQueue, read_catch_up
from tidegate.adapters.aws.json_client import AwsError
from tidegate.domain.subscriptions import CatchUpRequest
from tidegate.domain.time_limits import FUNCTION_S
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery
from tidegate.usecases import parallel
from tidegate.usecases.delivery.failures import FOLLOW_UP_S


class Sqs:
    """Queues calls of a client; each takes a while. So many run at once that the clock moves by a part of it only.

    Attributes:
        calls: the sizes of the batches that were sent.
        refused: how many entries of each batch are refused at the first try.
        down: every call fails.
        together: each call waits for others at this barrier.
    """

    def __init__(self, clock: ManualClock, *, answer_s: float = 0.01) -> None:
        self.calls: list[int] = []
        self.queued: list[CatchUpRequest] = []
        self.refused, self.down = 0, False
        self.together: Barrier | None = None
        self._clock, self._answer_s = clock, answer_s
        self._lock = Lock()
        self._seen: set[str] = set()

    def call(self, operation: str, payload: dict[str, object], *, deadline: float) -> dict[str, object]:
        assert operation == "SendMessageBatch" and deadline > self._clock.monotonic()
        entries: Sequence[dict[str, str]] = payload["Entries"]  # type: ignore[assignment]
        if self.together is not None:
            self.together.wait(20)
        with self._lock:
            self._clock.advance(self._answer_s / catch_up_queue.WIDTH)
            self.calls.append(len(entries))
            if self.down:
                raise AwsError("sqs", operation, "ServiceUnavailable", "", True, {}, status=503)
            fresh = not self._seen & {entry["MessageBody"] for entry in entries}
            self._seen |= {entry["MessageBody"] for entry in entries}
            taken = entries[self.refused :] if fresh else entries
            self.queued += [read_catch_up(entry["MessageBody"]) for entry in taken]
            return {"Successful": [{"Id": entry["Id"]} for entry in taken], "Failed": []}


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> GatewayContainer:
    made = GatewayContainer(per_dashboard=100_000, rate=100_000)
    monkeypatch.setattr(catch_up_queue, "monotonic", made.clock.monotonic)
    monkeypatch.setattr(catch_up_queue, "sleep", lambda _seconds: None)
    return made


def watched(container: GatewayContainer, viewers: int, answer: Delivery) -> Sqs:
    """Viewers who get this answer, beside one who is well, and the queue behind the failure handler."""
    container.subscribed("well")
    (row,), connection = container.subscriptions.rows.values(), container.connections.rows["well"]
    for viewer in [f"v{number}" for number in range(viewers)]:  # copies: thousands of subscribes would take long
        key = row.key._replace(connection_id=viewer)
        container.subscriptions.rows[key] = replace(row, key=key)
        container.connections.rows[viewer] = replace(connection, connection_id=viewer, slots=frozenset())
        container.sender.answers[viewer] = answer
    return Sqs(container.clock)


def put_in(container: GatewayContainer, sqs: Sqs) -> None:
    container.failure_handler._catch_ups = SqsCatchUpQueue(sqs, "queue")  # type: ignore[arg-type]


def test_three_hundred_throttled_are_thirty_calls_at_the_same_time(container: GatewayContainer) -> None:
    sqs = watched(container, 300, Delivery.THROTTLED)
    sqs.together = Barrier(15)
    put_in(container, sqs)
    began = container.clock.monotonic()
    assert container.publish() == 1
    assert sqs.calls == [10] * 30
    assert container.clock.monotonic() - began < 0.03, "3.1 s when each is a call of its own"
    assert {request.key.connection_id for request in sqs.queued} == {f"v{number}" for number in range(300)}


def test_2900_throttled_end_long_before_the_function_does(container: GatewayContainer) -> None:
    sqs = watched(container, 2_900, Delivery.THROTTLED)
    put_in(container, sqs)
    began = container.clock.monotonic()
    container.publish()
    assert len(sqs.calls) == 290 and len(sqs.queued) == 2_900
    assert container.clock.monotonic() - began < 0.3
    assert FUNCTION_S["mqtt_bridge.bridge"] / 2 > FOLLOW_UP_S


def test_a_queue_that_is_slow_is_left_at_the_deadline_and_the_call_fails(container: GatewayContainer) -> None:
    """So AWS repeats it, and the repetition sends the value again."""
    sqs = watched(container, 2_900, Delivery.THROTTLED)
    sqs._answer_s = 2.0
    put_in(container, sqs)
    began = container.clock.monotonic()
    with pytest.raises(Unavailable, match="catch-ups could not be queued"):
        container.publish()
    assert container.clock.monotonic() - began < FOLLOW_UP_S + sqs._answer_s
    left = 2_900 - len(sqs.queued)
    assert left and container.observer.counts[("catch_ups_not_queued",)] == left


def test_what_sqs_refuses_of_a_batch_is_sent_again(container: GatewayContainer) -> None:
    sqs = watched(container, 25, Delivery.THROTTLED)
    sqs.refused = 3
    put_in(container, sqs)
    container.publish()
    assert sorted(sqs.calls) == [3, 3, 3, 5, 10, 10]
    assert len({request.key for request in sqs.queued}) == len(sqs.queued) == 25


def test_a_batch_holds_no_more_bytes_than_sqs_takes() -> None:
    container = GatewayContainer()
    container.subscribed()
    (row,) = container.subscriptions.rows.values()
    large = CatchUpRequest(row.key, row.generation, "x" * 100_000)
    sqs = Sqs(container.clock)
    assert SqsCatchUpQueue(sqs, "queue").queue_many([large] * 5, float("inf")) == []  # type: ignore[arg-type]
    assert sorted(sqs.calls) == [1, 2, 2]


def repeated(container: GatewayContainer, payload: bytes) -> None:
    """The invocation fails, and AWS repeats it a minute later."""
    at_ms = round(container.clock.now() * 1000)
    with pytest.raises((Unavailable, Died)):
        container.publish(payload, message_id="m1", at_ms=at_ms)
    container.sender.answers.clear()
    container.clock.advance(60)
    container.publish(payload, message_id="m1", at_ms=at_ms)


@pytest.mark.parametrize("newer", [False, True])
def test_no_queue_at_all_and_everybody_ends_with_the_newest(container: GatewayContainer, newer: bool) -> None:
    """`newer`: another value is delivered before the repetition, and nobody could be sent that either."""
    sqs = watched(container, 30, Delivery.THROTTLED)
    sqs.down = True
    put_in(container, sqs)
    if newer:
        post = container.sender.post

        def overtaken(connection_id: str, body: bytes) -> Delivery:
            container.sender.post = post  # type: ignore[method-assign]
            with pytest.raises(Unavailable):
                container.publish(b"2", message_id="m2")
            return post(connection_id, body)

        container.sender.post = overtaken  # type: ignore[method-assign]
    repeated(container, b"1")
    for number in range(30):
        assert container.sender.data(f"v{number}")[-1] == (2 if newer else 1)


def test_a_process_that_dies_half_way_is_made_up_for(container: GatewayContainer) -> None:
    sqs = watched(container, 30, Delivery.THROTTLED)
    put_in(container, sqs)
    call = sqs.call

    def dies(*args: object, **options: object) -> dict[str, object]:
        if len(sqs.calls) == 1:
            raise Died
        return call(*args, **options)  # type: ignore[arg-type]

    sqs.call = dies  # type: ignore[method-assign]
    repeated(container, b"1")
    assert all(container.sender.data(f"v{number}") == [1] for number in range(30))


def test_who_missed_two_frames_has_one_catch_up(container: GatewayContainer) -> None:
    """Twice the same work, in one call and in two: at most a catch-up more, which finds nothing to send."""
    sqs = watched(container, 1, Delivery.THROTTLED)
    put_in(container, sqs)
    container.bridge._max_bytes = 0  # the message is too large: an error for everybody
    container.publish()
    container.bridge._max_bytes = 2000
    container.publish()
    assert sqs.calls == [1, 1]
    container.sender.answers.clear()
    for request in sqs.queued:
        container.catch_up(request)
    assert container.sender.data("v0")[-1] == 1


def test_the_gone_are_released_at_the_same_time_and_within_the_deadline(
    container: GatewayContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched(container, 300, Delivery.GONE)
    gone, lock, together = container.end_connection.gone, Lock(), Barrier(parallel.WIDTH)

    def slowly(connection_id: str) -> None:
        if next(begun) < parallel.WIDTH:
            together.wait(20)
        with lock:
            container.clock.advance(0.8 / parallel.WIDTH)
            gone(connection_id)

    begun = count()

    monkeypatch.setattr(container.end_connection, "gone", slowly)
    container.publish()
    released = 301 - len(container.connections.rows)
    assert 100 < released < 300
    assert container.observer.counts[("viewers_not_released",)] == 300 - released
    container.clock.advance(2)
    container.publish(b"2", message_id="m2")  # their next 410 finds those who are left
    assert len(container.connections.rows) == 1
