"""Follow a remote API's feed of revoked share versions from the stored cursor.

Invariant of this file: the cursor moves only over events whose version is raised, so that fan-out withholds and
subscribing refuses, and whose work is queued durably; it moves conditionally on its old value. So no event is ever
skipped, whatever crashed or whichever answer was lost; raising and queueing twice is harmless.
"""

from __future__ import annotations

from tidegate.domain.remote_api import RemotePage
from tidegate.domain.revocations import Task, TaskKind
from tidegate.ports.remote_api import RemoteCursors, RemoteFeed, RevokedVersions
from tidegate.ports.revocation import FullRevalidationRuns, RevalidationQueue
from tidegate.ports.runtime import Clock, Observer

#: Full pages read in one run; what is behind them is read by the next, which is queued at once.
_PAGES = 50


class FollowRemoteFeed:
    """Read what is new, raise versions and queue the work."""

    def __init__(
        self,
        *,
        feed: RemoteFeed,
        cursors: RemoteCursors,
        versions: RevokedVersions,
        runs: FullRevalidationRuns,
        tasks: RevalidationQueue,
        batch: int,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._feed = feed
        self._cursors = cursors
        self._versions = versions
        self._runs = runs
        self._tasks = tasks
        self._batch = batch
        self._clock = clock
        self._observer = observer

    def __call__(self) -> int:
        """Apply everything new; full batches are continued at once. Returns the number of events.

        Raises `Unavailable`: the API or a store did not answer; the next run goes on from the same place.
        """
        handled = 0
        for _ in range(_PAGES):
            cursor = self._cursors.cursor()
            page = self._feed.read(cursor, self._batch)
            if page.expired:
                self._check_everybody()
            self._apply(page)
            handled += len(page.events)
            # The contract tells no head: what was behind is known when the page is not full, else it is at least this.
            self._observer.count("cursor_lag", len(page.events))
            if page.next_cursor == cursor:
                return handled
            if not self._cursors.move_cursor(cursor, page.next_cursor):
                return handled  # another reader is further; it goes on from there
            self._observer.count("events_polled", len(page.events))
            if len(page.events) < self._batch:
                return handled
        self._tasks.queue(Task(TaskKind.POLL))
        return handled

    def _check_everybody(self) -> None:
        """Events may have been missed: every subscription is to be checked, before the new cursor is stored."""
        self._observer.count("cursor_expired")
        self._observer.warning("the API's feed no longer holds events after the cursor")
        self._runs.demand(int(self._clock.now()))
        self._tasks.queue(Task(TaskKind.FULL))

    def _apply(self, page: RemotePage) -> None:
        versions: dict[str, int] = {}
        since_ms: dict[str, int] = {}
        for event in page.events:
            one = event.dashboard_id
            versions[one] = max(event.share_version, versions.get(one, 0))
            since_ms.setdefault(one, event.revoked_at_ms)
        for one, version in versions.items():
            # Before its task: a row put after the task's query is verified by the raised version.
            self._versions.raise_to(one, version)
            self._tasks.queue(Task(TaskKind.DASHBOARD, one, since_ms[one]))
