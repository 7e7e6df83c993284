"""Follow the feed from the stored cursor: the fall-back for pushes that were lost.

Invariant of this file: the cursor moves only over events whose work is queued durably, and conditionally on its old
value, so no event is ever skipped; queueing twice is harmless. Where events are gone, a full revalidation stands in
for them.
"""

from __future__ import annotations

from tidegate.domain.revocations import Task, TaskKind, tasks_for
from tidegate.ports.revocation import CursorStore, FullRevalidationRuns, RevalidationQueue, RevocationFeed
from tidegate.ports.runtime import Clock, Observer

#: A user's rows are found by an index, which may lag: they are looked for once more after this, seconds.
INDEX_LAG_S = 10


class FollowFeed:
    """Read what is new and queue its work."""

    def __init__(
        self,
        *,
        feed: RevocationFeed,
        cursors: CursorStore,
        runs: FullRevalidationRuns,
        tasks: RevalidationQueue,
        batch: int,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._feed = feed
        self._cursors = cursors
        self._runs = runs
        self._tasks = tasks
        self._batch = batch
        self._clock = clock
        self._observer = observer

    def __call__(self) -> int:
        """Queue the work of everything new; full batches are continued at once. Returns the number of events."""
        handled = 0
        while True:
            cursor = self._cursors.cursor()
            page = self._feed.read(cursor or 0, self._batch, self._clock.now())
            self._observer.count("cursor_lag", max(0, page.head - (cursor or 0)))
            if lost := page.misses(cursor or 0, self._batch):
                self._full_revalidation(cursor)
            for task in tasks_for(page.events):
                queue_task(self._tasks, task)
            handled += len(page.events)
            reached = page.events[-1].event_id if page.events else page.head
            if not page.events and not lost:
                return handled
            if not self._cursors.move_cursor(cursor, reached):
                return handled  # another reader is further; it goes on from there
            self._observer.count("events_polled", len(page.events))
            if len(page.events) < self._batch:
                return handled

    def _full_revalidation(self, cursor: int | None) -> None:
        """Nobody knows what the lost events were about: every subscription is checked again, now."""
        self._runs.demand(int(self._clock.now()))
        self._tasks.queue(Task(TaskKind.FULL))
        self._observer.count("cursor_expired")
        self._observer.warning("the feed no longer holds what follows the cursor: full revalidation", cursor=cursor)


def queue_task(tasks: RevalidationQueue, task: Task) -> None:
    """Queue a task, a user's once more for the index's sake."""
    tasks.queue(task)
    if task.kind is TaskKind.USER:
        tasks.queue(task, INDEX_LAG_S)
