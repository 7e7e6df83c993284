from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.send_quota import LEAST, SMALL, WHOLE, WINDOW_MS, SendQuota, SendWindow, left_ms, window_at

QUOTA = SendQuota(2_000)


def test_a_window_has_its_part_of_a_second() -> None:
    assert QUOTA.opened(None, 7) == SendWindow(7, 200, WHOLE, 0)
    assert SendQuota(10_000).items == 4 and SendQuota(10_000).opened(None, 7).left == 250


@given(st.integers(1, 20_000), st.lists(st.integers(1, 3_000), max_size=60))
def test_a_window_grants_no_more_than_it_has_and_keeps_some_for_small_asks(quota: int, asks: list[int]) -> None:
    window = before = SendQuota(quota).opened(None, 1)
    for wanted in asks:
        granted = SendQuota(quota).granted(window, wanted)
        assert 0 <= granted <= wanted
        window = SendWindow(window.number, window.left - granted, window.share, window.fell_at)
        if wanted > SMALL and granted:
            assert window.left >= before.left // 10 - 1, "what is reserved is left"
    assert window.left >= 0


def test_a_small_ask_is_granted_after_one_that_wants_everything() -> None:
    window = QUOTA.opened(None, 1)
    assert QUOTA.granted(window, 1_000) == 180
    after = SendWindow(1, window.left - 180)
    assert QUOTA.granted(after, 1_000) == 0 and QUOTA.granted(after, 1) == 1


def test_the_share_falls_once_a_second_when_throttled_and_comes_back() -> None:
    window = QUOTA.opened(None, 100)
    fallen = QUOTA.fallen(window)
    assert fallen is not None and fallen.share == 700 and QUOTA.fallen(fallen) is None
    assert QUOTA.opened(fallen, 101).left == 142, "a hundredth more with each window"
    later = QUOTA.fallen(SendWindow(110, 0, fallen.share, fallen.fell_at))
    assert later is not None and later.share == 490
    assert QUOTA.opened(later, 110 + 51).share == WHOLE


def test_the_share_never_falls_below_the_least() -> None:
    window = QUOTA.opened(None, 100)
    for number in range(100, 400, 10):
        fallen = QUOTA.fallen(SendWindow(number, 0, window.share, window.fell_at))
        assert fallen is not None
        window = fallen
    assert window.share == LEAST


def test_windows_are_aligned_to_the_epoch() -> None:
    assert window_at(1_000) == 10 and left_ms(1_000) == WINDOW_MS and left_ms(1_099) == 1
