"""What is done in a minute of the schedule, and when.

Invariant of this file: at no second more is started than `STARTED_AT_ONCE`. A new account runs ten functions at the
same time, and the schedule leaves more than half of them to those who wait. So what can be apart is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tidegate.domain.activity import SCHEDULE_S
from tidegate.domain.revocations import Task, TaskKind

#: How often relay workers that died are looked for, seconds. It is short enough that one search falls between the time
#: when a dead worker's lease is overdue and the time when it may be claimed. So a successor is there by then. The
#: schedule itself asks for workers at second 0.
RELAYS_S = 10
#: How often subscriptions whose token has expired are looked for, seconds. Viewers are told within this time, and what
#: the queue and the run take.
EXPIRED_S = 10
#: The second of each minute at which the first of these runs: another one for each.
EXPIRED_AT_S, PROFILES_AT_S, FULL_AT_S = 3, 5, 8
#: The most that starts at one second: the schedule, a poll, and a worker for each of two relay partitions.
STARTED_AT_ONCE = 4


def tasks_of_minute(poll_interval_s: int) -> Iterator[tuple[int, Task]]:
    """The tasks of a minute, each with the second at which it is due. `poll_interval_s`: how often the feed is polled,
    1 to 60 seconds."""
    for second in range(0, SCHEDULE_S, poll_interval_s):
        yield second, Task(TaskKind.POLL)
    for second in range(EXPIRED_AT_S, SCHEDULE_S, EXPIRED_S):
        yield second, Task(TaskKind.EXPIRED)
    for second in range(RELAYS_S, SCHEDULE_S, RELAYS_S):
        yield second, Task(TaskKind.RELAYS)
    # The run's lease decides whether a full revalidation is due, so a schedule that fires twice changes nothing.
    yield FULL_AT_S, Task(TaskKind.FULL)


def tasks_between(start: int, end: int, zero: int, poll_interval_s: int) -> Iterator[tuple[int, Task]]:
    """The tasks that are due from `start` on and before `end`, each with when; all in epoch seconds.

    Two spans that touch have the tasks of one span. `zero`: a moment that is second 0 of a minute.
    """
    due = defaultdict[int, list[Task]](list)
    for second, task in tasks_of_minute(poll_interval_s):
        due[second].append(task)
    for moment in range(start, end):
        for task in due[(moment - zero) % SCHEDULE_S]:
            yield moment, task
