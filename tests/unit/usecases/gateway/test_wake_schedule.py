"""Before a subscription begins: whether the schedule is asked, started or left alone."""

from __future__ import annotations

import pytest

from tests.doubles.platform import ManualClock, MemoryObserver
from tidegate.domain.activity import LEAD_S, ScheduleState
from tidegate.errors import Unavailable
from tidegate.usecases.gateway.wake_schedule import WakeSchedule


class Platform:
    """The state, and what was asked."""

    def __init__(self, active_s: int) -> None:
        self.clock, self.observer = ManualClock(), MemoryObserver()
        self.state: ScheduleState | None = ScheduleState(int(self.clock.now()) + active_s)
        self.reads, self.starts, self.answers = 0, 0, True
        self.wake = WakeSchedule(states=self, schedule=self, clock=self.clock, observer=self.observer)

    def read(self) -> ScheduleState:
        self.reads += 1
        if self.state is None:
            raise Unavailable("the store did not answer")
        return self.state

    def move(self, seen: ScheduleState, to: ScheduleState) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        self.starts += 1
        if not self.answers:
            raise Unavailable("not accepted")


def test_a_process_reads_once_while_the_schedule_is_active() -> None:
    platform = Platform(600)
    for _ in range(5):
        platform.wake()
        platform.clock.advance((600 - LEAD_S) / 5)
    assert (platform.reads, platform.starts) == (1, 0)
    platform.clock.advance(1)
    platform.wake()
    assert (platform.reads, platform.starts) == (2, 1), "what it knows is too old to rely on"


@pytest.mark.parametrize("active_s", [-1_800_000_000, -1, 0, LEAD_S - 1])
def test_it_is_started_until_the_state_says_so(active_s: int) -> None:
    platform = Platform(active_s)
    platform.wake()
    platform.wake()
    assert (platform.reads, platform.starts) == (2, 2)
    platform.state = ScheduleState(int(platform.clock.now()) + 600)
    platform.wake()
    platform.wake()
    assert (platform.reads, platform.starts) == (3, 2)


def test_a_start_that_is_not_accepted_refuses_nobody() -> None:
    platform = Platform(0)
    platform.answers = False
    platform.wake()
    assert [message for message, _ in platform.observer.faults] == ["schedule not started"]


def test_what_cannot_be_known_is_not_taken_for_active() -> None:
    platform = Platform(600)
    platform.state = None
    with pytest.raises(Unavailable):
        platform.wake()
    assert platform.starts == 0
