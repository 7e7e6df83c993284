"""Keeps the number of topics of a stream near `MOST_TOPICS`, at no cost for topics that are known.

Anybody who may publish below a wildcard may invent topics. A process cannot know how many there are without asking. So
of the topics that it meets for the first time, one in `_ONE_IN` has the stalest deleted. Which one it is, is chance:
then it makes no difference how many processes there are, and how long each of them lives.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from tidegate.errors import Unavailable
from tidegate.ports.gateway import LastValueStore
from tidegate.ports.runtime import Observer

#: A stream has so many topics too many on average, before the stalest go. 250 small values are some 12 read units.
_ONE_IN = 50
#: Topics that a process remembers, of all its streams.
_REMEMBERED = 10_000


class TopicCap:
    """Called for each value that was stored under a topic."""

    def __init__(self, last_values: LastValueStore, chance: Callable[[], float], observer: Observer) -> None:
        """`chance`: a random number from 0 to less than 1, each time it is called."""
        self._last_values = last_values
        self._observer = observer
        self._chance = chance
        self._met: OrderedDict[tuple[str, str], None] = OrderedDict()

    def __call__(self, stream_key: str, topic: str) -> None:
        met = (stream_key, topic)
        if met in self._met:
            return
        self._met[met] = None
        if len(self._met) > _REMEMBERED:
            self._met.popitem(last=False)
        if self._chance() >= 1 / _ONE_IN:
            return
        try:
            dropped = self._last_values.trim(stream_key)
        except Unavailable:  # another new topic will do
            return
        if dropped:
            self._observer.count("topics_dropped", dropped)
