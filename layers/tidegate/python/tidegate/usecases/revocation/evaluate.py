"""Find the subscriptions that are no longer admissible, by access items that are read now.

Invariant of this file: rows that cannot be checked are kept and counted as `indeterminate`, and the caller gets
`Unavailable`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.domain.access import DashboardAccess, Refusal, UserAccess, allowed, owner_that_counts
from tidegate.domain.subscriptions import Subscription, Termination
from tidegate.domain.switches import ALL_ON, Switches
from tidegate.errors import Unavailable
from tidegate.ports.gateway import AccessStore
from tidegate.ports.runtime import Clock, Observer

#: Access items of each kind that are read together.
_READ = 90


class Evaluate:
    """Evaluates rows. Each access item is read once, however many rows need it."""

    def __init__(self, *, access: AccessStore, clock: Clock, observer: Observer, switches: Switches = ALL_ON) -> None:
        """`switches`: what the operator switched on. A row of what is off is terminated, unless for another reason."""
        self._access = access
        self._switches = switches
        self._clock = clock
        self._observer = observer

    def __call__(self, rows: Sequence[Subscription]) -> list[Termination]:
        """The rows that are to be terminated, each with the reason. Every row with a termination claim is among them.

        Raises:
            Unavailable: access items could not be read, and nothing is known of any row.
        """
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
        terminations: list[Termination] = []
        for row in rows:
            dashboard = found_dashboards.get(row.key.dashboard_id)
            user = found_users.get(row.claim.principal.subject)
            owner_id = owner_that_counts(dashboard) if dashboard else None
            owner = found_users.get(owner_id) if owner_id else None
            refusal = allowed(row.claim, dashboard, user, owner, now)
            if refusal is None and self._switches.refuse(row.protocol):
                refusal = Refusal.SWITCHED_OFF
            if row.termination:
                # Claimed by a run that died before it had notified the viewer: notify and delete. A viewer who is
                # allowed again is told to come back, never that the right was revoked.
                terminations.append((row, refusal or Refusal.INTENT_CHANGED))
            elif refusal is not None:
                # Hidden rows too: their subscribe may have verified just before the change and show them next.
                terminations.append((row, refusal))
        return terminations
