"""The relay's partitions. Every upstream belongs to one, and one worker at a time runs it: see `domain.relay`."""

from __future__ import annotations

import zlib

from tidegate.domain.subscriptions import Stream

#: Workers that share the upstreams. One of them carries hundreds. With two, a fault takes down only half.
PARTITIONS = 2


def partition_of(stream: Stream) -> int:
    """The partition of a stream's upstream, 0 to `PARTITIONS` - 1.

    All streams of a broker profile are in one partition. They share connections to the broker, and only one worker can
    count those.
    """
    broker = (stream.intent or {}).get("brokerProfileId")
    return zlib.crc32((f"broker {broker}" if broker else stream.stream_key).encode()) % PARTITIONS
