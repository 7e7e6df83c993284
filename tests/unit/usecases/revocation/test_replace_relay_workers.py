from __future__ import annotations

import pytest

from tests.doubles.platform import ManualClock, MemoryObserver, MemoryRelayWorkers
from tests.doubles.relay_leases import MemoryRelayLeases
from tidegate.domain.relay import CLAIM_AFTER_S, LEASE_S, OVERDUE_S
from tidegate.errors import Unavailable
from tidegate.usecases.revocation.replace_relay_workers import ReplaceRelayWorkers


class World:
    def __init__(self) -> None:
        self.clock, self.leases, self.relay_workers = ManualClock(), MemoryRelayLeases(), MemoryRelayWorkers()
        self.replace = ReplaceRelayWorkers(
            leases=self.leases, relay_workers=self.relay_workers, clock=self.clock, observer=MemoryObserver()
        )


def test_only_a_shard_whose_holder_does_not_renew_is_given_a_worker() -> None:
    world = World()
    held = world.leases.claim(1, "holder", world.clock.now())
    assert held is not None and world.replace() == 0
    world.clock.advance(LEASE_S / 3)
    assert world.replace() == 0, "it is renewed at a third of its life, and clocks differ"
    world.clock.advance(OVERDUE_S)
    assert world.replace() == 1 and world.relay_workers.started == [(1, False)]
    world.clock.advance(LEASE_S + CLAIM_AFTER_S)
    assert world.replace() == 1, "it may be claimed, and nobody has"
    world.leases.renew(held, world.clock.now())
    assert world.replace() == 0
    world.leases.release(held)
    world.clock.advance(LEASE_S)
    assert world.replace() == 0, "nobody listened"


def test_a_table_that_does_not_answer_is_no_dead_worker() -> None:
    world = World()
    world.leases.down = True
    with pytest.raises(Unavailable):
        world.replace()
    assert not world.relay_workers.started
