"""Runs of the schedule: what each queues, while somebody is connected and while nobody is, on time and late."""

from __future__ import annotations

from collections import Counter
from itertools import chain, pairwise

import pytest

from tests.doubles.platform import ManualClock
from tidegate.domain.activity import ACTIVE_S, AHEAD_S, IDLE_S, SCHEDULE_S, ScheduleState
from tidegate.domain.minutes import tasks_between, tasks_of_minute
from tidegate.domain.revocations import Task, TaskKind
from tidegate.usecases.revocation.queue_tasks import Queued, QueueTasks

NOW = int(ManualClock().now())


class Schedule:
    """A schedule over memory. `others` is called between reading the state and writing it."""

    def __init__(self, poll_interval_s: int = 30) -> None:
        self.clock, self.connected = ManualClock(), True
        self.state, self.moves = ScheduleState(), 0
        self.queued: list[tuple[int, Task]] = []
        self.interrupted: list[ScheduleState] = []
        self.run = QueueTasks(
            states=self,
            connected=lambda: self.connected,
            tasks=self,
            poll_interval_s=poll_interval_s,
            clock=self.clock,
        )

    def read(self) -> ScheduleState:
        return self.state

    def move(self, seen: ScheduleState, to: ScheduleState) -> bool:
        if self.interrupted:
            self.state = self.interrupted.pop()
        if seen != self.state:
            return False
        self.state, self.moves = to, self.moves + 1
        return True

    def queue(self, task: Task, delay_s: int = 0) -> None:
        self.queued.append((int(self.clock.now()) + delay_s, task))

    def moments(self, kind: TaskKind) -> list[int]:
        return sorted(moment - NOW for moment, task in self.queued if task.kind is kind)


@pytest.mark.parametrize("poll_interval_s", [1, 7, 30, 60])
def test_spans_that_touch_have_the_tasks_of_one(poll_interval_s: int) -> None:
    whole = list(tasks_between(NOW, NOW + 180, NOW, poll_interval_s))
    cuts = [0, 1, 8, 59, 60, 61, 150, 180]
    parts = [list(tasks_between(NOW + a, NOW + b, NOW, poll_interval_s)) for a, b in pairwise(cuts)]
    assert list(chain.from_iterable(parts)) == whole
    assert len(whole) == 3 * len(list(tasks_of_minute(poll_interval_s)))


def test_minutes_on_time_and_late_leave_no_gap_and_no_second_task() -> None:
    schedule = Schedule()
    for late_s in (0, 4, -2, 0, AHEAD_S, 0):
        schedule.clock.advance(late_s)
        assert schedule.run().active
        schedule.clock.advance(SCHEDULE_S - late_s)
    end = 6 * SCHEDULE_S + AHEAD_S - 10
    assert [moment for moment in schedule.moments(TaskKind.EXPIRED) if moment < end] == list(range(3, end, 10))
    assert [moment for moment in schedule.moments(TaskKind.POLL) if moment < end] == list(range(0, end, 30))
    assert max(Counter(schedule.queued).values()) == 1


@pytest.mark.parametrize("after_s", [2, 17, 55, 60])
def test_a_run_that_a_viewer_starts_and_those_of_the_schedule_are_one_chain(after_s: int) -> None:
    """The schedule found nobody, somebody comes, and others come at the same time. Then the schedule comes again."""
    schedule = Schedule()
    schedule.connected = False
    schedule.run()
    assert schedule.state.zero == NOW
    schedule.queued.clear()
    schedule.clock.advance(after_s)
    assert [schedule.run(started=True).tasks > 0 for _ in range(3)] == [True, False, False]
    schedule.connected = True
    for minute in (1, 2):
        schedule.clock.advance(NOW + minute * SCHEDULE_S - schedule.clock.now())
        schedule.run()
    looks = schedule.moments(TaskKind.EXPIRED)
    assert after_s <= looks[0] <= after_s + 10 and looks == list(range(looks[0], looks[-1] + 1, 10))
    polls = schedule.moments(TaskKind.POLL)
    assert polls[0] == after_s, "nobody polled before"
    assert all(later - earlier <= 30 for earlier, later in pairwise(polls))
    assert max(Counter(schedule.queued).values()) == 1


def test_it_goes_on_for_a_while_and_then_rests() -> None:
    schedule = Schedule()
    schedule.run()
    schedule.connected = False
    for _ in range(ACTIVE_S // SCHEDULE_S - 1):
        schedule.clock.advance(SCHEDULE_S)
        assert schedule.run().active
    schedule.clock.advance(SCHEDULE_S)
    before = schedule.moves
    assert schedule.run() == Queued(False, 0) and schedule.moves == before, "it costs no write"
    schedule.connected = True
    schedule.clock.advance(SCHEDULE_S)
    assert schedule.run().active, "a viewer whose start was lost"


def test_twice_a_day_it_asks_for_what_removes_what_crashes_left() -> None:
    schedule = Schedule()
    schedule.connected = False
    ran = []
    for second in range(0, 2 * IDLE_S + SCHEDULE_S, SCHEDULE_S):
        schedule.run()
        ran += [second] if schedule.queued else []
        kinds = {task.kind for _, task in schedule.queued}
        assert kinds in (set(), {TaskKind.POLL, TaskKind.FULL})
        schedule.queued.clear()
        schedule.clock.advance(SCHEDULE_S)
    assert ran == [0, IDLE_S + SCHEDULE_S]


def test_who_was_overtaken_looks_again() -> None:
    """Another run has queued most of the time: what is left is queued, and nothing twice."""
    schedule = Schedule()
    schedule.interrupted = [ScheduleState(NOW + 600, NOW + SCHEDULE_S, NOW)]
    assert schedule.run().active
    assert {moment - NOW for moment, _ in schedule.queued} == {60, 63, 68}
