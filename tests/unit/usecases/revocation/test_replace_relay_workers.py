from __future__ import annotations

from collections.abc import Collection

import pytest

from tests.doubles.platform import ManualClock, MemoryObserver, MemoryRelayWorkers
from tests.doubles.relay_leases import MemoryRelayLeases
from tidegate.domain.relay import CLAIM_AFTER_S, LEASE_S, OVERDUE_S
from tidegate.errors import Unavailable
from tidegate.usecases.revocation.replace_relay_workers import ReplaceRelayWorkers


class ReplacementContainer:
    def __init__(self) -> None:
        self.clock, self.leases, self.relay_workers = ManualClock(), MemoryRelayLeases(), MemoryRelayWorkers()
        self.unheld: list[Collection[int]] = []
        self.replace = ReplaceRelayWorkers(
            leases=self.leases,
            relay_workers=self.relay_workers,
            missing=self.unheld.append,
            clock=self.clock,
            observer=MemoryObserver(),
        )


def test_only_a_partition_whose_holder_does_not_renew_is_given_a_worker() -> None:
    container = ReplacementContainer()
    held = container.leases.claim(1, "holder", container.clock.now())
    assert held is not None and container.replace() == 0 and container.unheld.pop() == [0]
    container.clock.advance(LEASE_S / 3)
    assert container.replace() == 0, "it is renewed at a third of its life, and clocks differ"
    container.clock.advance(OVERDUE_S)
    assert container.replace() == 1 and container.relay_workers.started == [(1, False)]
    assert container.unheld.pop() == [0], "its holder may still send"
    container.clock.advance(LEASE_S + CLAIM_AFTER_S)
    assert container.replace() == 1, "it may be claimed, and nobody has"
    assert container.unheld.pop() == [0, 1]
    container.leases.renew(held, container.clock.now())
    assert container.replace() == 0
    container.leases.release(held)
    container.clock.advance(LEASE_S)
    assert container.replace() == 0, "nobody listened"
    assert container.unheld.pop() == [0, 1]


def test_a_table_that_does_not_answer_is_no_dead_worker() -> None:
    container = ReplacementContainer()
    container.leases.down = True
    with pytest.raises(Unavailable):
        container.replace()
    assert not container.relay_workers.started
