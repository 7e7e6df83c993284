"""Calls of the bridge that share the send quota with a relay worker, in time that nobody waits for: no window is
exceeded, the quiet go on, and everybody ends with the newest value."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.doubles.platform import CountingIds, MemoryObserver
from tests.doubles.send_quota import MemorySendQuota
from tests.doubles.stores import MemoryLastValues
from tests.doubles.turns import Turns
from tests.model.actors import OWNER, USERS
from tidegate.domain.access import PUBLIC_SUBJECT, Claim, DashboardAccess, Principal, Visibility
from tidegate.domain.client_queues import ClientQueues, Frame, Missed
from tidegate.domain.crowds import Audience
from tidegate.domain.send_quota import WINDOW_MS, SendQuota
from tidegate.domain.subscriptions import Stream, Subscription, SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery, OutboundQueue
from tidegate.ports.gateway import AccessSnapshot, SourceStreams
from tidegate.protocol import messages
from tidegate.usecases.delivery.audiences import Audiences
from tidegate.usecases.delivery.bridge import Bridge, DeviceMessage
from tidegate.usecases.delivery.carry import Carry
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.interval import Interval
from tidegate.usecases.delivery.paced_queue import Pace, PacedQueue
from tidegate.usecases.delivery.send_queue import SendQueue
from tidegate.usecases.delivery.senders import OneShotSender, Patience
from tidegate.usecases.delivery.settle import Settle

PER_SECOND = 10
#: Senders that were refused spread their next ask by so much, and what a message and the stores take.
SPREAD_S, SLACK_S = 0.02, 0.03


def stream_of(name: str) -> Stream:
    return Stream(name, "mqtt", "json", "a/#", f"a/{name}", 0)


class Viewers:
    """Who watches which stream, everybody with a right to."""

    def __init__(self, audiences: dict[str, int]) -> None:
        self.rows = {
            name: [
                Subscription(
                    SubscriptionKey(name, f"{name}-{number}", "s"),
                    "attempt",
                    Claim(name, "s", Principal(PUBLIC_SUBJECT, 1), "hash", 10**10),
                    name,
                    True,
                )
                for number in range(count)
            ]
            for name, count in audiences.items()
        }

    def audience(self, name: str) -> Audience:
        return Audience(self.rows[name])

    def read(self, dashboards: Iterable[str], _users: object) -> AccessSnapshot:
        return AccessSnapshot(
            {name: DashboardAccess(name, 1, Visibility.LINK, OWNER, {}, {"s": "hash"}) for name in dashboards},
            USERS,
        )

    def version_of(self, _allowed_topic: str | None) -> int:
        return 1

    def of_source(self, _allowed_topic: str | None) -> SourceStreams:
        return SourceStreams(1, [stream_of(name) for name in self.rows])


class Slow:
    """A store whose calls take a moment each, and may fail."""

    def __init__(self, world: World, store: object, chance: random.Random) -> None:
        self._world, self._store, self._chance = world, store, chance

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self._world.turns.sleep(self._chance.random() * self._world.store_s)
            return getattr(self._store, name)(*args)

        return call


class World:
    """The stores, the platform, and who sends."""

    def __init__(
        self,
        audiences: dict[str, int],
        per_second: int,
        *,
        seed: int = 1,
        store_s: float = 0.004,
        conflate: bool = True,
    ) -> None:
        self.turns, self.viewers, self.chance = Turns(), Viewers(audiences), random.Random(seed)
        self.quota = MemorySendQuota(SendQuota(per_second))
        self.values, self.ids, self.observer = MemoryLastValues(), CountingIds(), MemoryObserver()
        self.store_s, self.conflate = store_s, conflate
        #: connection -> (when, number)
        self.sent: dict[str, list[tuple[float, int]]] = {}
        self.per_window: Counter[int] = Counter()
        self.missed: list[Missed] = []
        self.failed: list[str] = []
        self.under_way: Counter[str] = Counter()
        self.most_under_way: Counter[str] = Counter()

    # --- the platform ---------------------------------------------------------------------------------------

    def send(self, outgoing: OutboundQueue[Any]) -> None:
        """Twenty-five messages are answered in a few milliseconds."""
        taken = 0
        while True:
            now = self.turns.monotonic()
            message = outgoing.take(now)
            if message is not None:
                sent = outgoing.before(message)
                if sent is not None:
                    frame = json.loads(sent.body)
                    self.sent.setdefault(sent.connection_id, []).append((now, frame["payload"]))
                    outgoing.answered(sent, Delivery.DELIVERED)
                taken += 1
                if taken % 25 == 0:
                    self.turns.sleep(0.002)
                continue
            due = outgoing.due
            if outgoing.ended and not outgoing.ready(now) and due is None:
                return
            self.turns.sleep(0.005 if due is None else max(0.001, due - now))

    # --- the bridge -----------------------------------------------------------------------------------------

    def publish(self, at: float, name: str, number: int) -> None:
        self.turns.begin(at, lambda: self._deliver(name, number))

    def _deliver(self, name: str, number: int) -> None:
        self.under_way[name] += 1
        self.most_under_way[name] = max(self.most_under_way[name], self.under_way[name])
        stamp = int(self.turns.now() * 1000)
        try:
            self.bridge()(DeviceMessage("a/#", f"a/{name}", str(number).encode(), stamp, f"{number:06d}"))
        except Unavailable as error:
            self.failed.append(error.code or "")
        finally:
            self.under_way[name] -= 1

    def pace(self) -> Pace:
        return Pace(self.quota, self.quota.quota, clock=self.turns, chance=self.chance.random, observer=self.observer)

    def bridge(self) -> Bridge:
        """That of one process."""
        turns, viewers = self.turns, cast(Any, self.viewers)
        values = cast(Any, Slow(self, self.values, self.chance))
        audiences, patience = Audiences(viewers.audience, turns), Patience(turns, 15.0)
        send = OneShotSender(
            access=FreshAccess(viewers, audiences, turns),
            sender=cast(Any, self),
            failure_handler=cast(Any, self),
            observer=self.observer,
            pace=self.pace(),
            patience=patience,
        )
        fan_out = FanOut(
            audiences=audiences,
            last_values=values,
            send=send,
            max_message_bytes=10_000,
            clock=turns,
            observer=self.observer,
            interval=Interval(last_values=values, per_second=PER_SECOND, clock=turns, sleep=turns.sleep)
            if self.conflate
            else None,
            carry=Carry(send, values, PER_SECOND, turns.sleep, turns, self.ids, self.observer)
            if self.conflate
            else None,
            chance=lambda: 1.0,
        )
        return Bridge(
            enabled=True,
            max_payload_bytes=1000,
            streams=viewers,
            fan_out=fan_out,
            settle=Settle(
                last_values=values, fan_out=fan_out, catch_up=self.or_fail, clock=turns, observer=self.observer
            ),
            clock=turns,
            observer=self.observer,
            patience=patience,
        )

    def or_fail(self, left: Iterable[str | Missed]) -> None:
        """The failure handler: who missed something gets a catch-up."""
        self.missed += [each for each in left if isinstance(each, Missed)]

    # --- a relay worker ---------------------------------------------------------------------------------------

    def relay(self, name: str, values: Sequence[tuple[float, int]], seconds: float) -> None:
        """A worker with one upstream. It sends until `seconds`."""
        queues = ClientQueues(conflate=True)
        audiences = Audiences(self.viewers.audience, self.turns)
        access = FreshAccess(cast(Any, self.viewers), audiences, self.turns)
        inner = SendQueue(queues, access=access, left=lambda _left: None, observer=self.observer)

        def hold_back(held: bool) -> None:
            queues.held_back = held

        def add(number: int) -> None:
            for row in audiences.of(name):
                queues.add(Frame(row, messages.data("s", str(number), 0.0, "1"), True))

        def work() -> None:
            outgoing = PacedQueue(inner, self.pace(), hold_back)
            while self.turns.at < seconds:
                self.send(outgoing)
                self.turns.sleep(0.005)

        for at, number in values:
            self.turns.begin(at, partial(add, number))
        self.turns.begin(0.0, work)

    # --- what came of it ------------------------------------------------------------------------------------

    def numbers(self, name: str) -> list[list[int]]:
        """What each viewer of a stream was sent."""
        return [[number for _, number in self.sent.get(row.key.connection_id, [])] for row in self.viewers.rows[name]]

    def delays(self, name: str, published: dict[int, float]) -> list[float]:
        return [
            at - published[number]
            for row in self.viewers.rows[name]
            for at, number in self.sent.get(row.key.connection_id, [])
        ]


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
