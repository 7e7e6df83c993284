"""The processes of the relay die without a word."""

from __future__ import annotations

import asyncio
import time

from local_stack.checks import expect, settled
from local_stack.config import StackError
from local_stack.drills.drill import Drill, Running
from local_stack.drills.looks import counted, now_ms, undisturbed
from local_stack.relay_workers import REPLACED_S, REVALIDATION, START_S, LocalRelayWorkers
from local_stack.seed import LIVELY, stream
from local_stack.viewer import Viewer


async def drill(running: Running) -> None:
    smoke, workers = running.smoke, LocalRelayWorkers(running.smoke.stack)
    urls = {kind: f"{smoke.upstreams[f'{kind}_url']}{LIVELY}&run={time.time_ns()}" for kind in ("sse", "websocket")}
    viewers = {kind: await smoke.own(stream(kind, url, None, "telemetry")) for kind, url in urls.items()}
    running.damage.note_made()
    for viewer in viewers.values():
        await _again(viewer, 0.0)
    fences = {partition: workers.fence(partition) for partition in map(workers.partition_of, urls.values())}
    since_ms = now_ms()
    count, killed = workers.kill(), time.monotonic()
    if not count:
        raise StackError("No relay worker was killed: the emulator was not started by this stack.")

    print(f"  {count} processes of the relay were killed (SIGKILL)")
    claimed = killed
    for partition, fence in fences.items():
        await running.expects(
            f"another worker takes partition {partition}, within {REPLACED_S:.0f} s",
            _taken_over(workers, partition, fence, killed),
        )
        claimed = time.monotonic()
    for kind, viewer in viewers.items():
        await running.expects(f"who watches {kind} is sent values again", _again(viewer, claimed, killed))
        await running.expects(f"none of {kind} comes twice, and all in order", _in_order(viewer))
        await running.expects(f"who watches {kind} is told no error", undisturbed(viewer))
    await running.expects(
        "the worker that died is counted", counted(running, REVALIDATION, since_ms, "relay_workers_overdue")
    )


async def _taken_over(workers: LocalRelayWorkers, partition: int, fence: int, killed: float) -> str:
    await settled(lambda: workers.fence(partition) > fence, REPLACED_S, f"fence {fence} stays")
    return f"fence {fence}, then {workers.fence(partition)}, after {time.monotonic() - killed:.1f} s"


async def _again(viewer: Viewer, after: float, since: float | None = None) -> str:
    """A value that came after a moment. Moments are monotonic seconds; what is told counts from `since`."""
    found = await viewer.until(
        lambda frame: frame["type"] == "data" and frame["at"] > after and not frame.get("retained"), START_S
    )
    return f"after {found['at'] - (after if since is None else since):.1f} s"


async def _in_order(viewer: Viewer) -> str:
    await asyncio.sleep(0)
    numbers = [payload["n"] for payload in viewer.payloads("telemetry")]
    expect(numbers == sorted(set(numbers)), f"{numbers}")
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    return f"{len(numbers)} values, each once; {missing} gave way to newer ones"


DRILL = Drill("dead-relay", "every process of the relay is killed, without a word to anybody", 20, drill)
