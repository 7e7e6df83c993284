"""The leases of the relay's partitions.

One worker at a time owns a partition, by a lease. Only the owner may send for
the partition's upstreams. The platform that delivers messages cannot check a fence, so the owner checks its own
deadline before every send. The deadline counts from before the request that renewed the lease, and others may claim
the lease only some time after its end. So two workers never send for a partition at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass

#: How long a lease lasts, seconds. It is renewed after a third of that.
LEASE_S = 15.0
#: How long after its end a lease may be claimed, seconds. The margin is there because clocks differ.
CLAIM_AFTER_S = 2.0
#: A lease that was not renewed for so long, seconds, is overdue. Its owner has most likely died.
OVERDUE_S = LEASE_S / 3 + CLAIM_AFTER_S


def worker_id(settings: str, one: str) -> str:
    """A worker's id. It begins with the digest of the settings that the worker runs with."""
    return f"{settings}.{one}"


def runs_by(owner: str, settings: str) -> bool:
    """Whether the worker with this id runs with the settings of this digest."""
    return owner.startswith(f"{settings}.")


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a partition's upstreams.

    Attributes:
        partition: its number.
        owner: id of the worker that has the lease; see `worker_id`.
        fence: grows with every change of owner. Writes are conditional on it.
        until: when it ends: epoch seconds, by the clock of the worker that wrote it.
        successor: id of a worker that is connected and waits to take over; empty when there is none.
    """

    partition: int
    owner: str
    fence: int
    until: float
    successor: str = ""


def is_overdue(lease: Lease, now: float) -> bool:
    """Whether the lease should have been renewed by now (epoch seconds). Its owner may still send until it ends."""
    return lease.until - now < LEASE_S - OVERDUE_S
