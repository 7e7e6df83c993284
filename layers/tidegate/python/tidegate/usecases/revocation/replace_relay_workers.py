"""Replace relay workers that died. The schedule asks for workers every minute; this notices a dead one earlier."""

from __future__ import annotations

from collections.abc import Callable, Collection

from tidegate.domain.partitions import PARTITIONS
from tidegate.domain.relay import is_overdue, may_claim
from tidegate.ports.relay import RelayLeases
from tidegate.ports.relay_workers import RelayWorkers
from tidegate.ports.runtime import Clock, Observer


class ReplaceRelayWorkers:
    """Starts a worker for every partition whose holder does not renew its lease.

    The new worker connects its upstreams, and claims the partition when the lease has ended.
    """

    def __init__(
        self,
        *,
        leases: RelayLeases,
        relay_workers: RelayWorkers,
        missing: Callable[[Collection[int]], None],
        clock: Clock,
        observer: Observer,
    ) -> None:
        """`missing` is told which partitions nobody holds, as `MissingRelays` is."""
        self._leases = leases
        self._missing = missing
        self._relay_workers = relay_workers
        self._clock = clock
        self._observer = observer

    def __call__(self) -> int:
        """Returns how many workers were started. Raises `Unavailable`.

        A partition whose lease was released has no holder. It is left to the schedule, which asks for a worker there.
        """
        started, unheld = 0, []
        for partition in range(PARTITIONS):
            lease = self._leases.current(partition)
            if may_claim(lease, self._clock.now()):
                unheld.append(partition)
            if lease is not None and is_overdue(lease, self._clock.now()):
                self._relay_workers.start(partition)
                self._observer.info("relay overdue", partition=partition, fence=lease.fence)
                self._observer.count("relay_workers_overdue")
                started += 1
        self._missing(unheld)  # last: it reads more, and may fail
        return started
