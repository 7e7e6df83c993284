"""Follow a remote API's feed of revoked share versions from the stored cursor.

Invariant of this file: no event is ever skipped, whatever crashes and whichever answer is lost. The cursor moves only
past events whose version is raised and whose task is queued durably, and only conditionally on its old value. A raised
version makes fan-out withhold and subscribing refuse. Raising and queueing twice is harmless.
"""

from __future__ import annotations

from tidegate.domain.remote_api import RemotePage
from tidegate.domain.revocations import Task, TaskKind
from tidegate.ports.remote_api import RemoteCursors, RemoteFeed, RevokedVersions
from tidegate.ports.revocation import FullRevalidationRuns, RevalidationQueue
from tidegate.ports.runtime import Clock, Observer

#: Most full pages that are read in one run. What follows is read by the next run, which is queued at once.
_PAGES = 50


class FollowRemoteFeed:
    """Reads new events, raises revoked versions, and queues the tasks."""

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
        """Apply all new events, page after page. Returns the number of events.

        Raises:
            Unavailable: the API or a store did not answer. The next run goes on from the stored cursor.
        """
        handled = 0
        for _ in range(_PAGES):
            cursor = self._cursors.cursor()
            page = self._feed.read(cursor, self._batch)
            if page.expired:
                self._check_everybody()
            self._apply(page)
            handled += len(page.events)
            # The API does not say how many events follow. If the page is not full, this is the lag; else the lag is at
            # least this.
            self._observer.count("cursor_lag", len(page.events))
            if page.next_cursor == cursor:
                return handled
            if not self._cursors.move_cursor(cursor, page.next_cursor):
                return handled  # another reader moved the cursor and goes on from there
            self._observer.count("events_polled", len(page.events))
            if len(page.events) < self._batch:
                return handled
        self._tasks.queue(Task(TaskKind.POLL))
        return handled

    def _check_everybody(self) -> None:
        """Events may have been missed: have every subscription checked. Done before the new cursor is stored."""
        self._observer.count("cursor_expired")
        self._observer.warning("the API's feed no longer holds events after the cursor")
        self._runs.demand(int(self._clock.now()))
        self._tasks.queue(Task(TaskKind.FULL))

    def _apply(self, page: RemotePage) -> None:
        versions: dict[str, int] = {}
        since_ms: dict[str, int] = {}
        for event in page.events:
            dashboard_id = event.dashboard_id
            versions[dashboard_id] = max(event.share_version, versions.get(dashboard_id, 0))
            since_ms.setdefault(dashboard_id, event.revoked_at_ms)
        for dashboard_id, version in versions.items():
            # The version first: a row that is put after the task's query is verified against the raised version.
            self._versions.raise_to(dashboard_id, version)
            self._tasks.queue(Task(TaskKind.DASHBOARD, dashboard_id, since_ms[dashboard_id]))
