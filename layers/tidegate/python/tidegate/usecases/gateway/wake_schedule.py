"""See to it that the schedule's tasks are queued before a subscription begins.

While nobody is connected, the schedule queues no looks at what has expired, no polls, and no looks for dead relay
workers. A viewer who comes needs them within seconds, and the schedule comes once a minute. So the first viewer starts
it between two minutes.

Why nobody is left without these tasks:

- A subscription has a connection, whose row was there before this is asked. So every run of the schedule that comes
  later finds it, and queues the tasks of the next minute.
- Until then they are queued if the schedule is active now: a run stops being so only when it found no connection, at
  the moment until which it said to be active, or later.
- This is asked before the row is put. A process that dies in between leaves nobody who needs the tasks.
"""

from __future__ import annotations

from tidegate.domain.activity import LEAD_S
from tidegate.errors import Unavailable
from tidegate.ports.runtime import Clock, Observer
from tidegate.ports.schedule import ScheduleStart, ScheduleStates


class WakeSchedule:
    """Asked before each new subscription. A process reads the state once in some minutes, and writes nothing."""

    def __init__(self, *, states: ScheduleStates, schedule: ScheduleStart, clock: Clock, observer: Observer) -> None:
        self._states = states
        self._schedule = schedule
        self._clock = clock
        self._observer = observer
        self._active_until = 0

    def __call__(self) -> None:
        """Raises `Unavailable` when it cannot be known whether the schedule is active: then nobody may subscribe."""
        now = self._clock.now()
        if self._active_until - now >= LEAD_S:
            return
        self._active_until = self._states.read().active_until
        if self._active_until - now >= LEAD_S:
            return
        try:
            self._schedule.start()
        except Unavailable as error:  # the schedule finds the connection within a minute
            self._observer.fault("schedule not started", error)
