from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.backoff import delay_ms
from tidegate.domain.conflation import Conflator


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.integers(100, 5000), st.integers(5000, 10**6))
def test_delays_stay_within_their_bounds(attempt: int, chance: float, low: int, high: int) -> None:
    assert low <= delay_ms(attempt, chance, low, high) <= high
    assert delay_ms(attempt, chance, low, high, refused=True) >= high // 2, "no hammering"


def test_the_bound_doubles() -> None:
    assert [delay_ms(attempt, 0.999999, 1000, 30_000) for attempt in (1, 2, 3, 9)] == [1999, 3999, 7999, 29_999]
    assert delay_ms(9, 0, 1000, 30_000) == 1000


@given(st.integers(1, 20), st.lists(st.tuples(st.floats(0, 0.6), st.sampled_from("abc")), max_size=60))
def test_no_more_than_the_rate_and_the_last_one_always(per_second: int, steps: list[tuple[float, str]]) -> None:
    conflator: Conflator[tuple[int, str]] = Conflator(per_second)
    now, delivered = 0.0, list[tuple[float, int, str]]()

    def until(end: float) -> None:
        while conflator.next_at is not None and conflator.next_at <= end:
            at = conflator.next_at
            due = conflator.due(at)
            assert due is not None
            delivered.append((at, *due))

    for number, (gap, topic) in enumerate(steps):
        until(now + gap)
        now += gap
        passed = conflator.offer((number, topic), now, topic)
        if passed is not None:
            delivered.append((now, *passed))
    until(now + 10)
    for topic in {topic for _, topic in steps}:
        values = [value for _, value, of in delivered if of == topic]
        assert values == sorted(set(values)), "in order, none twice"
        last = max(number for number, (_, of) in enumerate(steps) if of == topic)
        assert values[-1] == last, "the last one is always delivered"
        times = [at for at, _, of in delivered if of == topic]
        assert all(later - earlier >= 1 / per_second - 1e-9 for earlier, later in pairwise(times))


def test_topics_do_not_limit_each_other() -> None:
    """Fifty devices once a second, and ten values a second: all fifty are seen."""
    conflator: Conflator[int] = Conflator(10)
    for second in range(3):
        passed = [conflator.offer(device, second + device / 1000, f"d{device}") for device in range(50)]
        assert passed == list(range(50))


def test_topics_that_are_quiet_are_forgotten() -> None:
    conflator: Conflator[int] = Conflator(10)
    for number in range(5_000):
        assert conflator.offer(number, float(number), f"t{number}") == number
    assert len(conflator._next_at) <= 1_001


def test_without_a_rate_everything_passes() -> None:
    conflator: Conflator[int] = Conflator(0)
    assert [conflator.offer(number, 0.0) for number in range(5)] == list(range(5)) and conflator.next_at is None
