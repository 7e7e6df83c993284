"""Senders that share a quota, in time that is moved by hand: nobody sends more than is granted, and the quiet go on."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from tests.doubles.platform import ManualClock, MemoryObserver
from tests.doubles.send_quota import MemorySendQuota
from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal
from tidegate.domain.client_queues import Batch, ClientQueues, Frame
from tidegate.domain.send_quota import SMALL, WHOLE, WINDOW_MS, SendQuota
from tidegate.domain.subscriptions import Subscription, SubscriptionKey
from tidegate.ports.delivery import Delivery
from tidegate.usecases.delivery.paced_queue import Pace, PacedQueue

#: Between two looks of a simulated sender at its queue, seconds.
STEP_S = 0.005


def frame(dashboard: str, connection: str, number: int, stream: str = "stream") -> Frame:
    claim = Claim(dashboard, "s", Principal(PUBLIC_SUBJECT, 1), "hash", 10**10)
    row = Subscription(SubscriptionKey(dashboard, connection, "s"), "attempt", claim, f"{dashboard}-{stream}", True)
    return Frame(row, str(number).encode(), True)


class Frames:
    """An outbound queue of frames, without access checks: they are `SendQueue`'s."""

    ended = False

    def __init__(self) -> None:
        self.queues = ClientQueues(conflate=True)
        self.sent: list[tuple[float, str, int]] = []

    @property
    def due(self) -> float | None:
        return self.queues.due

    def ready(self, now: float) -> int:
        return self.queues.ready(now)

    def take(self, now: float) -> Batch | None:
        return self.queues.take(now)

    def before(self, batch: Batch) -> Batch | None:
        return batch

    def answered(self, batch: Batch, delivery: Delivery) -> None:
        self.queues.done(batch.queue_key)

    def throttled(self) -> None: ...

    def hold_back(self, held: bool) -> None:
        self.queues.held_back = held


@dataclass
class Sender:
    """A sender whose messages are answered at once."""

    store: MemorySendQuota
    clock: ManualClock
    seed: int
    frames: Frames = field(default_factory=Frames)
    observer: MemoryObserver = field(default_factory=MemoryObserver)

    def __post_init__(self) -> None:
        chance = random.Random(self.seed).random
        pace = Pace(self.store, self.store.quota, clock=self.clock, chance=chance, observer=self.observer)
        self.queue: PacedQueue[Batch] = PacedQueue(
            self.frames, pace, self.frames.hold_back, lambda: self.frames.queues.newcomers(SMALL)
        )

    def run(self) -> Iterator[Frame]:
        """Send what may be sent now."""
        now = self.clock.monotonic()
        while self.queue.ready(now) and (batch := self.queue.take(now)) is not None:
            yield from batch.frames
            self.queue.answered(batch, Delivery.DELIVERED)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def simulate(
    clock: ManualClock, seconds: float, senders: list[Sender], events: list[tuple[float, int, str, str, int]]
) -> dict[str, list[tuple[float, int]]]:
    """Run senders against events: (when, sender, dashboard, connection, number). Returns what each connection was
    sent, and when, seconds from the beginning."""
    sent: dict[str, list[tuple[float, int]]] = {}
    heapq.heapify(events)
    began = clock.monotonic()
    while (at := clock.monotonic() - began) < seconds:
        while events and events[0][0] <= at:
            _, which, dashboard, connection, number = heapq.heappop(events)
            senders[which].frames.queues.add(frame(dashboard, connection, number))
        for sender in senders:
            for each in sender.run():
                sent.setdefault(each.row.key.connection_id, []).append((at, int(each.body)))
        clock.advance(STEP_S)
    return sent


def test_a_quiet_stream_is_not_delayed_by_a_crowded_one_of_another_sender(clock: ManualClock) -> None:
    """1,000 viewers at ten updates a second want five times the quota; one viewer wants one message now and then."""
    store = MemorySendQuota(SendQuota(2_000))
    senders = [Sender(store, clock, seed) for seed in (1, 2)]
    crowd = [(number / 10, 0, "crowded", f"c{viewer}", number) for number in range(50) for viewer in range(1_000)]
    quiet = [(number * 0.7 + 0.033, 1, "quiet", "q", number) for number in range(7)]
    sent = simulate(clock, 5.5, senders, crowd + quiet)
    delays = [at - quiet[number][0] for at, number in sent["q"]]
    assert len(delays) == len(quiet) and max(delays) <= WINDOW_MS / 1000 + STEP_S, delays
    per_window = [store.granted[window] for window in sorted(store.granted)]
    assert max(per_window) <= 200
    in_all = sum(len(values) for name, values in sent.items() if name != "q")
    assert in_all >= 5 * 1_700, "and the crowd has what is left"
    assert all(values[-1][1] == 49 for name, values in sent.items() if name != "q"), "everybody ends with the newest"
    assert min(len(values) for name, values in sent.items() if name != "q") >= 7, "fewer updates, and for all alike"
    assert all(values == sorted(values) for values in sent.values()), "never an old one"


def test_in_one_sender_a_quiet_dashboard_goes_first(clock: ManualClock) -> None:
    store = MemorySendQuota(SendQuota(1_000))
    sender = Sender(store, clock, 1)
    crowd = [(number / 10, 0, "crowded", f"c{viewer}", number) for number in range(30) for viewer in range(1_000)]
    quiet = [(number * 0.7 + 0.033, 0, "quiet", "q", number) for number in range(4)]
    sent = simulate(clock, 3, [sender], crowd + quiet)
    delays = [at - quiet[number][0] for at, number in sent["q"]]
    assert len(delays) == len(quiet) and max(delays) <= 0.01 + 2 * STEP_S, delays
    per_window = [store.granted[window] for window in sorted(store.granted)]
    assert max(per_window) <= 100
    in_all = sum(len(values) for name, values in sent.items() if name != "q")
    assert in_all >= 3 * 850, "and the crowd has what is left"


def test_in_one_sender_a_quiet_stream_of_the_crowded_dashboard_goes_first(clock: ManualClock) -> None:
    store = MemorySendQuota(SendQuota(1_000))
    sender = Sender(store, clock, 1)
    sent: list[tuple[float, str]] = []
    began = clock.monotonic()
    asked_for: dict[int, float] = {}
    for step in range(600):
        if step % 20 == 0:
            for viewer in range(1_000):
                sender.frames.queues.add(frame("d", f"c{viewer}", step))
        if step % 100 == 37:
            asked_for[step] = clock.monotonic() - began
            sender.frames.queues.add(frame("d", f"q{step}", step, stream="quiet"))
        sent += [(clock.monotonic() - began, each.row.key.connection_id) for each in sender.run()]
        clock.advance(STEP_S)
    came = {name: at for at, name in sent if name.startswith("q")}
    assert len(asked_for) == 6
    assert max(came[f"q{step}"] - at for step, at in asked_for.items()) <= 0.01 + 2 * STEP_S


def test_to_ask_when_it_is_due_makes_nobody_ready_early(clock: ManualClock) -> None:
    """A connection with batch frames has its pause, also while the quota is used up."""
    store = MemorySendQuota(SendQuota(100))
    sender = Sender(store, clock, 1)
    sender.frames.queues = queues = ClientQueues(conflate=True, window_s=0.1)
    paused = replace(frame("quiet", "b", 0).row, batch=True)
    queues.add(Frame(paused, b"0", True))
    assert [each.body for each in sender.run()] == [b"0"]
    for viewer in range(100):
        queues.add(frame("crowded", f"c{viewer}", 0))
    list(sender.run())
    queues.add(Frame(paused, b"1", True))
    now, before = clock.monotonic(), queues.ready(clock.monotonic())
    assert sender.queue.due is not None and sender.queue.due > now
    assert queues.ready(now) == before


def test_newcomers_make_small_asks_only_and_not_too_often(clock: ManualClock) -> None:
    """Streams that become ready all the time, while a crowd waits, ask once in a hundredth of a second."""
    store = MemorySendQuota(SendQuota(1_000))
    sender = Sender(store, clock, 1)
    for viewer in range(5_000):
        sender.frames.queues.add(frame("crowded", f"c{viewer}", 0))
    asks = 0
    for _step in range(200):
        for _ in range(5):
            asks += 1
            sender.frames.queues.add(frame(f"quiet-{asks}", f"q{asks}", 0))
        list(sender.run())
        clock.advance(STEP_S)
    assert max(store.granted.values()) <= 100
    assert store.asks <= 100 + 2 * 10 + 5, "one in a hundredth of a second, and two large ones in a window"


def test_two_crowds_share_the_quota(clock: ManualClock) -> None:
    store = MemorySendQuota(SendQuota(1_000))
    senders = [Sender(store, clock, seed) for seed in (1, 2)]
    crowds = [
        (number / 10, which, f"d{which}", f"{which}-{viewer}", number)
        for number in range(100)
        for which in (0, 1)
        for viewer in range(300)
    ]
    sent = simulate(clock, 10, senders, crowds)
    shares = [sum(len(values) for name, values in sent.items() if name.startswith(f"{which}-")) for which in (0, 1)]
    assert sum(shares) <= 10_000 and min(shares) / max(shares) > 0.7, shares


def test_a_busy_sender_asks_ahead_when_there_is_room(clock: ManualClock) -> None:
    """Forty messages a second cost five asks a second, not forty."""
    store = MemorySendQuota(SendQuota(2_000))
    sender = Sender(store, clock, 1)
    events = [(number / 40, 0, "d", f"c{number % 7}", number) for number in range(400)]
    sent = simulate(clock, 10.1, [sender], events)
    assert sum(map(len, sent.values())) == 400
    assert store.asks <= 40 + 9 * 6, store.asks


def test_while_the_quota_cannot_be_asked_nothing_leaves_and_nothing_is_lost(clock: ManualClock) -> None:
    store = MemorySendQuota(SendQuota(2_000))
    sender = Sender(store, clock, 1)
    store.broken = True
    assert simulate(clock, 1, [sender], [(0.0, 0, "d", "c", 1), (0.5, 0, "d", "c", 2)]) == {}
    assert sender.observer.counts[("send_quota_unavailable",)] == 4
    store.broken = False
    assert [number for _, number in simulate(clock, 1, [sender], [])["c"]][-1] == 2


def test_throttling_is_told_with_the_next_ask(clock: ManualClock) -> None:
    store = MemorySendQuota(SendQuota(2_000))
    sender = Sender(store, clock, 1)
    simulate(clock, 0.1, [sender], [(0.0, 0, "d", "c", 1)])
    sender.queue.throttled()
    assert store.windows[0].share == WHOLE
    simulate(clock, 1.2, [sender], [(1.1, 0, "d", "c", 2)])
    assert store.windows[0].share < WHOLE


def test_sends_that_were_granted_long_ago_are_not_used(clock: ManualClock) -> None:
    store = MemorySendQuota(SendQuota(2_000))
    sender = Sender(store, clock, 1)
    simulate(clock, 0.5, [sender], [(0.0, 0, "d", f"c{number}", number) for number in range(SMALL)])
    simulate(clock, 2.0, [sender], [(0.0, 0, "d", "c0", 1)])
    asks = store.asks
    simulate(clock, 2.0, [sender], [(1.5, 0, "d", "c0", 1)])
    assert store.asks > asks
