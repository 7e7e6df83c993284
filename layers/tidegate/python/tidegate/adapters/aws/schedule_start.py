"""A run of the schedule that a viewer asks for, as an asynchronous invocation of the schedule's function."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.adapters.aws.invocations import Invocations
from tidegate.ports.schedule import ScheduleStart

_STARTED = "started"


class LambdaScheduleStart(ScheduleStart):
    """Starts the schedule's function between its minutes."""

    def __init__(self, schedule: Invocations) -> None:
        self._schedule = schedule

    def start(self) -> None:
        """Raises `Unavailable` when the invocation was not accepted."""
        self._schedule.invoke({_STARTED: True})


def is_start(event: Mapping[str, object]) -> bool:
    """Whether `LambdaScheduleStart.start` asked for this invocation. The schedule's own say nothing."""
    return bool(event.get(_STARTED))
