"""Partitions of the relay that somebody watches and nobody holds."""

from __future__ import annotations

from tests.doubles.platform import ManualClock, MemoryObserver
from tests.doubles.stores import MemoryConnections, MemoryStreams, MemorySubscriptions
from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal
from tidegate.domain.partitions import PARTITIONS, partition_of
from tidegate.domain.subscriptions import Stream, Subscription, SubscriptionKey
from tidegate.usecases.revocation.missing_relays import LOOK_S, MissingRelays

ALL = range(PARTITIONS)


class Partitions:
    """One stream, whose viewers a test adds."""

    def __init__(self) -> None:
        self.clock, self.observer = ManualClock(), MemoryObserver()
        self.streams, self.subscriptions = MemoryStreams(), MemorySubscriptions(MemoryConnections())
        self.stream = self.streams.touch(Stream("stream", "sse", "json", None, None, last_requested_at=1))
        self.missing = MissingRelays(
            streams=self.streams, subscriptions=self.subscriptions, clock=self.clock, observer=self.observer
        )

    def watched(self) -> None:
        key = SubscriptionKey("d", "c", "s")
        claim = Claim("d", "s", Principal(PUBLIC_SUBJECT, 1), "hash", 10**10)
        self.subscriptions.rows[key] = Subscription(key, "g", claim, "stream", visible=True)

    def counted(self) -> int:
        return self.observer.counts.get(("relay_partitions_unheld",), 0)


def test_a_partition_that_nobody_watches_may_be_free() -> None:
    partitions = Partitions()
    partitions.missing(ALL)
    assert partitions.counted() == 0 and partitions.streams.queries == 1


def test_one_that_somebody_watches_may_not() -> None:
    partitions = Partitions()
    partitions.watched()
    own = partition_of(partitions.stream)
    partitions.missing([partition for partition in ALL if partition != own])
    assert partitions.counted() == 0, "the other partition has no streams"
    partitions.clock.advance(LOOK_S)
    partitions.missing(ALL)
    assert partitions.counted() == 1


def test_it_looks_once_a_minute_and_only_where_nobody_holds_one() -> None:
    partitions = Partitions()
    partitions.watched()
    partitions.missing([])
    assert partitions.streams.queries == 0
    partitions.missing(ALL)
    partitions.clock.advance(LOOK_S - 1)
    partitions.missing(ALL)
    assert partitions.counted() == partitions.streams.queries == 1
    partitions.clock.advance(1)
    partitions.missing(ALL)
    assert partitions.counted() == 2, "it goes on"
