"""The stream of the revocation table leads nowhere, so that nothing is pushed."""

from __future__ import annotations

import asyncio

from local_stack.checks import expect
from local_stack.drills.drill import Drill, Running
from local_stack.drills.looks import Watched, come_back, counted, ended, now_ms, receive, rotated, undisturbed, watched
from local_stack.relay_workers import REVALIDATION, LocalRelayWorkers
from local_stack.smoke.client import Smoke
from tidegate.tables import REVOCATIONS

#: How long a task may take from the queue until the viewer is told, seconds. On AWS it is a fraction of one.
_TASK_S = 10.0
#: For how long delivery may still send to who lost the right, seconds: invariant of the product.
_DATA_S = 1.0


async def drill(running: Running) -> None:
    smoke, interval_s = running.smoke, running.damage.poll_interval_s()
    # A stack that was just started polls from its next minute on.
    await asyncio.to_thread(LocalRelayWorkers(smoke.stack).schedule)
    seen = await watched(running)
    running.damage.switch_off_stream(REVOCATIONS)
    since_ms, asked = now_ms(), await rotated(seen)
    await running.expects("a second later the guest is sent nothing", _withheld(smoke, seen))
    await running.expects(
        f"a poll ends the guest: polls are {interval_s:.0f} s apart", ended(seen.guest, asked, interval_s + _TASK_S)
    )
    await running.expects("the event was polled", counted(running, REVALIDATION, since_ms, "events_polled"))
    await running.expects("the owner is not disturbed", undisturbed(seen.owner))
    await running.put_right()
    await come_back(smoke, seen.scene, seen.guest)
    await receive(smoke, seen.scene, seen.guest)
    asked = await rotated(seen)
    await running.expects("with the mapping, the push ends the guest", ended(seen.guest, asked, _TASK_S))
    await running.expects("the owner is sent values", receive(smoke, seen.scene, seen.owner))


async def _withheld(smoke: Smoke, seen: Watched) -> str:
    """What is published a second after the change reaches the owner, and never the guest."""
    await asyncio.sleep(_DATA_S)  # the very second that the product promises
    published = smoke.payload()
    await smoke.publish(seen.scene.topic, published)
    await seen.owner.data(published)
    expect(not [frame for frame in seen.guest.frames if frame.get("payload") == published], "the guest was sent data")
    return "the owner was sent it, the guest was not"


DRILL = Drill("lost-stream-mapping", "the stream of the revocation table leads nowhere: nothing is pushed", 10, drill)
