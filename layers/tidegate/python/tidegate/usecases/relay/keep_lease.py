"""One worker's hold on a shard: claimed, renewed, handed over, and how long it lets the worker send.

Invariant of this file (invariant 6 of the product): a worker sends only before its deadline, which counts from before
the request that gave or renewed its lease. Others may claim some time after the lease has ended, by the table's clock;
so nobody sends once somebody with a higher fence may, whatever answers are late or lost.
"""

from __future__ import annotations

from tidegate.domain.relay import LEASE_S, Lease
from tidegate.errors import Unavailable
from tidegate.ports.relay import RelayLeases
from tidegate.ports.runtime import Clock

_NEVER = float("-inf")


class KeepLease:
    """`lease` is what was last known to be held; None when nothing is. `passed_over`: another waits for the shard."""

    def __init__(self, *, leases: RelayLeases, partition: int, owner: str, clock: Clock) -> None:
        self._leases = leases
        self._partition = partition
        self._owner = owner
        self._clock = clock
        self._deadline = _NEVER
        self.lease: Lease | None = None
        self.passed_over = False

    def may_send(self) -> bool:
        """Whether this worker holds the shard now."""
        return self._clock.monotonic() < self._deadline

    def claim(self) -> bool:
        """Take the shard if it is free. Raises `Unavailable`: it may have been taken, but nothing is sent for it."""
        asked = self._clock.monotonic()
        return self._held(self._leases.claim(self._partition, self._owner, self._clock.now()), asked)

    def renew(self) -> bool:
        """Hold it for longer. False when it is another's, or its time is over and the store does not say whose."""
        if self.lease is None:
            return False
        asked = self._clock.monotonic()
        try:
            return self._held(self._leases.renew(self.lease, self._clock.now()), asked)
        except Unavailable:
            return self.may_send()

    def offer(self) -> None:
        """Say that this worker is connected and waits to be handed the shard."""
        self._leases.offer(self._partition, self._owner)

    def taken_over(self) -> bool:
        """Whether the waiting worker holds the shard now: it was handed over, or its holder is gone."""
        asked = self._clock.monotonic()
        current = self._leases.current(self._partition)
        now = self._clock.now()
        if current is None or current.until < now:
            return self.claim()
        if current.owner != self._owner:
            self.passed_over = current.successor != self._owner
            return False
        # The lease was written by the predecessor's clock: it is renewed by our own before anything is sent.
        self.lease = current
        return self._held(self._leases.renew(current, now), asked)

    def hand_over(self) -> bool:
        """Make the waiting successor the holder. Nothing is sent from before it is asked on, whatever is answered."""
        self._deadline = _NEVER
        lease, self.lease = self.lease, None
        return lease is not None and self._leases.hand_over(lease, self._clock.now())

    def release(self) -> None:
        """Let the shard go."""
        self._deadline = _NEVER
        lease, self.lease = self.lease, None
        if lease is not None:
            self._leases.release(lease)

    def _held(self, lease: Lease | None, asked: float) -> bool:
        self.lease = lease
        self._deadline = _NEVER if lease is None else asked + LEASE_S
        return lease is not None
