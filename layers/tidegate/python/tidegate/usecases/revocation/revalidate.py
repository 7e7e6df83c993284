"""Check the subscriptions an event concerns again, and cut those that are no longer admissible.

Why invariant 1 holds: a row put before this query is seen by it; one put after is verified after the change. What
cannot be checked is kept and counted as `indeterminate`: ending a subscription is lasting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import CUT_LEASE_S
from tidegate.ports.gateway import SubscriptionStore
from tidegate.ports.revocation import Revalidations
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.remote_api.reintrospect import Reintrospect
from tidegate.usecases.revocation.evaluate import Judge
from tidegate.usecases.revocation.full_revalidation import FullPass
from tidegate.usecases.revocation.terminate_subscriptions import CutViewers


class Revalidate:
    """Carry out one task of the revalidation queue."""

    def __init__(
        self,
        *,
        subscriptions: SubscriptionStore,
        judge: Judge,
        cut: CutViewers,
        follow_feed: Callable[[], int],
        full_pass: FullPass,
        replace_relays: Callable[[], int],
        tasks: Revalidations,
        clock: Clock,
        observer: Observer,
        reintrospect: Reintrospect | None = None,
    ) -> None:
        """`follow_feed` reads our own feed or an external API's; `reintrospect` asks that API about those that its feed
        does not tell of. `replace_relays` is here because this queue is where the schedule's work is done."""
        self._subscriptions = subscriptions
        self._judge = judge
        self._cut = cut
        self._follow_feed = follow_feed
        self._full_pass = full_pass
        self._replace_relays = replace_relays
        self._tasks = tasks
        self._clock = clock
        self._observer = observer
        self._reintrospect = reintrospect

    def __call__(self, task: Task, deadline: float) -> int:
        """Do it. Returns how many viewers were cut; what `deadline` (monotonic seconds) left over is queued again.

        Raises `CouldNotCheck`: nothing is known, nobody was ended for it, and the queue brings the task back.
        """
        match task.kind:
            case TaskKind.POLL:
                self._follow_feed()
                return 0
            case TaskKind.FULL:
                return self._full_pass(deadline)
            case TaskKind.SLOT:
                self._full_pass.free_slot(task.target)
                return 0
            case TaskKind.RELAYS:
                self._replace_relays()
                return 0
            case TaskKind.DASHBOARD:
                rows = list(self._subscriptions.of_dashboard(task.target))
            case TaskKind.USER:
                rows = list(self._subscriptions.of_user(task.target))
        judged = self._judge(rows)
        cut = self._cut(judged, deadline)
        if cut and task.since_ms:
            self._observer.time("commit_to_cut", self._clock.now() * 1000 - task.since_ms)
        left = cut < len(judged)
        if self._reintrospect is not None:
            # The event told a version; what else happened to the dashboard, for members too, only the API can tell.
            known = {row.key for row, _ in judged}
            rest = [row for row in rows if row.key not in known]
            cut += self._cut(self._reintrospect(rest, deadline, anew=True), deadline)
            left = left or bool(rest)
        if left and self._clock.monotonic() >= deadline:
            self._tasks.queue(task)
        elif any(row.cut is not None for row, _ in judged):
            # Another run has marked them, and may have died since: they are looked at again when its mark has run out.
            self._tasks.queue(replace(task, since_ms=0), CUT_LEASE_S)
        return cut
