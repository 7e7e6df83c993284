"""The topic filters of one connection to a broker: which streams use them, and which messages are for whom.

Invariants of this file:

- A retained message that comes because somebody subscribed is for that subscription only. MQTT 5 names it. In 3.1.1 it
  is for the filters that have had nothing of its topic yet: whoever had something of it already had this, or newer.
- A message that matches several filters is one message, also when the broker sends a copy for each of them. MQTT 5
  names the subscription of a copy. In 3.1.1 an equal message on the same topic is a copy when it comes within `COPY_S`,
  at most as often as filters match.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from tidegate.adapters.upstreams.mqtt_client import Dropped
from tidegate.ports.relay import Oversize, UpstreamEvent, UpstreamFault, UpstreamMessage
from tidegate.protocol.mqtt import Publish
from tidegate.protocol.topics import matches

#: How long an equal message may be a copy of the one before, seconds. A broker writes copies one behind the other.
COPY_S = 0.25
#: Events kept for a stream that is slow to take them. Beyond that the oldest is dropped.
_KEPT = 1000
#: Last values that a filter keeps for streams that join it: how many topics, and how many bytes of payload in all.
_LAST_TOPICS, _LAST_BYTES = 200, 1_048_576
#: Topics whose coming a filter remembers. Beyond that every retained message counts as known.
_SEEN_TOPICS = 10_000
#: Topics whose newest message is remembered to know its copies.
_COPIED_TOPICS = 1000

Event = UpstreamMessage | Oversize


class Stream:
    """The events of a stream that were received and not taken yet."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[UpstreamEvent | UpstreamFault] = asyncio.Queue()

    def put(self, event: UpstreamEvent | UpstreamFault) -> None:
        if self._events.qsize() >= _KEPT:
            self._events.get_nowait()
        self._events.put_nowait(event)

    async def take(self) -> UpstreamEvent:
        """The next event. Raises the fault that ended the stream's connection."""
        event = await self._events.get()
        if isinstance(event, UpstreamFault):
            raise event
        return event


@dataclass(slots=True)
class Filter:
    """A topic filter in use.

    Attributes:
        topic_filter, identifier: as the broker is told.
        asked: whether the broker was asked for it, whatever became of that.
        qos: as granted; -1 while it is not.
        last: the newest message of each topic, the stalest first, for a stream that joins later.
    """

    topic_filter: str
    identifier: int
    asked: bool = False
    qos: int = -1
    streams: set[Stream] = field(default_factory=set)
    last: dict[str, UpstreamMessage] = field(default_factory=dict)
    _bytes: int = 0
    _seen: set[int] = field(default_factory=set)

    def knows(self, topic: str) -> bool:
        """Whether a message of this topic came before."""
        return hash(topic) in self._seen or len(self._seen) >= _SEEN_TOPICS

    def deliver(self, topic: str, event: Event) -> None:
        """Hand an event to every stream."""
        if len(self._seen) < _SEEN_TOPICS:
            self._seen.add(hash(topic))
        if isinstance(event, UpstreamMessage):
            self._keep(topic, event)
        for stream in self.streams:
            stream.put(event)

    def _keep(self, topic: str, event: UpstreamMessage) -> None:
        former = self.last.pop(topic, None)
        self._bytes -= len(former.payload) if former is not None else 0
        if event.deleted:
            return
        self.last[topic] = event
        self._bytes += len(event.payload)
        while len(self.last) > _LAST_TOPICS or (self._bytes > _LAST_BYTES and len(self.last) > 1):
            self._bytes -= len(self.last.pop(next(iter(self.last))).payload)


@dataclass(slots=True)
class _Newest:
    """The newest message of a topic that several filters match, and how many copies of it may still come."""

    payload: bytes | None
    until: float
    copies: int


class Filters:
    """All filters of a connection. `now` gives seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._filters: dict[str, Filter] = {}
        self._by_identifier: dict[int, Filter] = {}
        self._next_identifier = 1
        self._newest: dict[str, _Newest] = {}

    def join(self, topic_filter: str, stream: Stream) -> Filter:
        """The filter, with the stream in it. The stream gets what came last on its topics."""
        found = self._filters.get(topic_filter)
        if found is None:
            found = self._filters[topic_filter] = Filter(topic_filter, self._next_identifier)
            self._by_identifier[found.identifier] = found
            self._next_identifier += 1
        found.streams.add(stream)
        for message in found.last.values():
            stream.put(message)
        return found

    def leave(self, stream: Stream) -> list[str]:
        """Take a stream out. Returns the filters that nobody uses any more."""
        unused = []
        for topic_filter, found in self._filters.items():
            found.streams.discard(stream)
            if not found.streams:
                unused.append(topic_filter)
        return unused

    def forget(self, topic_filter: str) -> bool:
        """Remove a filter that nobody uses. True when the broker has to be told."""
        found = self._filters.get(topic_filter)
        if found is None or found.streams:
            return False
        del self._filters[topic_filter], self._by_identifier[found.identifier]
        return found.asked

    def came(self, message: Publish | Dropped, *, by_identifier: bool) -> None:
        """Hand a message to the streams it is for.

        Args:
            by_identifier: whether the broker names the subscriptions that a message is for.
        """
        identifiers = message.identifiers if isinstance(message, Publish) and by_identifier else ()
        if identifiers:
            known = set(identifiers) & self._by_identifier.keys()
            targets = [self._by_identifier[identifier] for identifier in known]
        else:
            targets = [one for one in self._filters.values() if matches(one.topic_filter, message.topic)]
            if len(targets) > 1 and self._is_copy(message, len(targets)):
                return
        event = _event(message)
        for target in targets:
            if not (isinstance(message, Publish) and message.retain and target.knows(message.topic)):
                target.deliver(message.topic, event)

    def _is_copy(self, message: Publish | Dropped, count: int) -> bool:
        """Whether this is a copy of the newest message of its topic, which `count` filters match."""
        if isinstance(message, Publish) and message.retain:
            return False  # those are known by their topic
        payload = message.payload if isinstance(message, Publish) else None
        newest, now = self._newest.get(message.topic), self._now()
        if newest is not None and newest.payload == payload and newest.copies and now < newest.until:
            newest.copies -= 1
            return True
        self._newest.pop(message.topic, None)
        self._newest[message.topic] = _Newest(payload, now + COPY_S, count - 1)
        if len(self._newest) > _COPIED_TOPICS:
            del self._newest[next(iter(self._newest))]
        return False


def _event(message: Publish | Dropped) -> Event:
    """An empty payload says that the value is gone. An established subscription cannot see whether it was retained."""
    if isinstance(message, Dropped):
        return Oversize()
    return UpstreamMessage(message.payload, topic=message.topic, deleted=not message.payload)
