"""The leases of the relay's partitions.

One worker at a time owns a partition, by a lease. Only the owner may send for
the partition's upstreams. The platform that delivers messages cannot check a fence, so the owner checks its own
deadline before every send. The deadline counts from before the request that renewed the lease, and others may claim
the lease only some time after its end. So two workers never send for a partition at the same time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum

#: How long a lease lasts, seconds. It is renewed after a third of that.
LEASE_S = 15.0
#: How long after its end a lease may be claimed, seconds. The margin is there because clocks differ.
CLAIM_AFTER_S = 2.0
#: A lease that was not renewed for so long, seconds, is overdue. Its owner has most likely died.
OVERDUE_S = LEASE_S / 3 + CLAIM_AFTER_S

#: How long a process that is told to end waits for a successor, seconds, and after how long it has ended in any case.
#: In between it sends what it has yet to send.
LEAVE_S, ENDED_S = 30.0, 60.0
#: How long the platform waits for the end of a process before it kills it, seconds. ECS allows up to 120.
KILLED_S = 90


class Kind(Enum):
    """What a worker runs as. The value begins the version of its workers."""

    #: An invocation, where invocations are how the relay runs.
    FUNCTION = ""
    #: A process that stays, such as a task of the relay's service.
    SERVICE = "service-"
    #: An invocation where a service is how the relay runs. It goes on until a service's worker is there.
    SPARE = "spare-"


def worker_version(settings: str, code: str, kind: Kind) -> str:
    """A text that is equal for workers of one kind with equal settings and equal code.

    Args:
        settings: digest of the settings.
        code: what tells code apart; empty where nobody says, such as for a process on a developer's machine.
    """
    version = hashlib.sha256(f"{settings} {code}".encode()).hexdigest()[:12] if code else settings
    return f"{kind.value}{version}"


def worker_id(version: str, one: str) -> str:
    """A worker's id. It begins with the `worker_version` of the worker."""
    return f"{version}.{one}"


def runs_by(owner: str, version: str) -> bool:
    """Whether the worker with this id is of this `worker_version`."""
    return owner.startswith(f"{version}.")


def is_of(owner: str, kind: Kind) -> bool:
    """Whether the worker with this id, or of this version, is of this kind, which is not `FUNCTION`."""
    return owner.startswith(kind.value)


def replaces(version: str, owner: str, newest: bool) -> bool:
    """Whether a worker of `version` takes the place of `owner`, which lives and wants to go on.

    A spare replaces nobody, and any worker of a service replaces it. So the relay is with the service, whichever way
    the deployment came there. Once the relay runs as invocations again, these are no spares, and replace the service.

    Args:
        newest: whether the worker was started with the newest code and settings.
    """
    if runs_by(owner, version) or is_of(version, Kind.SPARE):
        return False
    return newest or (is_of(version, Kind.SERVICE) and is_of(owner, Kind.SPARE))


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a partition's upstreams.

    Attributes:
        partition: its number.
        owner: id of the worker that has the lease; see `worker_id`.
        fence: grows with every change of owner. Writes are conditional on it.
        until: when it ends: epoch seconds, by the clock of the worker that wrote it.
        successor: id of a worker that is connected and waits to take over; empty when there is none.
        leaving: whether the owner is about to end, and asks whoever sees it to be its successor.
    """

    partition: int
    owner: str
    fence: int
    until: float
    successor: str = ""
    leaving: bool = False


def is_overdue(lease: Lease, now: float) -> bool:
    """Whether the lease should have been renewed by now (epoch seconds). Its owner may still send until it ends."""
    return lease.until - now < LEASE_S - OVERDUE_S


def may_claim(lease: Lease | None, now: float) -> bool:
    """Whether the partition is free now (epoch seconds)."""
    return lease is None or lease.until < now - CLAIM_AFTER_S


def wants_successor(lease: Lease | None, version: str, now: float, *, newest: bool) -> bool:
    """Whether a worker of `version` is to connect and to wait for the partition.

    So it is when the holder is about to end; when it has not renewed its lease in time, because then it has most likely
    died; and when `replaces` says so: a running worker keeps the code and the settings it was started with, and what
    was mended or switched off since must not go on until its time ends.
    """
    if lease is None or lease.successor:
        return False
    return lease.leaving or is_overdue(lease, now) or replaces(version, lease.owner, newest)
