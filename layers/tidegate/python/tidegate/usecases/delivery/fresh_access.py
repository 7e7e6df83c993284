"""The access items a sending asks, never older than a second. Safe to use from many threads.

Invariant of this file: `allows` says yes only from items whose read started at most `FRESH_S` ago at that moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

from tidegate.domain.access import FRESH_S, DashboardAccess, UserAccess, allowed
from tidegate.domain.subscriptions import Subscription
from tidegate.errors import Unavailable
from tidegate.ports.gateway import AccessStore
from tidegate.ports.runtime import Clock


class FreshAccess:
    """Access items, each used for at most a second from the start of its read."""

    def __init__(self, access: AccessStore, clock: Clock) -> None:
        self._access = access
        self._clock = clock
        self._changing = Lock()
        self._dashboards: dict[str, tuple[float, DashboardAccess | None]] = {}
        self._users: dict[str, tuple[float, UserAccess | None]] = {}

    def load(self, rows: Iterable[Subscription]) -> None:
        """Read, in one go, what these rows need and is not fresh. Raises `Unavailable`."""
        started = self._clock.monotonic()
        dashboards, users = set(), set()
        for row in rows:
            dashboards.add(row.key.dashboard_id)
            if not row.claim.principal.is_public:
                users.add(row.claim.principal.subject)
        with self._changing:
            self._dashboards = {one: kept for one, kept in self._dashboards.items() if started - kept[0] < FRESH_S}
            self._users = {one: kept for one, kept in self._users.items() if started - kept[0] < FRESH_S}
            dashboards -= self._dashboards.keys()
            users -= self._users.keys()
        if dashboards or users:
            snapshot = self._access.read(sorted(dashboards), sorted(users))
            with self._changing:
                self._dashboards |= {one: (started, snapshot.dashboards.get(one)) for one in dashboards}
                self._users |= {one: (started, snapshot.users.get(one)) for one in users}

    def allows(self, row: Subscription) -> bool:
        """Whether the row may be sent data now; reads again what has aged.

        Raises `Unavailable`, also when the answer took so long that it had aged before it was here.
        """
        for last in (False, True):
            now = self._clock.now()
            dashboard = self._dashboards.get(row.key.dashboard_id)
            public = row.claim.principal.is_public
            user = None if public else self._users.get(row.claim.principal.subject)
            # The age is looked at last, so that nothing but the sending comes after it.
            oldest_allowed = self._clock.monotonic() - FRESH_S
            if (
                dashboard is not None
                and dashboard[0] > oldest_allowed
                and (public or (user is not None and user[0] > oldest_allowed))
            ):
                return allowed(row.claim, dashboard[1], user[1] if user else None, now) is None
            if not last:
                self.load([row])
        raise Unavailable("The access items were not read in time", code="access_too_old")
