"""The summary of operations: every part is asked at the same time, has its end, and fails alone."""

from __future__ import annotations

import threading

import pytest

from tests.doubles.platform import ManualClock, MemoryObserver
from tidegate.domain.access import Role
from tidegate.domain.relay import LEASE_S, OVERDUE_S, Lease
from tidegate.domain.subscriptions import Fault, Stream
from tidegate.domain.users import User
from tidegate.errors import Denied, Unavailable
from tidegate.settings import documented, load, shown
from tidegate.usecases.control_plane.operations import (
    NAMED,
    PART_S,
    OperationsSummary,
    Part,
    counted,
    relay_partition,
    source_of,
    upstreams,
)

ADMIN = User("admin", "a@x.example", Role.ADMIN, True, 1, "")
EDITOR = User("editor", "e@x.example", Role.EDITOR, True, 1, "")


def test_parts_are_read_at_the_same_time_and_each_has_its_end() -> None:
    clock, observer, all_there = ManualClock(), MemoryObserver(), threading.Barrier(20, timeout=30)
    deadlines: list[float] = []

    def read(deadline: float) -> str:
        all_there.wait()  # it is passed only when all are read at the same time
        deadlines.append(deadline - clock.monotonic())
        return "read"

    parts = [Part(str(number), read) for number in range(20)]
    answer = OperationsSummary(parts=parts, clock=clock, observer=observer)(ADMIN)
    assert answer == {str(number): "read" for number in range(20)} and deadlines == [PART_S] * 20


@pytest.mark.parametrize("error", [Unavailable("no"), ValueError("a defect")])
def test_a_part_that_fails_is_none_and_logged_and_the_others_are_read(error: Exception) -> None:
    def fails(deadline: float) -> int:
        raise error

    observer = MemoryObserver()
    parts = [Part("fails", fails), Part("zero", lambda deadline: 0)]
    answer = OperationsSummary(parts=parts, clock=ManualClock(), observer=observer)(ADMIN)
    assert answer == {"fails": None, "zero": 0}
    assert observer.faults == [("part of the summary not read", error)]


def test_nothing_is_read_for_others_than_admins() -> None:
    read: list[float] = []
    summary = OperationsSummary(parts=[Part("p", read.append)], clock=ManualClock(), observer=MemoryObserver())
    with pytest.raises(Denied):
        summary(EDITOR)
    assert read == []


def test_shards_add_up_and_one_with_more_makes_the_sum_a_lower_bound() -> None:
    assert (counted(lambda shard: (shard, False), 4).count, counted(lambda shard: (1, False), 4).more) == (6, False)
    assert counted(lambda shard: (1, shard == 2), 4).more is True


def stream(name: str, *, connected: bool = False, fault: Fault | None = None) -> Stream:
    intent = {"url": f"https://{name}.example/"}
    return Stream(name, "sse", "json", None, None, 1, intent=intent, connected=connected, fault=fault)


def test_upstreams_are_connected_failing_or_neither() -> None:
    down = [stream(f"d{number:03}", fault=Fault("STREAM_X", "no")) for number in range(NAMED + 5)]
    seen = upstreams([stream("a", connected=True), stream("b"), *down], most=100)
    assert (seen.connected, seen.idle, seen.failing_count, len(seen.failing), seen.more) == (
        1,
        1,
        NAMED + 5,
        NAMED,
        False,
    )
    assert upstreams(down, most=len(down)).more is True, "there may be others"


@pytest.mark.parametrize(
    ("intent", "shown_as"),
    [
        ({"url": "https://user:pw@a.example/path?token=s#f"}, "https://a.example/path"),
        ({"url": "wss://a.example:8443/x"}, "wss://a.example:8443/x"),
        ({"brokerUrl": "mqtts://b.example:8883", "topic": "plant/#"}, "mqtts://b.example:8883 plant/#"),
        ({"url": "https://[no"}, "?"),
        ({}, "?"),
    ],
)
def test_a_source_is_told_without_what_may_be_a_secret(intent: dict[str, object], shown_as: str) -> None:
    assert source_of(intent) == shown_as


def test_a_partition_is_held_overdue_or_free() -> None:
    def state(left: float) -> str:
        return relay_partition(0, Lease(0, "w", 1, 1000 + left), 1000).state

    assert relay_partition(1, None, 1000).state == "free"
    assert [state(LEASE_S), state(LEASE_S - OVERDUE_S - 0.1), state(0)] == ["held", "overdue", "free"]
    assert relay_partition(0, Lease(0, "w", 1, 1010, "next"), 1000).successor is True


def test_settings_are_shown_as_they_are_written() -> None:
    env = {
        "TIDEGATE_ENV": "test",
        "REALTIME_SSE_ENABLED": "no",
        "API_ALLOWED_ORIGINS": "https://a.example, https://b.example",
    }
    found = {each.variable: each for each in shown(load(env))}
    assert list(found) == [setting.variable for setting in documented()]
    assert found["REALTIME_SSE_ENABLED"].value == "false"
    assert found["API_ALLOWED_ORIGINS"].value == "https://a.example,https://b.example"
    assert found["API_ALLOWED_ORIGINS"].default == "empty"
    for setting in documented():
        text = found[setting.variable].value
        assert text == "empty" or setting.parse(text) is not None, "what is shown could be written into a stage file"
