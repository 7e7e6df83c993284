"""Topic filters on which a broker may close the connection.

Some brokers close the connection when a client subscribes to a topic that is forbidden; AWS IoT does. On a shared
connection one forbidden filter would disconnect everybody, at every try. So a filter whose SUBSCRIBE ended a connection
is a suspect. It is tried alone before it comes to a shared connection again. Once a broker has closed a trial too, all
filters that it has not granted yet are tried alone first: a second forbidden filter disconnects nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidegate.ports.relay import Broker, UpstreamFault
from tidegate.protocol.messages import ErrorCode

#: Filters that are remembered, suspect or granted. Beyond that all are forgotten: it is learned again.
_REMEMBERED = 10_000


class SuspectFilters:
    """What is known of filters. It is forgotten with the worker."""

    def __init__(self, *, again_s: float, now: Callable[[], float]) -> None:
        """`again_s`: how long a refused filter is not tried again, seconds. `now` gives seconds."""
        self._again_s = again_s
        self._now = now
        self._suspects: dict[tuple[Broker, str], float] = {}  # until when it is refused without asking
        self._granted: set[tuple[Broker, str]] = set()
        self._closing: set[Broker] = set()  # brokers that close on a forbidden filter
        self._turns: dict[Broker, asyncio.Lock] = {}

    def suspect(self, broker: Broker, topic_filter: str) -> bool:
        """Whether the filter is to be tried alone. Raises `UpstreamFault`: it was, a moment ago, and was refused."""
        until = self._suspects.get((broker, topic_filter))
        if until is None:
            return broker in self._closing and (broker, topic_filter) not in self._granted
        if self._now() < until:
            raise forbidden()
        return True

    def turn(self, broker: Broker) -> asyncio.Lock:
        """Held while a filter is tried: one at a time, so a broker gets one more connection at most."""
        return self._turns.setdefault(broker, asyncio.Lock())

    def broke(self, broker: Broker, topic_filter: str) -> None:
        """A connection ended with the filter's SUBSCRIBE unanswered."""
        self._make_room()
        self._granted.discard((broker, topic_filter))
        self._suspects[broker, topic_filter] = self._now()

    def refused(self, broker: Broker, topic_filter: str) -> None:
        """The broker closed the connection on which the filter was alone."""
        self._closing.add(broker)
        self._suspects[broker, topic_filter] = self._now() + self._again_s

    def granted(self, broker: Broker, topic_filter: str) -> None:
        """The broker answered the filter's SUBSCRIBE."""
        self._make_room()
        self._suspects.pop((broker, topic_filter), None)
        self._granted.add((broker, topic_filter))

    def _make_room(self) -> None:
        if len(self._suspects) + len(self._granted) >= _REMEMBERED:
            self._suspects.clear()
            self._granted.clear()


def forbidden() -> UpstreamFault:
    text = "MQTT broker closes the connection on this topic"
    return UpstreamFault(ErrorCode.AUTH_FAILED, text, refused=True)
