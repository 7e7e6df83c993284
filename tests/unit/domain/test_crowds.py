"""Which shard a subscription of a crowd gets, and when the mark is needed."""

from __future__ import annotations

from collections import Counter

from tidegate.domain.crowds import AUDIENCE_SHARDS, CROWD, MARK_S, RENEW_S, mark_until, parts, shard_of, too_many
from tidegate.domain.subscriptions import Stream


def stream(subscribes: int, crowd_until: int = 0) -> Stream:
    return Stream("k", "mqtt", "json", "a/#", "a/b", subscribes=subscribes, crowd_until=crowd_until)


def test_who_comes_before_the_crowd_is_in_the_first_shard() -> None:
    assert {shard_of(stream(CROWD - 1), f"{number}=") for number in range(500)} == {0}


def test_a_crowd_is_spread_evenly() -> None:
    viewers = Counter(shard_of(stream(CROWD), f"{number}=") for number in range(8000))
    assert set(viewers) == set(range(AUDIENCE_SHARDS)) and max(viewers.values()) < 1.15 * min(viewers.values())


def test_the_mark_outlives_every_row_of_the_crowd() -> None:
    assert mark_until(stream(CROWD - 1), 1000) is None
    assert mark_until(stream(CROWD), 1000) == 1000 + MARK_S
    assert mark_until(stream(CROWD, crowd_until=1000 + RENEW_S), 1000) is None
    assert mark_until(stream(CROWD, crowd_until=999 + RENEW_S), 1000) == 1000 + MARK_S


def test_a_crowd_that_has_gone_is_sent_to_by_one() -> None:
    assert too_many(CROWD // AUDIENCE_SHARDS) and not too_many(CROWD // AUDIENCE_SHARDS - 1)


def test_the_parts_are_all_shards() -> None:
    assert [part.shard for part in parts("k", ("a/b", "a/c"))] == list(range(AUDIENCE_SHARDS))
