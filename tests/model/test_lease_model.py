"""All interleavings of relay workers that claim, renew, hand over, take over and die, while time passes and answers are
lost: whoever sends, nobody with a higher fence has sent before."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.doubles.relay_leases import MemoryRelayLeases
from tests.model.actors import StepClock
from tests.model.explorer import Actor, Answer, Answers, Call, Explored, Explorer, Scene, Script, Store, Violation
from tidegate.domain.relay import LEASE_S, Lease
from tidegate.errors import Unavailable
from tidegate.usecases.relay.keep_lease import KeepLease

#: How far time moves at once, seconds: a renewal may come just in time, too late for the holder, or too late for all.
TICK_S = 9.0


@dataclass(frozen=True, slots=True)
class LeaseStores:
    """The lease's row, the time, when each actor last looked at the clock, and when each fence first sent."""

    lease: Lease | None = None
    now: float = 0.0
    read_at: Mapping[str, float] = field(default_factory=dict)
    sent_at: Mapping[int, float] = field(default_factory=dict)


def keeper(answers: Answers, name: str) -> KeepLease:
    leases: Any = Store(answers, "leases")
    return KeepLease(leases=leases, partition=0, owner=name, clock=StepClock(answers))


def send(answers: Answers, keep: KeepLease) -> None:
    if keep.may_send() and keep.lease is not None:
        answers.ask("viewers", "send", keep.lease.fence)


def holder(name: str, rounds: int) -> Script:
    """Claims, sends and renews; hands over when somebody waits; after its rounds it is gone without a word."""

    def script(answers: Answers) -> str:
        keep = keeper(answers, name)
        try:
            if not keep.claim():
                return "not needed"
            for _ in range(rounds):
                send(answers, keep)
                if not keep.renew():
                    return "overtaken"
                if keep.lease is not None and keep.lease.successor:
                    return "handed over" if keep.hand_over() else "overtaken"
        except Unavailable:
            pass
        return "gone"

    return script


def successor(name: str, rounds: int) -> Script:
    """Offers itself, waits, and sends once the shard is its own."""

    def script(answers: Answers) -> str:
        keep = keeper(answers, name)
        try:
            keep.offer()
            for _ in range(rounds):
                if keep.taken_over():
                    send(answers, keep)
                    if keep.renew():
                        send(answers, keep)
                    return "took over"
        except Unavailable:
            pass
        return "gone"

    return script


class Workers(Scene[LeaseStores]):
    leases_class: type[MemoryRelayLeases] = MemoryRelayLeases

    def __init__(self, *actors: Actor, faults: int = 0, ticks: int = 3) -> None:
        """`ticks`: how often time moves."""
        self.actors = actors
        self.faults = faults
        self._ticks = ticks

    def start(self) -> LeaseStores:
        return LeaseStores()

    def key(self, stores: LeaseStores) -> Hashable:
        return (
            repr(stores.lease),
            stores.now,
            tuple(sorted(stores.read_at.items())),
            tuple(sorted(stores.sent_at.items())),
        )

    def environment(self, stores: LeaseStores) -> Iterator[tuple[str, LeaseStores]]:
        if stores.now < TICK_S * self._ticks:
            yield "time passes", replace(stores, now=stores.now + TICK_S)

    def perform(self, stores: LeaseStores, actor: str, call: Call) -> tuple[LeaseStores, Answer, str | None]:
        match call.store:
            case "clock":
                return replace(stores, read_at={**stores.read_at, actor: stores.now}), ("got", stores.now), None
            case "viewers":
                return self._sent(stores, actor, call.args[0]), ("got", None), None
        leases = self.leases_class()
        if stores.lease is not None:
            leases.rows[0] = stores.lease
        answer = getattr(leases, call.method)(*call.args)
        return replace(stores, lease=leases.rows.get(0)), ("got", answer), None

    def _sent(self, stores: LeaseStores, actor: str, fence: int) -> LeaseStores:
        """Sending happens when the clock was last looked at: what is on its way after that is on its way."""
        at = stores.read_at[actor]
        if any(other > fence and first <= at for other, first in stores.sent_at.items()):
            raise Violation("somebody sends though a higher fence has sent before")
        return replace(stores, sent_at={fence: at, **stores.sent_at})


def worker(name: str, script: Script) -> Actor:
    return Actor(name, script, lossy=True)


SCENES: dict[str, Callable[[], Workers]] = {
    "two that claim": lambda: Workers(worker("a", holder("a", 1)), worker("b", holder("b", 1)), faults=1),
    "two that claim and renew twice": lambda: Workers(worker("a", holder("a", 2)), worker("b", holder("b", 1))),
    "a hand-over": lambda: Workers(worker("a", holder("a", 1)), worker("s", successor("s", 1)), faults=1),
}


#: Smaller versions, in which every safeguard is still missed.
SMALL: dict[str, Callable[[], Workers]] = {
    "two that claim": lambda: Workers(worker("a", holder("a", 1)), worker("b", holder("b", 1))),
    "two that claim and renew twice": lambda: Workers(
        worker("a", holder("a", 2)), worker("b", holder("b", 1)), ticks=2
    ),
    "a hand-over": lambda: Workers(worker("a", holder("a", 1)), worker("s", successor("s", 1)), ticks=2),
}

Explore = Callable[[str, "Callable[[Workers], None] | None"], Explored]


@pytest.fixture
def explore(pytestconfig: pytest.Config) -> Explore:
    """Visit every state of a scene, in the bound that was asked for. Raises `Violation`."""
    scenes = SCENES if pytestconfig.getoption("--full") else SMALL

    def visit(name: str, prepare: Callable[[Workers], None] | None = None) -> Explored:
        scene = scenes[name]()
        if prepare is not None:
            prepare(scene)
        return Explorer(scene).explore()

    return visit


@pytest.mark.parametrize("name", SCENES)
def test_only_one_holder_sends(name: str, explore: Explore, record_property: Callable[[str, object], None]) -> None:
    explored = explore(name, None)
    record_property("explored", explored.told(name))
    assert explored.ends > 1 and explored.states > 1000


class ClaimedTooSoon(MemoryRelayLeases):
    """Without waiting for the lease to end."""

    def claim(self, partition: int, owner: str, now: float) -> Lease | None:
        if partition in self.rows:
            self.rows[partition] = replace(self.rows[partition], until=0.0)
        return super().claim(partition, owner, now)


def too_soon(scene: Workers) -> None:
    scene.leases_class = ClaimedTooSoon


@pytest.mark.parametrize(
    "taken_out",
    ["the deadline from before the request", "the wait for the lease's end", "the silence before handing over"],
)
def test_without_any_one_safeguard_two_send(taken_out: str, explore: Explore, monkeypatch: pytest.MonkeyPatch) -> None:
    name, prepare = "two that claim", None
    match taken_out:
        case "the deadline from before the request":

            def from_the_answer(keep: KeepLease, lease: Lease | None, _asked: float) -> bool:
                keep.lease = lease
                keep._deadline = float("-inf") if lease is None else keep._clock.monotonic() + LEASE_S
                return lease is not None

            monkeypatch.setattr(KeepLease, "_held", from_the_answer)
        case "the wait for the lease's end":
            prepare = too_soon
        case _:
            name = "a hand-over"

            def renewed_alone(keep: KeepLease) -> bool:
                """Hands over, and goes on sending until its own lease would have ended."""
                done = keep.lease is not None and keep._leases.hand_over(keep.lease, keep._clock.now())
                answers = keep._leases._answers  # type: ignore[attr-defined]
                send(answers, keep)
                return done

            monkeypatch.setattr(KeepLease, "hand_over", renewed_alone)
    with pytest.raises(Violation) as found:
        explore(name, prepare)
    assert found.value.trace
