"""An event is gone from the feed before it was read, so that nobody knows whom it concerned."""

from __future__ import annotations

from local_stack.drills.drill import Drill, Running
from local_stack.drills.looks import come_back, counted, ended, now_ms, receive, rotated, undisturbed, watched
from local_stack.relay_workers import REVALIDATION
from tidegate.domain.revocations import Task, TaskKind
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.tables import REVOCATIONS

#: How long the poll and what it begins may take, seconds. The full revalidation begins at once.
_ENDED_S = 30.0


async def drill(running: Running) -> None:
    smoke, seen = running.smoke, await watched(running)
    control = ControlPlaneProviders(smoke.environment())
    running.damage.switch_off_stream(REVOCATIONS)
    running.damage.pause_schedule()  # its polls would read the event
    since_ms, asked = now_ms(), await rotated(seen)
    running.damage.forget_newest_event()
    control.revalidations.queue(Task(TaskKind.POLL))
    await running.expects("a full revalidation ends the guest", ended(seen.guest, asked, _ENDED_S))
    await running.expects("it was counted", counted(running, REVALIDATION, since_ms, "cursor_expired"))
    await running.expects("the owner is not disturbed", undisturbed(seen.owner))
    # The cursor is behind what was lost: the next event is read as usual.
    await come_back(smoke, seen.scene, seen.guest)
    await receive(smoke, seen.scene, seen.guest)
    since_ms, asked = now_ms(), await rotated(seen)
    control.revalidations.queue(Task(TaskKind.POLL))
    await running.expects("the next poll ends the guest again", ended(seen.guest, asked, _ENDED_S))
    await running.expects("that event was read", counted(running, REVALIDATION, since_ms, "events_polled"))
    await running.put_right()
    await running.expects("the owner is sent values", receive(smoke, seen.scene, seen.owner))


DRILL = Drill("expired-cursor", "an event is gone from the feed before it was read, and nothing is pushed", 5, drill)
