"""The relay's leases in memory, for tests and for exploring: the same contract as the table's."""

from __future__ import annotations

from dataclasses import replace

from tidegate.domain.relay import CLAIM_AFTER_S, LEASE_S, Lease
from tidegate.errors import CouldNotCheck


class MemoryRelayLeases:
    """`relay_ports.RelayLeases`. While `down`, nothing is answered."""

    def __init__(self) -> None:
        self.rows: dict[int, Lease] = {}
        self.down = False

    def _ask(self) -> None:
        if self.down:
            raise CouldNotCheck("down")

    def claim(self, shard: int, owner: str, now: float) -> Lease | None:
        self._ask()
        there = self.rows.get(shard)
        if there is not None and there.until and there.until >= now - CLAIM_AFTER_S and there.owner != owner:
            return None
        self.rows[shard] = Lease(shard, owner, (there.fence if there else 0) + 1, now + LEASE_S)
        return self.rows[shard]

    def _own(self, lease: Lease) -> Lease | None:
        self._ask()
        there = self.rows.get(lease.shard)
        return there if there and (there.owner, there.fence) == (lease.owner, lease.fence) else None

    def renew(self, lease: Lease, now: float) -> Lease | None:
        there = self._own(lease)
        if there is None:
            return None
        self.rows[lease.shard] = replace(there, until=now + LEASE_S)
        return self.rows[lease.shard]

    def release(self, lease: Lease) -> None:
        there = self._own(lease)
        if there is not None:
            self.rows[lease.shard] = replace(there, until=0.0, successor="")

    def offer(self, shard: int, successor: str) -> Lease | None:
        self._ask()
        there = self.rows.get(shard)
        if there is None or not there.until or there.successor not in ("", successor):
            return None
        self.rows[shard] = replace(self.rows[shard], successor=successor)
        return self.rows[shard]

    def hand_over(self, lease: Lease, now: float) -> bool:
        there = self._own(lease)
        if there is None or there.successor != lease.successor:
            return False
        self.rows[lease.shard] = Lease(lease.shard, lease.successor, lease.fence + 1, now + LEASE_S)
        return True

    def current(self, shard: int) -> Lease | None:
        self._ask()
        there = self.rows.get(shard)
        return there if there and there.until else None
