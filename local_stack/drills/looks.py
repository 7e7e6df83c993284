"""What several drills look at. Each look returns what was seen, and raises when it is not what is expected."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from local_stack.checks import expect, settled
from local_stack.drills.drill import Running
from local_stack.smoke.client import Smoke
from local_stack.smoke.scene import Scene
from local_stack.viewer import Frame, Viewer

#: How long a value may take to its viewers, seconds. The product promises less: a machine that is busy has to be no
#: reason why a drill does not hold.
VALUE_S = 15.0
#: How long functions that were changed may take to the first value, and each value meanwhile, seconds.
_STARTED_S, _AGAIN_S = 60.0, 10.0
#: How long after an invocation its lines may be in the log, seconds.
LOGGED_S = 15.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A dashboard that is shared by link, and whom it sends values: a guest and the owner."""

    scene: Scene
    guest: Viewer
    owner: Viewer


async def watched(running: Running) -> Watched:
    """A dashboard of the drill's own, with a guest and its owner, who have been sent a value."""
    smoke = running.smoke
    scene = Scene(smoke, "link")
    running.damage.note_made()
    guest = await smoke.subscribed(smoke.mint(smoke.anonymous(), scene.demo), scene.demo)
    owner = await smoke.subscribed(smoke.mint(scene.owner, {"dashboardId": scene.demo["dashboardId"]}), scene.demo)
    await receive(smoke, scene, guest, owner)
    return Watched(scene, guest, owner)


async def come_back(smoke: Smoke, scene: Scene, guest: Viewer) -> None:
    """The guest subscribes anew on the same connection, by the link as it is now."""
    token = smoke.mint(smoke.anonymous(), scene.demo)
    ack = await guest.subscribe(scene.demo["dashboardId"], "telemetry", token)
    expect(ack["ok"], f"subscribe refused: {ack}")


async def receive(smoke: Smoke, scene: Scene, *viewers: Viewer, within_s: float = VALUE_S) -> str:
    """A value that the device publishes now reaches the viewers."""
    wanted, started = smoke.payload(), time.monotonic()
    await smoke.publish(scene.topic, wanted)
    frames = [await viewer.data(wanted, within_s) for viewer in viewers]
    return f"after {max(frame['at'] for frame in frames) - started:.1f} s"


async def receive_again(smoke: Smoke, scene: Scene, *viewers: Viewer) -> str:
    """The same after functions were changed: the emulator ends their workers, with the call that they were making. So a
    value is published again and again, until one has come."""
    started = time.monotonic()
    while True:
        try:
            await receive(smoke, scene, *viewers, within_s=_AGAIN_S)
        except TimeoutError:
            expect(time.monotonic() - started < _STARTED_S, f"no value within {_STARTED_S:.0f} s")
        else:
            return f"after {time.monotonic() - started:.1f} s, in which functions start anew"


async def rotated(watched: Watched) -> float:
    """Rotate the share token, by which the guest lost the right. Returns when it was asked for, monotonic seconds."""
    asked, scene = time.monotonic(), watched.scene
    dashboard = await asyncio.to_thread(scene.change, "POST", "share-token:rotate")
    scene.demo["shareToken"] = dashboard["shareToken"]
    return asked


async def ended(viewer: Viewer, asked: float, within_s: float) -> str:
    """The viewer is told, within seconds of `asked` (monotonic), that the right is lost."""
    error = await viewer.until(lambda frame: _is_error(frame) and frame["at"] > asked, within_s)
    expect(error["errorCode"] == "STREAM_AUTH_FAILED" and error["retryable"] is False, f"{error}")
    return f"{error['errorCode']} after {error['at'] - asked:.1f} s"


async def undisturbed(viewer: Viewer) -> str:
    """The viewer was told no error, and the connection is open."""
    errors = [frame for frame in viewer.frames if _is_error(frame)]
    expect(not errors, f"{errors}")
    await viewer.open_still()
    return "no error, connection open"


async def counted(running: Running, handler: str, since_ms: int, metric: str, **dimensions: str) -> str:
    """The function counted the metric since (epoch milliseconds), with these values of dimensions."""
    total = 0

    def there() -> bool:
        nonlocal total
        lines = [line for line in running.damage.logged(handler, since_ms) if metric in line]
        fit = [line for line in lines if all(line.get(name) == value for name, value in dimensions.items())]
        total = sum(int(line[metric]) for line in fit)
        return total > 0

    await settled(there, LOGGED_S, f"{metric} of {handler} is 0")
    return f"{metric} {total}"


def now_ms() -> int:
    """Epoch milliseconds."""
    return int(time.time() * 1000)


def _is_error(frame: Frame) -> bool:
    return bool(frame["type"] == "error")
