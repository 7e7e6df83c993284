"""The sequence, its reader's place in it, and the orders of faults."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.fake_upstreams.faults import BadOrder, Faults, Kind, damaged, read_order
from fixtures.fake_upstreams.sequence import BUFFER, Cursor, event, value


def test_the_values_are_these_for_ever() -> None:
    assert [value(n) for n in (0, 1, 2, 99, 100, 101, 199, 200, 201)] == [
        25.0,
        24.9,
        24.8,
        15.1,
        15.0,
        15.1,
        24.9,
        25.0,
        24.9,
    ]
    assert event("sse", 7) == b'{"n":7,"upstream":"sse","value":24.3}'


@given(st.integers(0, 10**9), st.integers(1, 10**6), st.integers(0, 10**6))
def test_a_reader_continues_right_behind_what_it_has_seen(now: int, interval: int, after: int) -> None:
    cursor = Cursor(0, interval, now, after)
    latest = now // interval
    behind = max(after, latest - BUFFER) if after <= latest else after
    due = cursor.due()
    assert (due <= now) is (behind < latest)
    later = max(now, due)
    assert [cursor.take(later), cursor.take(later)] == [behind + 1, behind + 2]


def test_a_new_reader_waits_for_the_next_event() -> None:
    cursor = Cursor(start=100, interval=2, now=107)
    assert cursor.due() == 108
    assert cursor.take(108) == 4


def test_a_reader_that_sleeps_too_long_loses_what_left_the_buffer() -> None:
    cursor = Cursor(start=0, interval=1, now=0)
    assert cursor.take(BUFFER + 50) == 51


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"fault": "explode"}, "drop, stall"),
        ({}, "drop, stall"),
        ({"fault": "stall", "for": -1}, "positive number of seconds"),
        ({"fault": "stall", "for": True}, "positive number of seconds"),
        ({"fault": "stall", "for": float("nan")}, "positive number of seconds"),
        ({"fault": "garbage", "for": 1.5}, "positive number of messages"),
        ({"fault": "refuse", "status": 200}, "401"),
        ({"fault": "drop", "abrupt": "yes"}, "true or false"),
        ({"fault": "drop", "how": "hard"}, "'how' is not known"),
    ],
)
def test_a_wrong_order_names_what_is_allowed(body: dict[str, object], words: str) -> None:
    with pytest.raises(BadOrder, match=words):
        read_order(body)


def test_a_fault_ends_after_its_messages_or_its_time() -> None:
    now = 10.0
    faults = Faults(lambda: now)
    faults.start(read_order({"fault": "garbage", "for": 2}))
    assert [faults.take() for _ in range(3)] == [Kind.GARBAGE, Kind.GARBAGE, Kind.NONE]
    faults.start(read_order({"fault": "refuse", "for": 3, "status": 401}))
    assert faults.refusal() == 401 and faults.snapshot() == {"fault": "refuse", "left": 3.0}
    now = 13.0
    assert faults.refusal() is None and faults.kind is Kind.NONE


def test_a_stall_is_awaited_until_it_ends_or_is_called_off() -> None:
    async def go() -> None:
        faults = Faults(asyncio.get_running_loop().time)
        faults.start(read_order({"fault": "stall"}))
        waiting = asyncio.create_task(faults.stalled())
        await asyncio.sleep(0)
        assert not waiting.done()
        faults.start(read_order({"fault": "stall", "for": 0.01}))
        async with asyncio.timeout(5):
            await waiting
        assert faults.kind is Kind.NONE

    asyncio.run(go())


@given(st.integers(0, 10**12))
def test_damage_is_what_its_name_says(n: int) -> None:
    payload = event("mqtt", n)
    with pytest.raises(ValueError):
        json.loads(damaged(Kind.GARBAGE, payload))
    large = damaged(Kind.OVERSIZE, payload)
    assert len(large) > 128 * 1024 and json.loads(large)["event"]["n"] == n
    assert damaged(Kind.SLOW, payload) == payload
