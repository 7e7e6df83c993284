"""Queue the tasks of the schedule for a minute, while somebody is connected.

A run queues what is due until the next one. The state says how far that is, so of two runs for the same time one queues
its tasks, and a run that was started between two of the schedule is joined by the next without a gap.

Why a viewer is never without these tasks: see `usecases.gateway.wake_schedule`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tidegate.domain.activity import ACTIVE_S, AHEAD_S, IDLE_S, SCHEDULE_S, ScheduleState
from tidegate.domain.minutes import FULL_AT_S, tasks_between
from tidegate.domain.revocations import Task, TaskKind
from tidegate.ports.revocation import RevalidationQueue
from tidegate.ports.runtime import Clock
from tidegate.ports.schedule import ScheduleStates

#: How often the state is read again because a viewer, or another run, wrote it meanwhile.
_ROUNDS = 8


class Queued(NamedTuple):
    """What a run did: whether somebody may be connected, and how many tasks it queued."""

    active: bool
    tasks: int


class QueueTasks:
    """A run of the schedule."""

    def __init__(
        self,
        *,
        states: ScheduleStates,
        connected: Callable[[], bool],
        tasks: RevalidationQueue,
        poll_interval_s: int,
        clock: Clock,
    ) -> None:
        """`connected`: whether there is any connection, read consistently. `poll_interval_s`: 1 to 60."""
        self._states = states
        self._connected = connected
        self._tasks = tasks
        self._poll_interval_s = poll_interval_s
        self._clock = clock

    def __call__(self, *, started: bool = False) -> Queued:
        """Queue what is due. `started`: a viewer asked for this run; it is not one of the schedule's own.

        Raises:
            Unavailable: a store or the queue did not answer. The next run goes on from there.
        """
        for _ in range(_ROUNDS):
            now, seen = int(self._clock.now()), self._states.read()
            connected = started or self._connected()
            active = connected or now < seen.active_until
            if not active and now < seen.queued_until + IDLE_S:
                return Queued(False, 0)
            begin, gap = max(now, seen.queued_until), seen.queued_until < now
            end = now + SCHEDULE_S + AHEAD_S if active else now + 1
            if begin >= end:
                return Queued(active, 0)
            # The schedule's own second. It stays while nothing interrupts the tasks, so that none comes late by it.
            zero = now if gap and not started else seen.zero or now
            stays = max(seen.active_until, now + ACTIVE_S) if connected else seen.active_until
            # First the state: who moved it has the span, and nobody else queues it.
            if not self._states.move(seen, ScheduleState(stays, end, zero)):
                continue
            return Queued(active, self._queue(now, range(begin, end), zero, active=active, gap=gap))
        return Queued(active, 0)

    def _queue(self, now: int, span: range, zero: int, *, active: bool, gap: bool) -> int:
        due = list(tasks_between(span.start, span.stop, zero, self._poll_interval_s)) if active else []
        if not active:
            due = [(now, Task(TaskKind.POLL)), (now + FULL_AT_S, Task(TaskKind.FULL))]
        elif gap and (now, Task(TaskKind.POLL)) not in due:
            due.append((now, Task(TaskKind.POLL)))  # nobody polled before
        for moment, task in due:
            self._tasks.queue(task, moment - now)
        return len(due)
