"""Which of these subscriptions are no longer admissible, by access items read now.

Invariant of this file: what cannot be checked is kept, counted as `indeterminate`, and said to be so.
"""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.domain.access import DashboardAccess, Refusal, UserAccess, allowed
from tidegate.domain.subscriptions import Subscription, Termination
from tidegate.errors import Unavailable
from tidegate.ports.gateway import AccessStore
from tidegate.ports.runtime import Clock, Observer

#: Access items read together.
_READ = 90


class Evaluate:
    """Judge rows; each access item is read once however many rows need it."""

    def __init__(self, *, access: AccessStore, clock: Clock, observer: Observer) -> None:
        self._access = access
        self._clock = clock
        self._observer = observer

    def __call__(self, rows: Sequence[Subscription]) -> list[Termination]:
        """Those that are to be terminated, each with why."""
        dashboards = sorted({row.key.dashboard_id for row in rows})
        users = sorted({row.claim.principal.subject for row in rows if not row.claim.principal.is_public})
        found_dashboards: dict[str, DashboardAccess] = {}
        found_users: dict[str, UserAccess] = {}
        try:
            for start in range(0, max(len(dashboards), len(users)), _READ):
                snapshot = self._access.read(dashboards[start : start + _READ], users[start : start + _READ])
                found_dashboards |= dict(snapshot.dashboards)
                found_users |= dict(snapshot.users)
        except Unavailable:
            self._observer.count("indeterminate", len(rows))
            raise
        now = self._clock.now()
        judged: list[Termination] = []
        for row in rows:
            dashboard = found_dashboards.get(row.key.dashboard_id)
            user = found_users.get(row.claim.principal.subject)
            refusal = allowed(row.claim, dashboard, user, now)
            if row.termination:
                # Marked by a run that died before it had told: tell and delete. One that is allowed again is told to
                # come back, never that it was revoked.
                judged.append((row, refusal or Refusal.INTENT_CHANGED))
            elif refusal is not None:
                # Hidden rows too: their attempt may have verified just before the change, and would show them next.
                judged.append((row, refusal))
        return judged
