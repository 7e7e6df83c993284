"""Crowds: audiences that are too large for one reader and one sender.

The rows of a stream are one partition of the index by stream. DynamoDB writes a thousand rows a second there, and reads
them one page after the other. So from the subscribe number `CROWD` on, a stream's rows are spread over the shards of
its audience, by the id of the connection. The rows before that stay where they are, in shard 0.

A mark in shard 0 says that there are rows in the other shards. It is there before the first of these rows, and stays
longer than the last. So whoever reads an audience reads one partition, and the others only where the mark is.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

from tidegate.domain.subscriptions import Fault, Stream, Subscription

#: Shards of the audience of a crowd. They take 8,000 subscribes a second. The number is fixed, because readers know it.
AUDIENCE_SHARDS = 8
#: A stream with so many subscribes within `COUNTED_S` has a crowd. One sender needs half a second for as many viewers.
CROWD = 2_000
#: How long subscribes are counted before the count begins anew, seconds: as long as a connection lives.
COUNTED_S = 7_200
#: How long a mark stays, and how long before its end it is put again, seconds. A row lives as long as its connection at
#: most, which is two hours.
MARK_S = 86_400
RENEW_S = 21_600


class Audience(NamedTuple):
    """The live rows of a stream. `whole`: False when they are those of shard 0 only, because there are too many."""

    rows: Sequence[Subscription]
    whole: bool = True


class CrowdPart(NamedTuple):
    """What is to be sent to the viewers of one shard of an audience. An audience that is no crowd has shard 0 only.

    Attributes:
        topics: whose newest values are sent; None stands for a stream without topics.
        fault: is told in place of values.
        begun: whoever asked has noted the values for this shard, so this part is their sender.
    """

    stream_key: str
    shard: int
    topics: tuple[str | None, ...] = (None,)
    fault: Fault | None = None
    begun: bool = False


def shard_of(stream: Stream, connection_id: str) -> int:
    """The shard that a new subscription of the stream gets."""
    if stream.subscribes < CROWD:
        return 0
    return zlib.crc32(connection_id.encode()) % AUDIENCE_SHARDS


def mark_until(stream: Stream, now: float) -> int | None:
    """Until when the stream's mark is to stay, epoch seconds. None when it needs none, or has one for long enough."""
    if stream.subscribes < CROWD or stream.crowd_until >= now + RENEW_S:
        return None
    return int(now) + MARK_S


def too_many(first: int) -> bool:
    """Whether a crowd is too large for one sender. `first`: the rows in its shard 0, which has its share or more."""
    return first * AUDIENCE_SHARDS >= CROWD


def parts(stream_key: str, topics: tuple[str | None, ...] = (None,), fault: Fault | None = None) -> Sequence[CrowdPart]:
    """The parts that together are all viewers of a crowd."""
    return [CrowdPart(stream_key, shard, topics, fault) for shard in range(AUDIENCE_SHARDS)]
