"""Replace relay workers that died: between two of the schedule's minutes nobody else would notice."""

from __future__ import annotations

from tidegate.domain.relay import PARTITIONS, is_overdue
from tidegate.ports.relay import RelayLeases, RelayWorkers
from tidegate.ports.runtime import Clock, Observer


class ReplaceRelayWorkers:
    """Start a worker for every shard whose holder does not renew its lease. It connects, and claims when that ends."""

    def __init__(self, *, leases: RelayLeases, relay_workers: RelayWorkers, clock: Clock, observer: Observer) -> None:
        self._leases = leases
        self._relay_workers = relay_workers
        self._clock = clock
        self._observer = observer

    def __call__(self) -> int:
        """Returns how many were started. A shard that was let go is nobody's: there the schedule asks for a worker.

        Raises `Unavailable`.
        """
        started = 0
        for partition in range(PARTITIONS):
            lease = self._leases.current(partition)
            if lease is not None and is_overdue(lease, self._clock.now()):
                self._relay_workers.start(partition)
                self._observer.info("relay overdue", partition=partition, fence=lease.fence)
                self._observer.count("relay_workers_overdue")
                started += 1
        return started
