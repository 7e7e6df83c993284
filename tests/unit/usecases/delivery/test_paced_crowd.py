"""A crowd that is sent to in parts, within the send quota, in time that nobody waits for."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from tests.containers.paced import SLACK_S, SPREAD_S, PartsWorld, Viewers
from tidegate.domain.crowds import AUDIENCE_SHARDS, Audience, CrowdPart
from tidegate.domain.send_quota import WINDOW_MS
from tidegate.domain.subscriptions import Subscription


class CrowdViewers(Viewers):
    """Those of `crowd` are spread over shards, and too many for one sender."""

    def __init__(self, audiences: dict[str, int]) -> None:
        super().__init__(audiences)
        self.shards: list[list[Subscription]] = [[] for _ in range(AUDIENCE_SHARDS)]
        for row in self.rows["crowd"]:
            self.shards[zlib.crc32(row.key.connection_id.encode()) % AUDIENCE_SHARDS].append(row)

    def audience(self, name: str) -> Audience:
        return Audience(self.shards[0], whole=False) if name == "crowd" else super().audience(name)


class CrowdWorld(PartsWorld):
    """Calls of the bridge ask for parts, and each part is an invocation."""

    viewers: CrowdViewers

    def __init__(self, audiences: dict[str, int], per_second: int, **options: Any) -> None:
        super().__init__(audiences, per_second, **options)
        self.viewers = CrowdViewers(audiences)

    def audience_of(self, part: CrowdPart, _stream_key: str) -> Audience:
        return Audience(self.viewers.shards[part.shard])


@pytest.mark.parametrize(
    ("viewers", "per_second"), [(20_000, 5_000), pytest.param(100_000, 10_000, marks=pytest.mark.full)]
)
def test_a_crowd_is_delivered_to_within_the_quotas_time_and_a_second(viewers: int, per_second: int) -> None:
    world = CrowdWorld({"crowd": viewers}, per_second)
    world.publish(0.0, "crowd", 1)
    world.turns.run()
    assert world.numbers("crowd") == [[1]] * viewers, "everybody once"
    took = max(at for sent in world.sent.values() for at, _ in sent)
    assert took <= viewers / (per_second * 0.9) + 1, "a tenth of the quota is kept for small asks"
    assert max(world.quota.granted.values()) <= per_second // 10 and world.parts == AUDIENCE_SHARDS
    assert not world.missed and not world.failed


def test_a_crowd_that_is_slower_than_its_stream_gets_fewer_values_and_leaves_a_quiet_one_in_peace() -> None:
    """The crowd wants fifteen times the quota."""
    world = CrowdWorld({"crowd": 3_000, "quiet": 1}, 2_000)
    for number in range(40):
        world.publish(number / 10 + 0.001, "crowd", number)
    published = {number: 0.5 + number * 0.37 for number in range(9)}
    for number, at in published.items():
        world.publish(at, "quiet", number)
    world.turns.run()
    assert max(world.quota.granted.values()) <= 200
    assert world.numbers("quiet") == [list(range(9))]
    assert max(world.delays("quiet", published)) <= WINDOW_MS / 1000 + SPREAD_S + SLACK_S
    got = world.numbers("crowd")
    assert all(numbers[-1] == 39 for numbers in got), "everybody ends with the newest"
    assert all(numbers == sorted(numbers) for numbers in got), "never an old one"
    assert min(map(len, got)) >= 2 and not world.missed and not world.failed
    late = [at - number / 10 for row in world.viewers.rows["crowd"] for at, number in world.sent[row.key.connection_id]]
    assert sorted(late)[len(late) // 2] < 1, "what is sent is new: one pass takes a second and a half"
