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


@given(st.integers(1, 20), st.lists(st.floats(0, 0.6), max_size=60))
def test_no_more_than_the_rate_and_the_last_one_always(per_second: int, gaps: list[float]) -> None:
    conflator: Conflator[int] = Conflator(per_second)
    now, delivered = 0.0, []

    def until(end: float) -> None:
        while conflator.next_at is not None and conflator.next_at <= end:
            at = conflator.next_at
            value = conflator.due(at)
            assert value is not None
            delivered.append((at, value))

    for number, gap in enumerate(gaps):
        until(now + gap)
        now += gap
        value = conflator.offer(number, now)
        if value is not None:
            delivered.append((now, value))
    until(now + 10)
    values = [value for _, value in delivered]
    assert values == sorted(set(values)), "in order, none twice"
    assert not gaps or values[-1] == len(gaps) - 1, "the last one is always delivered"
    times = [at for at, _ in delivered]
    assert all(later - earlier >= 1 / per_second - 1e-9 for earlier, later in pairwise(times))


def test_without_a_rate_everything_passes() -> None:
    conflator: Conflator[int] = Conflator(0)
    assert [conflator.offer(number, 0.0) for number in range(5)] == list(range(5)) and conflator.next_at is None
