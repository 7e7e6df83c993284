"""The relay's shards and leases.

Every upstream belongs to a shard, and one worker at a time holds a shard by lease: who holds it may send for all of its
upstreams. The platform cannot check a fence, so the holder looks at its own deadline before every send; the deadline
counts from before the request that renewed the lease, and others may claim only some time after the lease has ended.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from tidegate.domain.subscriptions import Stream

#: Workers that share the upstreams. One carries hundreds; a second one halves what a fault takes down.
PARTITIONS = 2
#: How long a lease holds, seconds; renewed at a third of it.
LEASE_S = 15.0
#: How long after its end a lease may be claimed, seconds: clocks differ.
CLAIM_AFTER_S = 2.0
#: A lease that was not renewed for so long, seconds, is overdue: its holder has most likely died.
OVERDUE_S = LEASE_S / 3 + CLAIM_AFTER_S


def partition_of(stream: Stream) -> int:
    """The shard of a stream's upstream. All streams of a broker profile are of one: they share its connections, and
    only there can those be counted."""
    broker = (stream.intent or {}).get("brokerProfileId")
    return zlib.crc32((f"broker {broker}" if broker else stream.stream_key).encode()) % PARTITIONS


def worker_id(settings: str, one: str) -> str:
    """A worker's id; it begins with the digest of the settings the worker runs by."""
    return f"{settings}.{one}"


def runs_by(owner: str, settings: str) -> bool:
    """Whether the worker with this id runs by these settings."""
    return owner.startswith(f"{settings}.")


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to hold a shard's upstreams.

    Attributes:
        shard: which.
        owner: id of the worker that holds it, see `worker_id`.
        fence: grows with every change of owner; conditions are on it.
        until: epoch seconds, by the clock of who wrote it.
        successor: id of a worker that is connected and waits to take over, empty when there is none.
    """

    partition: int
    owner: str
    fence: int
    until: float
    successor: str = ""


def is_overdue(lease: Lease, now: float) -> bool:
    """Whether the lease should have been renewed by now (epoch seconds). Its holder may still send until it ends."""
    return lease.until - now < LEASE_S - OVERDUE_S
