"""Check the subscriptions an event concerns again, and cut those that are no longer admissible.

Why invariant 1 holds: a row put before this query is seen by it; one put after is verified after the change. What
cannot be checked is kept and counted as `indeterminate`: ending a subscription is lasting.
"""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.domain.access import DashboardAccess, Refusal, UserAccess, allowed
from tidegate.domain.errors import CouldNotCheck
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import Subscription
from tidegate.ports import AccessStore, Clock, Observer, Revalidations, SubscriptionStore
from tidegate.usecases.cut_viewers import CutViewers, Judged
from tidegate.usecases.follow_feed import FollowFeed

#: Access items read together.
_READ = 90


class Revalidate:
    """Carry out one task of the revalidation queue."""

    def __init__(
        self,
        *,
        subscriptions: SubscriptionStore,
        access: AccessStore,
        cut: CutViewers,
        follow_feed: FollowFeed,
        tasks: Revalidations,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._subscriptions = subscriptions
        self._access = access
        self._cut = cut
        self._follow_feed = follow_feed
        self._tasks = tasks
        self._clock = clock
        self._observer = observer

    def __call__(self, task: Task, deadline: float) -> int:
        """Do it. Returns how many viewers were cut; what `deadline` (monotonic seconds) left over is queued again.

        Raises `CouldNotCheck`: nothing is known, nobody was ended for it, and the queue brings the task back.
        """
        match task.kind:
            case TaskKind.POLL:
                self._follow_feed()
                return 0
            case TaskKind.DASHBOARD:
                rows = list(self._subscriptions.of_dashboard(task.target))
            case TaskKind.USER:
                rows = list(self._subscriptions.of_user(task.target))
        judged = self._judge(rows)
        cut = self._cut(judged, deadline)
        if cut < len(judged) and self._clock.monotonic() >= deadline:
            self._tasks.queue(task)
        return cut

    def _judge(self, rows: Sequence[Subscription]) -> list[Judged]:
        """Those that are to be cut, each with why."""
        dashboards = sorted({row.key.dashboard_id for row in rows})
        users = sorted({row.claim.principal.subject for row in rows if not row.claim.principal.is_public})
        found_dashboards: dict[str, DashboardAccess] = {}
        found_users: dict[str, UserAccess] = {}
        try:
            for start in range(0, max(len(dashboards), len(users)), _READ):
                snapshot = self._access.read(dashboards[start : start + _READ], users[start : start + _READ])
                found_dashboards |= dict(snapshot.dashboards)
                found_users |= dict(snapshot.users)
        except CouldNotCheck:
            self._observer.count("indeterminate", len(rows))
            raise
        now = self._clock.now()
        judged: list[Judged] = []
        for row in rows:
            dashboard = found_dashboards.get(row.key.dashboard_id)
            user = found_users.get(row.claim.principal.subject)
            refusal = allowed(row.claim, dashboard, user, now)
            if row.cut:
                # Marked by a run that died before it had told: tell and delete. One that is allowed again is told to
                # come back, never that it was revoked.
                judged.append((row, refusal or Refusal.INTENT_CHANGED))
            elif refusal is not None:
                # Hidden rows too: their attempt may have verified just before the change, and would show them next.
                judged.append((row, refusal))
        return judged
