"""The relay's leases in memory, for tests and for exploring: the same contract as the table's."""

from __future__ import annotations

from dataclasses import replace

from tidegate.domain.relay import CLAIM_AFTER_S, LEASE_S, Lease
from tidegate.errors import Unavailable
from tidegate.ports.relay import RelayLeases


class MemoryRelayLeases(RelayLeases):
    """While `down`, nothing is answered."""

    def __init__(self) -> None:
        self.rows: dict[int, Lease] = {}
        self.down = False

    def _ask(self) -> None:
        if self.down:
            raise Unavailable("down")

    def claim(self, partition: int, owner: str, now: float) -> Lease | None:
        self._ask()
        there = self.rows.get(partition)
        if there is not None and there.until and there.until >= now - CLAIM_AFTER_S and there.owner != owner:
            return None
        self.rows[partition] = Lease(partition, owner, (there.fence if there else 0) + 1, now + LEASE_S)
        return self.rows[partition]

    def _own(self, lease: Lease) -> Lease | None:
        self._ask()
        there = self.rows.get(lease.partition)
        return there if there and (there.owner, there.fence) == (lease.owner, lease.fence) else None

    def renew(self, lease: Lease, now: float) -> Lease | None:
        there = self._own(lease)
        if there is None:
            return None
        self.rows[lease.partition] = replace(there, until=now + LEASE_S)
        return self.rows[lease.partition]

    def release(self, lease: Lease) -> None:
        there = self._own(lease)
        if there is not None:
            self.rows[lease.partition] = replace(there, until=0.0, successor="", leaving=False)

    def offer(self, partition: int, successor: str) -> Lease | None:
        self._ask()
        there = self.rows.get(partition)
        if there is None or not there.until or there.successor not in ("", successor):
            return None
        self.rows[partition] = replace(self.rows[partition], successor=successor)
        return self.rows[partition]

    def ask_successor(self, lease: Lease) -> Lease | None:
        there = self._own(lease)
        if there is None:
            return None
        self.rows[lease.partition] = replace(there, leaving=True)
        return self.rows[lease.partition]

    def hand_over(self, lease: Lease, now: float) -> bool:
        there = self._own(lease)
        if there is None or there.successor != lease.successor:
            return False
        self.rows[lease.partition] = Lease(lease.partition, lease.successor, lease.fence + 1, now + LEASE_S)
        return True

    def current(self, partition: int) -> Lease | None:
        self._ask()
        there = self.rows.get(partition)
        return there if there and there.until else None
