"""Whose turn it is among those that are ready: dashboards take turns, then streams, then clients.

Round robin on three levels (Nagle 1987, "On packet switches with infinite storage"). A dashboard with a thousand
viewers gets one message out between any two of another dashboard, not a thousand. No I/O, no clock, no lock.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable

#: Whom a client's next message belongs to: (dashboard id, stream key).
Place = tuple[str, str]


class FairOrder:
    """Clients that are ready. Adding and taking cost the same however many there are."""

    def __init__(self) -> None:
        self._dashboards: OrderedDict[str, OrderedDict[str, deque[Hashable]]] = OrderedDict()
        self._new: set[Place] = set()
        self._places = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, client: Hashable, place: Place) -> None:
        """Add a client behind the others of its place. It must not be in the order already."""
        dashboard, stream = place
        streams = self._dashboards.get(dashboard)
        if streams is None:
            streams = self._dashboards[dashboard] = OrderedDict()
        clients = streams.get(stream)
        if clients is None:
            clients = streams[stream] = deque()
            self._new.add(place)
            self._places += 1
        clients.append(client)
        self._count += 1

    def newcomers(self, most: int) -> int:
        """In how many turns every place that was not served since it became ready is served once: an upper bound, and
        `most` at most. 0 when there is no such place, or there are only such places."""
        if not self._new or len(self._new) == self._places:
            return 0
        if len(self._new) >= most:
            return most
        longest = max(len(self._dashboards[dashboard]) for dashboard, _ in self._new)
        return min(most, len(self._dashboards) * longest)

    def take(self) -> Hashable:
        """The client whose turn it is. Its dashboard goes to the end of the line, and so does its stream.

        Raises:
            LookupError: there is none.
        """
        dashboard, streams = next(iter(self._dashboards.items()), (None, None))
        if dashboard is None or streams is None:
            raise LookupError("nobody is ready")
        stream, clients = next(iter(streams.items()))
        client = clients.popleft()
        self._new.discard((dashboard, stream))
        self._count -= 1
        if clients:
            streams.move_to_end(stream)
        else:
            del streams[stream]
            self._places -= 1
        if streams:
            self._dashboards.move_to_end(dashboard)
        else:
            del self._dashboards[dashboard]
        return client
