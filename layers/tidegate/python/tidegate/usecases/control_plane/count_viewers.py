"""How many watch a dashboard now, and which of its datasources: counts, and nothing about anybody.

Invariant of this file: an answer costs no more than `MOST_ROWS` rows take to read, whatever the dashboard has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate.domain.access import Visibility
from tidegate.domain.subscriptions import Subscription
from tidegate.domain.users import User
from tidegate.ports.gateway import SubscriptionStore
from tidegate.ports.runtime import Clock
from tidegate.usecases.control_plane.author_profiles import Opened

#: Rows that are read for an answer. A row is some 500 bytes, so they are 2 MB, or some 250 read units. They are more
#: than 250 viewers of ten datasources.
MOST_ROWS = 4000


@dataclass(frozen=True, slots=True)
class Watching:
    """What was counted.

    Attributes:
        members, by_link, public: connections of members, and of guests of a dashboard with that visibility.
        datasources: datasource id -> subscriptions, the most watched first.
        more: whether not all rows were read. Then there are more than was counted.
    """

    members: int
    by_link: int
    public: int
    datasources: Mapping[str, int]
    more: bool

    @property
    def connections(self) -> int:
        return self.members + self.by_link + self.public

    @property
    def subscriptions(self) -> int:
        return sum(self.datasources.values())


class CountViewers:
    """The use case behind `GET /dashboards/{id}/viewers`."""

    def __init__(self, *, editable: Opened, subscriptions: SubscriptionStore, clock: Clock) -> None:
        self._editable = editable
        self._subscriptions = subscriptions
        self._clock = clock

    def __call__(self, user: User, dashboard_id: str) -> Watching:
        """Raises `NotFound`, or `Denied` for who may not edit the dashboard."""
        dashboard = self._editable(user, dashboard_id)
        found = self._subscriptions.some_of_dashboard(dashboard_id, MOST_ROWS)
        return watching(found.rows, dashboard.visibility, more=found.more, now=self._clock.now())


def watching(rows: Sequence[Subscription], visibility: Visibility, *, more: bool, now: float) -> Watching:
    """Count rows. One that is hidden, is being terminated, or has expired receives nothing, and does not count.

    A row does not say by which way a guest came: all are counted as what the dashboard is now.
    """
    live = [row for row in rows if row.live and row.claim.expires_at > now]
    guests = {row.key.connection_id for row in live if row.claim.principal.share_version is not None}
    connections = {row.key.connection_id for row in live}
    datasources = Counter(row.key.datasource_id for row in live)
    public = visibility is Visibility.PUBLIC
    return Watching(
        members=len(connections - guests),
        by_link=0 if public else len(guests),
        public=len(guests) if public else 0,
        datasources=dict(sorted(datasources.items(), key=lambda entry: (-entry[1], entry[0]))),
        more=more,
    )
