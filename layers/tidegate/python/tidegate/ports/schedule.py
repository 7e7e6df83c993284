"""How far the schedule is, and how a viewer who comes starts it. Conventions: see `ports.runtime`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tidegate.domain.activity import ScheduleState


class ScheduleStates(Protocol):
    """How far the schedule is."""

    def read(self) -> ScheduleState:
        """As it is now. Strongly consistent."""

    def move(self, seen: ScheduleState, to: ScheduleState) -> bool:
        """Write it, conditional on what was seen. False when somebody wrote it meanwhile."""


class ScheduleStart(Protocol):
    """Starts a run of the schedule between its minutes."""

    def start(self) -> None:
        """Let the tasks of a minute from now on be queued soon. Repeated and needless calls are harmless."""
