"""The platform takes no more messages to viewers: it answers 429."""

from __future__ import annotations

import asyncio
import time

from infra.concurrency import visibility_s
from local_stack.checks import expect
from local_stack.drills.busy_platform import BusyPlatform
from local_stack.drills.drill import Drill, Running
from local_stack.drills.looks import Watched, counted, now_ms, receive, receive_again, undisturbed, watched
from local_stack.relay_workers import BRIDGE, CATCH_UP
from tidegate.adapters.aws.catch_up_queue import DELAY_S

#: How many values are published meanwhile, and the pause between two of them, seconds.
_VALUES, _PAUSE_S = 6, 0.2
#: How long the newest value may take after the platform takes messages again, seconds: at once while the bridge still
#: tries, and else by the catch-up. One that was refused, too, comes again after the visibility timeout of its queue.
_NEWEST_S = DELAY_S + visibility_s(CATCH_UP) + 12.0


async def drill(running: Running) -> None:
    smoke, seen = running.smoke, await watched(running)
    platform = BusyPlatform(smoke.stack["emulator_url"])
    try:
        for handler in (BRIDGE, CATCH_UP):
            running.damage.redirect(handler, "AWS_ENDPOINT_URL_EXECUTE_API", platform.url)
        await receive_again(smoke, seen.scene, seen.guest, seen.owner)
        since_ms = now_ms()
        platform.busy.set()
        values = await _published(running, seen)
        await running.expects(
            "the bridge tries again, and gives up",
            counted(running, BRIDGE, since_ms, "deliveries", outcome="throttled"),
        )
        await running.expects("nobody is sent a value meanwhile", _none(seen, values))
        platform.busy.clear()
        cleared = time.monotonic()
        await running.expects("the newest value comes by itself", _newest(seen, values, cleared))
        await running.expects("older ones give way, and none comes after a newer one", _in_order(seen, values))
        await running.expects("the next value comes as usual", receive(smoke, seen.scene, seen.guest, seen.owner))
        await running.expects("nobody is told an error", undisturbed(seen.guest))
        await running.put_right()
    finally:
        platform.close()
    await running.expects("repaired, a value comes", receive_again(smoke, seen.scene, seen.guest))


async def _published(running: Running, seen: Watched) -> list[object]:
    """Values that were published one after the other, the newest last."""
    values: list[object] = []
    for _ in range(_VALUES):
        values.append(running.smoke.payload())
        await running.smoke.publish(seen.scene.topic, values[-1])
        await asyncio.sleep(_PAUSE_S)
    return values


async def _none(seen: Watched, values: list[object]) -> str:
    came = [frame for viewer in (seen.guest, seen.owner) for frame in viewer.frames if frame.get("payload") in values]
    expect(not came, f"{came}")
    return "none came"


async def _newest(seen: Watched, values: list[object], cleared: float) -> str:
    frames = [await viewer.data(values[-1], _NEWEST_S) for viewer in (seen.guest, seen.owner)]
    return f"{max(frame['at'] for frame in frames) - cleared:.1f} s after the platform took messages again"


async def _in_order(seen: Watched, values: list[object]) -> str:
    shown = []
    for viewer in (seen.guest, seen.owner):
        places = [values.index(frame["payload"]) for frame in viewer.frames if frame.get("payload") in values]
        expect(places == sorted(places), f"values {places} of {len(values)}")
        shown.append(str(len(set(places))))
    return f"of {len(values)} values the viewers were sent {' and '.join(shown)}"


DRILL = Drill(
    "throttled-platform",
    "the platform answers 429 to each message that the bridge or a catch-up sends to a viewer",
    20,
    drill,
)
