"""What is checked before every send: the access items, and whether the viewer is still subscribed. Never older than a
second. Safe to use from many threads.

Invariant of this file: `allows` says yes only from access items whose read started less than `FRESH_S` before that
moment, and only for a row that a reading of the audience names which is not too old either.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

from tidegate.domain.access import FRESH_S, DashboardAccess, UserAccess, allowed, owner_that_counts
from tidegate.domain.subscriptions import Subscription
from tidegate.errors import Unavailable
from tidegate.ports.gateway import AccessStore
from tidegate.ports.runtime import Clock
from tidegate.usecases.delivery.audiences import Audiences

#: How often what is too old is read again for one frame. On a starved machine an answer may be too old when it comes,
#: and the next one is not. A frame that is not sent for that is lost where every value counts.
_READS = 3


class FreshAccess:
    """Access items. Each is used for at most a second (`FRESH_S`) from the start of its read."""

    def __init__(self, access: AccessStore, audiences: Audiences, clock: Clock) -> None:
        self._access = access
        self._audiences = audiences
        self._clock = clock
        self._changing = Lock()
        self._dashboards: dict[str, tuple[float, DashboardAccess | None]] = {}
        self._users: dict[str, tuple[float, UserAccess | None]] = {}

    def load(self, rows: Iterable[Subscription]) -> None:
        """Read, together, the items that these rows need and that are not fresh. Raises `Unavailable`."""
        started = self._clock.monotonic()
        dashboards, users = set(), set()
        for row in rows:
            dashboards.add(row.key.dashboard_id)
            if not row.claim.principal.is_public:
                users.add(row.claim.principal.subject)
        with self._changing:
            self._dashboards = {key: kept for key, kept in self._dashboards.items() if started - kept[0] < FRESH_S}
            self._users = {key: kept for key, kept in self._users.items() if started - kept[0] < FRESH_S}
            users |= {owner for key in dashboards if (owner := self._owner_of(key)) is not None}
            dashboards -= self._dashboards.keys()
            users -= self._users.keys()
        if dashboards or users:
            snapshot = self._access.read(sorted(dashboards), sorted(users))
            with self._changing:
                self._dashboards |= {key: (started, snapshot.dashboards.get(key)) for key in dashboards}
                self._users |= {key: (started, snapshot.users.get(key)) for key in users | snapshot.users.keys()}
                owners = {owner for key in dashboards if (owner := self._owner_of(key)) is not None}
                self._users |= dict.fromkeys(owners - snapshot.users.keys(), (started, None))

    def _owner_of(self, dashboard_id: str) -> str | None:
        """The owner whose access item guests of a dashboard need, as far as the dashboard is known."""
        known = self._dashboards.get(dashboard_id)
        return owner_that_counts(known[1]) if known is not None and known[1] is not None else None

    def allows(self, row: Subscription) -> bool:
        """Whether the row may be sent data now: it is subscribed, and has the right. What is too old is read again.

        Raises:
            Unavailable: the store did not answer, or each time took so long that its answer was too old when it came.
        """
        for tries_left in range(_READS, -1, -1):
            now = self._clock.now()
            dashboard = self._dashboards.get(row.key.dashboard_id)
            public = row.claim.principal.is_public
            user = None if public else self._users.get(row.claim.principal.subject)
            owner_id = owner_that_counts(dashboard[1]) if dashboard is not None and dashboard[1] is not None else None
            owner = self._users.get(owner_id) if owner_id is not None else None
            audience = self._audiences.kept(row)
            # The age is checked last, so that nothing but the sending comes after it.
            moment = self._clock.monotonic()
            oldest_allowed = moment - FRESH_S
            if (
                audience is not None
                and audience.until > moment
                and dashboard is not None
                and dashboard[0] > oldest_allowed
                and (public or (user is not None and user[0] > oldest_allowed))
                and (owner_id is None or (owner is not None and owner[0] > oldest_allowed))
            ):
                found_user, found_owner = user[1] if user else None, owner[1] if owner else None
                right = allowed(row.claim, dashboard[1], found_user, found_owner, now) is None
                return right and audience.names(row)
            if tries_left:
                self.load([row])
                self._audiences.of(row.stream_key)
        raise Unavailable("What is checked before a send was not read in time", code="access_too_old")

    def named(self, row: Subscription) -> bool:
        """Whether the last reading of the audience names the row. Asks no store."""
        audience = self._audiences.kept(row)
        return audience is not None and audience.names(row)
