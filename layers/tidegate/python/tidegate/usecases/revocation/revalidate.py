"""Check the subscriptions that an event concerns again, and terminate those that are no longer admissible.

Why invariant 1 holds: a row that is put before the query here is seen by it. A row that is put later is verified after
the change. A row that cannot be checked is kept and counted as `indeterminate`, because a termination is final.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import TERMINATION_CLAIM_S, Subscription
from tidegate.ports.gateway import AccessStore, SubscriptionStore
from tidegate.ports.revocation import RevalidationQueue
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.remote_api.reintrospect import Reintrospect
from tidegate.usecases.revocation.evaluate import Evaluate
from tidegate.usecases.revocation.full_revalidation import FullRevalidation
from tidegate.usecases.revocation.terminate_subscriptions import TerminateSubscriptions


class Revalidate:
    """Carries out the tasks of the revalidation queue."""

    def __init__(
        self,
        *,
        subscriptions: SubscriptionStore,
        evaluate: Evaluate,
        terminate: TerminateSubscriptions,
        follow_feed: Callable[[], int],
        full_revalidation: FullRevalidation,
        end_expired: Callable[[float], int],
        replace_relay_workers: Callable[[], int],
        tasks: RevalidationQueue,
        clock: Clock,
        observer: Observer,
        tell_document: Callable[[Task, float], int] | None = None,
        reintrospect: Reintrospect | None = None,
        shown_by: Callable[[str], Iterable[str]] | None = None,
        access: AccessStore | None = None,
    ) -> None:
        """
        Args:
            follow_feed: reads our own feed, or that of a remote API.
            shown_by: ids of the dashboards that a user owns and shows to guests. *Index.* None with a remote API, whose
                users are not known here.
            access: where it is looked up whether that user is still active. Needed with `shown_by`.
            end_expired: ends what has expired, until the deadline it is given (monotonic seconds).
            replace_relay_workers: is here because the tasks of the schedule come by this queue.
            tell_document: tells who watches a dashboard that it was saved, until the deadline it is given (monotonic
                seconds). None with a remote API, whose documents are not known here.
            reintrospect: asks a remote API about rows, because its feed does not report every lost right. None without
                a remote API.
        """
        self._subscriptions = subscriptions
        self._evaluate = evaluate
        self._terminate = terminate
        self._follow_feed = follow_feed
        self._full_revalidation = full_revalidation
        self._end_expired = end_expired
        self._replace_relay_workers = replace_relay_workers
        self._tell_document = tell_document
        self._tasks = tasks
        self._clock = clock
        self._observer = observer
        self._reintrospect = reintrospect
        self._shown_by = shown_by
        self._access = access

    def __call__(self, task: Task, deadline: float) -> int:
        """Carry out one task. Returns how many subscriptions were terminated.

        What is left over at `deadline` (monotonic seconds) is queued again. Repeating a task is harmless.

        Raises:
            Unavailable: a store did not answer. Nothing was terminated because of that, and the queue delivers the task
                again.
        """
        match task.kind:
            case TaskKind.FULL:
                return self._full_revalidation(deadline)
            case TaskKind.EXPIRED:
                return self._end_expired(deadline)
            case TaskKind.DASHBOARD:
                return self._check(task, list(self._subscriptions.of_dashboard(task.target)), deadline)
            case TaskKind.USER:
                self._ask_for_what_they_show(task)
                return self._check(task, list(self._subscriptions.of_user(task.target)), deadline)
            case TaskKind.POLL | TaskKind.SLOT | TaskKind.RELAYS | TaskKind.DOCUMENT:
                self._do(task, deadline)
                return 0

    def _do(self, task: Task, deadline: float) -> None:
        """The tasks that terminate nothing themselves."""
        match task.kind:
            case TaskKind.POLL:
                self._follow_feed()
            case TaskKind.SLOT:
                self._full_revalidation.free_slot(task.target)
            case TaskKind.RELAYS:
                self._replace_relay_workers()
            case TaskKind.DOCUMENT if self._tell_document is not None:
                self._tell_document(task, deadline)

    def _ask_for_what_they_show(self, task: Task) -> None:
        """Queue a task for each dashboard that a deactivated user shows to guests, who are denied with its owner.

        Repeating is harmless, so a run that dies in between is carried out again.
        """
        if self._shown_by is None or self._access is None:
            return
        user = self._access.read([], [task.target]).users.get(task.target)
        if user is not None and user.active:
            return
        for dashboard_id in self._shown_by(task.target):
            self._tasks.queue(Task(TaskKind.DASHBOARD, dashboard_id, task.since_ms))

    def _check(self, task: Task, rows: Sequence[Subscription], deadline: float) -> int:
        """Terminate the rows that are not allowed any more, and queue the task again for what is left over.

        Returns how many were terminated.
        """
        terminations = self._evaluate(rows)
        terminated = self._terminate(terminations, deadline)
        if terminated and task.since_ms:
            self._observer.time("commit_to_termination", self._clock.now() * 1000 - task.since_ms)
        left = terminated < len(terminations)
        if self._reintrospect is not None:
            # The event names a share version only. What else changed, also for members, only the API knows.
            known = {row.key for row, _ in terminations}
            rest = [row for row in rows if row.key not in known]
            terminated += self._terminate(self._reintrospect(rest, deadline, anew=True), deadline)
            left = left or bool(rest)
        if left and self._clock.monotonic() >= deadline:
            self._tasks.queue(task)
        elif any(row.termination is not None for row, _ in terminations):
            # Another run has claimed them and may have died since. They are checked again when its claim has ended.
            self._tasks.queue(replace(task, since_ms=0), TERMINATION_CLAIM_S)
        return terminated
