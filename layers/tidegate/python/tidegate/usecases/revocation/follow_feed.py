"""Follow the feed of revocation events from the stored cursor. This finds events whose push was lost.

Invariant of this file: no event is ever skipped. The cursor moves only past events whose tasks are queued durably, and
only conditionally on its old value. Queueing a task twice is harmless. If the feed no longer holds events after the
cursor, a full revalidation takes their place.
"""

from __future__ import annotations

from tidegate.domain.revocations import Task, TaskKind, tasks_for
from tidegate.ports.revocation import CursorStore, FullRevalidationRuns, RevalidationQueue, RevocationFeed
from tidegate.ports.runtime import Clock, Observer

#: The rows of a user are found by an index, which may lag. So they are looked for once more after this time, seconds.
INDEX_LAG_S = 10


class FollowFeed:
    """Reads new events and queues their tasks."""

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
        """Queue the tasks of all new events, batch after batch. Returns the number of events.

        Raises:
            Unavailable: a store or the queue did not answer. The next call goes on from the stored cursor.
        """
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
                return handled  # another reader moved the cursor and goes on from there
            self._observer.count("events_polled", len(page.events))
            if len(page.events) < self._batch:
                return handled

    def _full_revalidation(self, cursor: int | None) -> None:
        """Nobody knows what the lost events were about, so every subscription is checked again now."""
        self._runs.demand(int(self._clock.now()))
        self._tasks.queue(Task(TaskKind.FULL))
        self._observer.count("cursor_expired")
        self._observer.warning("the feed no longer holds what follows the cursor: full revalidation", cursor=cursor)


def queue_task(tasks: RevalidationQueue, task: Task) -> None:
    """Queue a task. A task about a user is queued once more with a delay, because the index may lag."""
    tasks.queue(task)
    if task.kind is TaskKind.USER:
        tasks.queue(task, INDEX_LAG_S)
