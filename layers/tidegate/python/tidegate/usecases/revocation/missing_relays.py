"""Notice partitions of the relay that somebody watches and no worker holds. Workers are asked for in any case.

A free partition is no fault by itself: nobody may be watching. So the streams that were requested last are looked at.
"""

from __future__ import annotations

from collections.abc import Collection

from tidegate.domain.partitions import partition_of
from tidegate.ports.gateway import StreamStore, SubscriptionStore
from tidegate.ports.runtime import Clock, Observer

#: How often a process looks, seconds. An alarm looks at minutes.
LOOK_S = 60.0
#: How many streams of a partition are looked at. Each is a read of an index, and most partitions nobody watches.
_LOOKED_AT = 20


class MissingRelays:
    """Counts the partitions without a relay."""

    def __init__(
        self, *, streams: StreamStore, subscriptions: SubscriptionStore, clock: Clock, observer: Observer
    ) -> None:
        self._streams = streams
        self._subscriptions = subscriptions
        self._clock = clock
        self._observer = observer
        self._looked_at = float("-inf")

    def __call__(self, unheld: Collection[int]) -> None:
        """Look whether somebody watches a stream of these partitions. Raises `Unavailable`."""
        now = self._clock.monotonic()
        if not unheld or now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        listed = self._streams.of_source(None).streams
        newest_first = sorted(listed, key=lambda stream: stream.last_requested_at, reverse=True)
        for partition in unheld:
            keys = [stream.stream_key for stream in newest_first if partition_of(stream) == partition][:_LOOKED_AT]
            if any(self._subscriptions.audience(key, or_first_shard=True).rows for key in keys):
                self._observer.count("relay_partitions_unheld")
