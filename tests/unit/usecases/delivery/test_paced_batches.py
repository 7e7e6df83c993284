"""Batches of device messages under a lasting shortage of the send quota, in time that nobody waits for: the queue does
not fall behind, people see fewer values and no old ones, and everybody ends with the newest of each topic."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest

from infra.bridge import BATCH
from infra.concurrency import AT_ONCE
from tests.containers.paced import PER_SECOND, PartsWorld, Slow, stream_of
from tidegate.ports.gateway import SourceStreams
from tidegate.usecases.delivery import together
from tidegate.usecases.delivery.bridge import Bridge, DeviceMessage
from tidegate.usecases.delivery.interval import Interval
from tidegate.usecases.delivery.together import Together

#: The batch window of the queue, seconds.
WINDOW_S = 1.0
FLEET = replace(stream_of("fleet"), topic_filter="a/+")


class BatchWorld(PartsWorld):
    """A queue of device messages, and the processes that handle its batches. Every viewer asked for batch frames."""

    def __init__(
        self, viewers: int, per_second: int, topics: int, seconds: float, each_s: float, from_s: float = 0.0
    ) -> None:
        """Each topic has a value every `each_s` for so many seconds. Nothing is handled before `from_s`."""
        super().__init__({"fleet": viewers}, per_second)
        self.viewers.rows["fleet"] = [replace(row, batch=True) for row in self.viewers.rows["fleet"]]
        self.viewers.of_source = lambda _topic: SourceStreams(1, [FLEET])  # type: ignore[method-assign, assignment]
        #: connection -> (when, topic, number)
        self.values_sent: dict[str, list[tuple[float, str, int]]] = {}
        self.published: dict[tuple[str, int], float] = {}
        self.messages = 0
        self.lags: list[float] = []
        self.handled_at = 0.0
        self._queue: list[tuple[float, DeviceMessage]] = []
        self.last = round(seconds / each_s) - 1
        for number in range(self.last + 1):
            for topic in range(topics):
                at = number * each_s + topic * each_s / topics
                self._published(at, f"a/t{topic}", number)
        self._queue.sort(key=lambda each: each[0])
        self.topics = [f"a/t{topic}" for topic in range(topics)]
        for _ in range(AT_ONCE["mqtt_bridge.bridge"]):
            self.turns.begin(from_s, self._poll)

    def _published(self, at: float, topic: str, number: int) -> None:
        self.published[topic, number] = at
        stamp = int((self.turns.now() + at) * 1000)
        self._queue.append((at, DeviceMessage("a/#", topic, str(number).encode(), stamp, f"{number:06d}")))

    def _poll(self) -> None:
        """One of the processes: handles a batch when there are enough messages, or the first is old enough."""
        bridge, turns = self.bridge(), self.turns
        while self._queue:
            there = [each for each in self._queue[:BATCH] if each[0] <= turns.at]
            if len(there) < BATCH and (not there or turns.at - there[0][0] < WINDOW_S):
                turns.sleep(0.02)
                continue
            del self._queue[: len(there)]
            self.lags.append(turns.at - there[0][0])
            assert not bridge.batch([message for _, message in there])
            self.handled_at = turns.at

    def bridge(self) -> Bridge:
        bridge = super().bridge()
        values = cast(Any, Slow(self, self.values, self.chance))
        bridge._together = Together(
            fan_out=bridge._fan_out,
            last_values=values,
            interval=Interval(last_values=values, per_second=PER_SECOND, clock=self.turns, sleep=self.turns.sleep),
            send=cast(Any, bridge._fan_out._send),
            crowds=self,
            clock=self.turns,
            observer=self.observer,
        )
        return bridge

    def delivered(self, now: float, connection_id: str, body: dict[str, Any]) -> None:
        self.messages += 1
        self.values_sent.setdefault(connection_id, []).extend(
            (now, frame["topic"], frame["payload"]) for frame in body.get("messages", [body])
        )

    def seen(self) -> list[dict[str, list[tuple[float, int]]]]:
        """What each viewer was sent of each topic."""
        found = []
        for row in self.viewers.rows["fleet"]:
            topics: dict[str, list[tuple[float, int]]] = {topic: [] for topic in self.topics}
            for at, topic, number in self.values_sent.get(row.key.connection_id, []):
                topics[topic].append((at, number))
            found.append(topics)
        return found

    def replaced_for(self) -> list[float]:
        """For how long a newer value of the topic had been published when a value was sent, seconds. Negative when none
        had."""
        return sorted(
            at - self.published.get((topic, number + 1), float("inf"))
            for topics in self.seen()
            for topic, sent in topics.items()
            for at, number in sent
        )

    def after_newer(self) -> int:
        """How many values came after a newer one of their topic."""
        pairs = [pair for topics in self.seen() for sent in topics.values() for pair in pairwise(sent)]
        return sum(later < earlier for (_, earlier), (_, later) in pairs)

    def everybody_has_the_newest(self) -> bool:
        return all(sent[-1][1] == self.last for topics in self.seen() for sent in topics.values())


def test_without_a_shortage_a_batch_is_one_message_for_each_viewer() -> None:
    world = BatchWorld(10, 1_000, topics=20, seconds=5, each_s=0.5)
    world.turns.run()
    assert world.everybody_has_the_newest() and not world.missed and not world.parts and not world.after_newer()
    values = sum(len(sent) for topics in world.seen() for sent in topics.values())
    assert values / world.messages > 10 and max(world.lags) <= WINDOW_S + 0.1


def shortage(seconds: float, **changes: float) -> BatchWorld:
    """Two hundred messages a second, of twenty topics. The quota is a quarter of what one batch a second wants."""
    world = BatchWorld(100, 25, topics=20, seconds=seconds, each_s=0.1)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in changes.items():
            patched.setattr(together, name, value)
        world.turns.run()
    return world


def test_under_a_lasting_shortage_people_see_fewer_values_and_no_old_ones() -> None:
    world = shortage(40)
    assert world.everybody_has_the_newest() and not world.missed and not world.failed
    assert max(world.lags) <= WINDOW_S + 0.1, "the queue does not fall behind"
    assert world.replaced_for()[-1] < 1.5, "a viewer's turn comes every four seconds, and brings what is new then"
    values = sum(len(sent) for topics in world.seen() for sent in topics.values())
    assert world.after_newer() < values / 100, "by batches that began before there was a topic sender"
    assert values / world.messages > 15, "and its messages are batches too"
    assert min(len(sent) for topics in world.seen() for sent in topics.values()) >= 5, "nobody starves"
    assert max(world.quota.granted.values()) <= 25 // 10 + 1
    assert world.parts < 20 and world.observer.counts[("messages_conflated",)] > 7000


@pytest.mark.parametrize("per_second", [20, 100, 400])
def test_a_queue_that_was_not_handled_for_a_minute_is_caught_up_with_in_seconds(per_second: int) -> None:
    """The bridge could not run. Then there are twelve thousand messages at once."""
    world = BatchWorld(20, per_second, topics=20, seconds=60, each_s=0.1, from_s=60)
    world.turns.run()
    assert world.everybody_has_the_newest() and not world.missed and not world.failed
    seen = [number for topics in world.seen() for sent in topics.values() for _, number in sent]
    assert len(seen) < 20 * 20 * world.last / 50, "hardly any of the old ones was sent"
    assert world.handled_at < 60 + 10


def test_a_batch_that_waits_for_its_sends_falls_behind() -> None:
    """The rule taken out: a batch waits as a single message does, and sends what is late."""
    world = shortage(15, LATE_S=1e9, QUOTA_S=15.0, SHORT_S=0.0)
    assert max(world.lags) > 2 * WINDOW_S and world.replaced_for()[-1] > 3 and world.after_newer() > 200
