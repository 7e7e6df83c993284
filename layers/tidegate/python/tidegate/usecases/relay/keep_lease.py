"""One worker's lease of a partition: claim it, renew it, hand it over, and know how long the worker may send.

Invariant of this file (invariant 6): a worker sends only before its deadline. The deadline counts from before the
request that gave or renewed the lease. Others may claim only some time after the lease has ended, by the time stored in
the table. So no worker sends once another one with a higher fence may send, whichever answers are late or lost.
"""

from __future__ import annotations

from tidegate.domain.relay import LEASE_S, Lease
from tidegate.errors import Unavailable
from tidegate.ports.relay import RelayLeases
from tidegate.ports.runtime import Clock

_NEVER = float("-inf")


class KeepLease:
    """A worker's lease of one partition.

    Attributes:
        lease: the lease as last known; None when this worker has none.
        passed_over: whether another worker waits for the partition in place of this one.
        handed: whether a holder that lived gave the partition to this worker.
    """

    def __init__(self, *, leases: RelayLeases, partition: int, owner: str, clock: Clock) -> None:
        self._leases = leases
        self._partition = partition
        self._owner = owner
        self._clock = clock
        self._deadline = _NEVER
        self.lease: Lease | None = None
        self.passed_over = False
        self.handed = False

    def may_send(self) -> bool:
        """Whether this worker holds the partition now."""
        return self._clock.monotonic() < self._deadline

    def claim(self) -> bool:
        """Take the partition if it is free. True when this worker holds it now.

        Raises:
            Unavailable: the answer is not known. The partition may be taken, but this worker sends nothing.
        """
        started = self._clock.monotonic()
        return self._held(self._leases.claim(self._partition, self._owner, self._clock.now()), started)

    def renew(self) -> bool:
        """Extend the lease. False when another worker has it.

        When the store does not answer, the lease holds until its deadline; after that the answer is False.
        """
        if self.lease is None:
            return False
        started = self._clock.monotonic()
        try:
            return self._held(self._leases.renew(self.lease, self._clock.now()), started)
        except Unavailable:
            return self.may_send()

    def offer(self) -> None:
        """Note that this worker is connected and waits to be handed the partition."""
        self._leases.offer(self._partition, self._owner)

    def ask_successor(self) -> None:
        """Note that this worker is about to end, so that another one connects and waits. Raises `Unavailable`."""
        if self.lease is not None:
            self.lease = self._leases.ask_successor(self.lease)
            if self.lease is None:
                self._deadline = _NEVER

    def taken_over(self) -> bool:
        """Whether this worker, which waits, holds the partition now: it was handed over, or its holder was gone."""
        started = self._clock.monotonic()
        current = self._leases.current(self._partition)
        now = self._clock.now()
        if current is None or current.until < now:
            return self.claim()
        if current.owner != self._owner:
            self.passed_over = current.successor != self._owner
            return False
        # The predecessor wrote the lease by its clock. It is renewed by ours before anything is sent.
        self.lease = current
        self.handed = self._held(self._leases.renew(current, now), started)
        return self.handed

    def hand_over(self) -> bool:
        """Make the waiting successor the holder. False when that failed, because another worker has the lease.

        This worker stops sending before the store is asked, whatever the answer.
        """
        self._deadline = _NEVER
        lease, self.lease = self.lease, None
        return lease is not None and self._leases.hand_over(lease, self._clock.now())

    def release(self) -> None:
        """Give the partition back. This worker stops sending first."""
        self._deadline = _NEVER
        lease, self.lease = self.lease, None
        if lease is not None:
            self._leases.release(lease)

    def _held(self, lease: Lease | None, started: float) -> bool:
        self.lease = lease
        self._deadline = _NEVER if lease is None else started + LEASE_S
        return lease is not None
