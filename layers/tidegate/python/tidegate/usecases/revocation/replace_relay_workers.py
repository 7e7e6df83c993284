"""Replace relay workers that died: between two of the schedule's minutes nobody else would notice."""

from __future__ import annotations

from tidegate.domain.relay import SHARDS, is_overdue
from tidegate.ports.relay import RelayLeases, Relays
from tidegate.ports.runtime import Clock, Observer


class ReplaceRelays:
    """Start a worker for every shard whose holder does not renew its lease. It connects, and claims when that ends."""

    def __init__(self, *, leases: RelayLeases, relays: Relays, clock: Clock, observer: Observer) -> None:
        self._leases = leases
        self._relays = relays
        self._clock = clock
        self._observer = observer

    def __call__(self) -> int:
        """Returns how many were started. A shard that was let go is nobody's: there the schedule asks for a worker.

        Raises `CouldNotCheck`.
        """
        started = 0
        for shard in range(SHARDS):
            lease = self._leases.current(shard)
            if lease is not None and is_overdue(lease, self._clock.now()):
                self._relays.start(shard)
                self._observer.info("relay overdue", shard=shard, fence=lease.fence)
                self._observer.count("relays_overdue")
                started += 1
        return started
