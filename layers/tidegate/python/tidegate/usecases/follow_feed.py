"""Follow the feed from the stored cursor: the fall-back for pushes that were lost.

Invariant of this file: the cursor moves only over events whose work is queued durably, and conditionally on its old
value, so no event is ever skipped; queueing twice is harmless.
"""

from __future__ import annotations

from tidegate.control_plane_ports import RevocationFeed
from tidegate.domain.revocations import Task, TaskKind, task_for
from tidegate.ports import Clock, CursorStore, Observer, Revalidations

#: A user's rows are found by an index, which may lag: they are looked for once more after this, seconds.
INDEX_LAG_S = 10


class FollowFeed:
    """Read what is new and queue its work."""

    def __init__(
        self,
        *,
        feed: RevocationFeed,
        cursors: CursorStore,
        tasks: Revalidations,
        batch: int,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._feed = feed
        self._cursors = cursors
        self._tasks = tasks
        self._batch = batch
        self._clock = clock
        self._observer = observer

    def __call__(self) -> int:
        """Queue the work of everything new; full batches are continued at once. Returns the number of events."""
        handled = 0
        while True:
            cursor = self._cursors.cursor()
            now = self._clock.now()
            page = self._feed.read(cursor or 0, self._batch, now)
            if cursor is not None and cursor + 1 < page.oldest <= page.head:
                self._observer.count("cursor_expired")
                self._observer.warning("the feed no longer holds events after the cursor", cursor=cursor)
            self._observer.count("cursor_lag", page.head - (cursor or 0))
            if not page.events:
                return handled
            for task in dict.fromkeys(task_for(event.revocation) for event in page.events):
                queue_task(self._tasks, task)
            handled += len(page.events)
            if not self._cursors.move_cursor(cursor, page.events[-1].event_id):
                return handled  # another reader is further; it goes on from there
            self._observer.count("events_polled", len(page.events))
            if len(page.events) < self._batch:
                return handled


def queue_task(tasks: Revalidations, task: Task) -> None:
    """Queue a task, a user's once more for the index's sake."""
    tasks.queue(task)
    if task.kind is TaskKind.USER:
        tasks.queue(task, INDEX_LAG_S)
