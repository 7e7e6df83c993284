"""Calls of the bridge that share the send quota with a relay worker, in time that nobody waits for: no window is
exceeded, the quiet go on, and everybody ends with the newest value."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.containers.paced import SLACK_S, SPREAD_S, World, stream_of
from tidegate.domain.send_quota import WINDOW_MS
from tidegate.ports.gateway import SourceStreams


def test_a_crowd_of_the_bridge_and_one_of_the_relay_leave_a_quiet_stream_in_peace() -> None:
    """Each crowd wants three times the quota. The quiet one has a viewer, and a value now and then."""
    world = World({"crowd": 300, "relayed": 300, "quiet": 1}, 1_000)
    for number in range(60):
        world.publish(number / 10 + 0.001, "crowd", number)
    world.relay("relayed", [(number / 10, number) for number in range(60)], 9.0)
    published = {number: 0.5 + number * 0.37 for number in range(14)}
    for number, at in published.items():
        world.publish(at, "quiet", number)
    world.turns.run()
    assert max(world.quota.granted.values()) <= 100, "no window grants more than it has"
    assert world.numbers("quiet") == [list(range(14))]
    assert max(world.delays("quiet", published)) <= WINDOW_MS / 1000 + SPREAD_S + SLACK_S
    for crowd in ("crowd", "relayed"):
        got = world.numbers(crowd)
        assert all(numbers[-1] == 59 for numbers in got), "everybody ends with the newest"
        assert all(numbers == sorted(numbers) for numbers in got), "never an old one"
        counts = [len(numbers) for numbers in got]
        assert min(counts) >= 5 and max(counts) <= 2 * min(counts), (crowd, min(counts), max(counts))
    totals = [sum(map(len, world.numbers(crowd))) for crowd in ("crowd", "relayed")]
    assert min(totals) / max(totals) > 0.5, totals
    assert not world.missed and not world.failed
    assert world.most_under_way["crowd"] <= 3, "newer values are left to one call"
    assert world.observer.counts[("frames_conflated_by_quota",)] > 0


def test_a_call_hands_over_before_its_time_is_over_and_another_goes_on() -> None:
    """A stream that never stops: no call lasts longer than its time, and nobody is left to catch-ups."""
    world = World({"crowd": 200}, 500)
    for number in range(250):
        world.publish(number / 10 + 0.001, "crowd", number)
    world.turns.run()
    assert all(numbers[-1] == 249 for numbers in world.numbers("crowd"))
    assert all(len(numbers) > 250 * 0.15 for numbers in world.numbers("crowd")), "nobody starves"
    assert not world.missed and not world.failed


def test_what_the_quota_does_not_grant_in_time_is_left_to_catch_ups() -> None:
    world = World({"crowd": 200}, 500)
    world.quota.broken = True
    world.publish(0.0, "crowd", 1)
    world.turns.run()
    assert 15 <= world.turns.at < 16
    assert {each.row.key.connection_id for each in world.missed} == {f"crowd-{number}" for number in range(200)}
    assert world.observer.counts[("deliveries", "refused")] == 200


def test_a_message_of_several_streams_shares_its_time() -> None:
    viewers = {"crowd": 40, "other": 40}
    world = World(viewers, 500)
    both = [replace(stream_of(name), topic_filter="a/both") for name in viewers]
    world.viewers.of_source = lambda _topic: SourceStreams(1, both)  # type: ignore[method-assign, assignment]
    world.quota.broken = True
    world.publish(0.0, "both", 1)

    def mend() -> None:
        world.quota.broken = False

    world.turns.begin(8.0, mend)
    world.turns.run()
    assert len(world.missed) == 40 and world.numbers("other") == [[1]] * 40


def test_without_conflation_each_call_sends_its_own() -> None:
    world = World({"crowd": 50}, 500, conflate=False)
    for number in range(10):
        world.publish(number / 100, "crowd", number)
    world.turns.run()
    assert all(set(numbers) == set(range(10)) and numbers[-1] == 9 for numbers in world.numbers("crowd"))


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(st.integers(0, 1500), min_size=1, max_size=15),
    per_second=st.sampled_from([20, 100, 400]),
    seed=st.integers(0, 2**32),
    store_ms=st.sampled_from([1, 20, 120]),
)
def test_whatever_comes_when_everybody_ends_with_the_newest(
    arrivals: list[int], per_second: int, seed: int, store_ms: int
) -> None:
    world, at = World({"crowd": 30}, per_second, seed=seed, store_s=store_ms / 1000), 0.0
    for number, gap_ms in enumerate(arrivals):
        at += gap_ms / 1000
        world.publish(at, "crowd", number)
    world.turns.run()
    newest = json.loads(world.values.rows["crowd"].payload)
    missed = {each.row.key.connection_id for each in world.missed}
    for row in world.viewers.rows["crowd"]:
        numbers = [number for _, number in world.sent.get(row.key.connection_id, [])]
        assert row.key.connection_id in missed or numbers[-1] == newest
    assert max(world.quota.granted.values()) <= world.quota.quota.per_second // 10
