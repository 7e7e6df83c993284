"""How long the schedule goes on when somebody is connected, and what is known of it."""

from __future__ import annotations

from typing import NamedTuple

#: Interval of the schedule, seconds. EventBridge Scheduler calls at most once a minute. More frequent polls are
#: messages that are queued with a delay.
SCHEDULE_S = 60
#: How far beyond the next run of the schedule a run queues tasks, seconds. So a run that comes late leaves no gap.
AHEAD_S = 10
#: How long the schedule goes on after it last found a connection, or a viewer started it, seconds. It is longer than
#: the usual interval of full revalidations, so that one of them finds that everybody has left.
ACTIVE_S = 600
#: Who knows that the schedule goes on for less than this does not rely on it, seconds. It is more than clocks differ.
LEAD_S = 30
#: How often the feed is polled and a full revalidation asked for while nobody is connected, seconds: twice a day.
#: Nobody waits for either. They remove what crashes left behind, and an event is kept for a day.
IDLE_S = 43_200


class ScheduleState(NamedTuple):
    """How far the schedule is. Times are epoch seconds; 0 before the first.

    Attributes:
        active_until: until then every run of the schedule queues its tasks, whoever is connected.
        queued_until: the tasks that are due before this are queued.
        zero: a moment that is second 0 of the schedule's minute.
    """

    active_until: int = 0
    queued_until: int = 0
    zero: int = 0
