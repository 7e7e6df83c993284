"""The lives of relay workers: other settings and code, sudden death, hand-over time after time. They take a while."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

from local_stack.checks import expect, settled
from local_stack.relay_workers import API, MESSAGES, RELAY, REPLACED_S, START_S, LocalRelayWorkers
from local_stack.seed import LIVELY, origin, stream
from local_stack.smoke.client import Note, Smoke
from local_stack.smoke.rows import row
from local_stack.smoke.test_relay import only_one_upstream
from local_stack.viewer import Viewer
from tidegate.domain.relay import LEASE_S
from tidegate.usecases.relay.check_credentials import CHECK_S
from tidegate.usecases.relay.reading import REPLACE_S

#: Within which a changed secret has its own connection, and the old one has ended, seconds. Closing it may take two.
_REPLACED_S = CHECK_S + REPLACE_S + 2 + 3
#: More than the sixteen rounds after which platforms stop a function that calls itself.
HANDOVERS = 17
#: Messages a second meanwhile.
RATE = 100
#: The relay's time limit meanwhile, seconds. Five are its reserve, and 45 before the rest ends it asks for a successor.
LIMIT_S = 52
#: How long a hand-over may take on average, from one to the next, seconds.
_HANDOVER_S = 5.0


@row("relay: a protocol switched off while it runs", slow=True)
async def test_switched_off(smoke: Smoke, note: Note) -> None:
    """New subscribes are refused and running streams end, though their worker still runs by what it was started with;
    other protocols go on; switched on again, whoever stayed has data again."""
    workers, demo = LocalRelayWorkers(smoke.stack), smoke.stack["demo"]["public"]
    viewer, other = await smoke.watching("public", "sse"), await smoke.watching("public", "websocket")
    with workers.staying():
        await data_again(viewer, other)
        with workers.settings({"REALTIME_SSE_ENABLED": "false"}, MESSAGES, API, RELAY):
            started = time.monotonic()
            ack = await smoke.refused(smoke.mint(smoke.anonymous(), demo, "sse"), demo["dashboardId"], "sse")
            expect(ack.get("errorCode") == "STREAM_POLICY_BLOCKED", f"{ack}")
            await data_again(viewer)  # so it is the worker's end, not the gateway's, that ends it
            await (await smoke.watching("public", "websocket")).close()
            workers.schedule()
            error = await viewer.until(lambda frame: frame["type"] == "error", START_S + LEASE_S)
            expect(error["errorCode"] == "STREAM_POLICY_BLOCKED", f"{error}")
            await viewer.until(lambda frame: frame["type"] == "status" and frame["status"] == "error")
            await settled(lambda: smoke.control()["sse"]["now"] == 0, LEASE_S, "the end of the upstream")
            await data_again(other)
    workers.schedule()
    # The emulator killed the last workers. A renewal that was on its way then can keep a lease for the dead.
    await data_again(viewer, other, within_s=REPLACED_S)
    expect(not [frame for frame in other.frames if frame["type"] == "error"], "the other protocol was interrupted")
    await viewer.close()
    await other.close()
    note(f"{error['errorCode']}, running stream ended {error['at'] - started:.1f} s after the change")


@row("relay: new code takes over", slow=True)
async def test_new_code(smoke: Smoke, note: Note) -> None:
    """A worker of other code comes by the schedule and takes the partition. Values stay in order, none comes twice."""
    workers, url = LocalRelayWorkers(smoke.stack), smoke.upstreams["sse_url"] + LIVELY
    with workers.staying():
        viewer = await smoke.own(stream("sse", url, None, "telemetry"))
        await data_again(viewer)
        partition = workers.partition_of(url)
        fence, started = workers.fence(partition), time.monotonic()
        with workers.settings({"RELAY_CODE": "another"}, RELAY):
            workers.schedule()
            await settled(lambda: workers.fence(partition) > fence, START_S + LEASE_S, "another worker")
            took = time.monotonic() - started
            await data_again(viewer)
    expect(not [frame for frame in viewer.frames if frame["type"] == "error"], "the viewer was told an error")
    numbers = [payload["n"] for payload in viewer.payloads("telemetry")]
    expect(numbers == sorted(set(numbers)), f"numbers {numbers}")
    await viewer.close()
    note(f"taken over {took:.1f} s after the change, {len(numbers)} values in order")


async def data_again(*viewers: Viewer, within_s: float = START_S) -> None:
    """Each has data that came after now."""
    now = time.monotonic()
    for viewer in viewers:
        await viewer.until(
            lambda frame: frame["type"] == "data" and frame["at"] > now and not frame.get("retained"), within_s
        )


@row("relay: a changed credential is a new upstream", slow=True)
async def test_changed(smoke: Smoke, note: Note) -> None:
    """A changed secret changes the connection beneath the viewer, who stays. A wrong one is told as a fault, and the
    right one mends it."""
    admin, owner = smoke.user("admin"), smoke.user("editor")
    body: dict[str, Any] = {"name": f"changed {time.time_ns()}", "type": "bearer"}
    body["destinations"] = [origin(smoke.upstreams["sse_protected_url"])]
    secret = smoke.upstreams["secret"]
    path = "/api/credential-profiles"
    path += "/" + admin.call("POST", path, body | {"secret": {"token": secret}})["id"]
    url = f"{smoke.upstreams['sse_protected_url']}{LIVELY}&run={time.time_ns()}"
    demo = smoke.dashboard(stream("sse", url, path.rpartition("/")[2], "telemetry"))
    viewer = await smoke.viewer()
    ack = await viewer.subscribe(demo["dashboardId"], "telemetry", smoke.mint(owner, demo))
    expect(ack["ok"], f"subscribe refused: {ack}")
    await data_again(viewer)

    def change(token: str, revision: int) -> float:
        admin.call("PUT", path, body | {"secret": {"token": token}}, {"If-Match": str(revision)})
        return time.monotonic()

    def with_the_next() -> list[bool]:
        """Which secret the open connections came with; others than ours have the first one."""
        return [connection["next_secret"] for connection in smoke.control()["sse"]["open"]]

    others, changed_at = len(with_the_next()) - 1, change(f"{secret}-next", 1)
    await settled(lambda: with_the_next().count(True) == 1, _REPLACED_S, "a connection with the new secret")
    await settled(lambda: with_the_next().count(False) <= others, _REPLACED_S, "the end of the old connection")
    took = time.monotonic() - changed_at
    await data_again(viewer)
    expect(not [frame for frame in viewer.frames if frame["type"] == "error"], "the viewer was told an error")
    values = [frame["payload"]["n"] for frame in viewer.live("telemetry")]
    expect(values == list(range(values[0], values[0] + len(values))), f"values were lost or came twice: {values}")
    change("not the secret", 2)
    told = await viewer.until(lambda frame: frame["type"] == "status" and frame["status"] == "error", _REPLACED_S)
    expect(told["errorCode"] == "STREAM_AUTH_FAILED", f"{told}")
    change(secret, 3)
    await data_again(viewer)
    expect(len([frame for frame in viewer.frames if frame["type"] == "ack"]) == 1, "the viewer had to subscribe anew")
    await viewer.close()
    note(f"nobody noticed, the old connection ended after {took:.1f} s; a wrong secret is {told['errorCode']}")


@row("relay: killed in mid-stream", slow=True)
async def test_killed(smoke: Smoke, note: Note) -> None:
    """Workers that die without a word are replaced once their leases end, though nobody comes who would ask."""
    workers, url = LocalRelayWorkers(smoke.stack), smoke.upstreams["sse_url"] + LIVELY
    viewer = await smoke.own(stream("sse", url, None, "telemetry"))
    await viewer.until(lambda frame: frame["type"] == "data" and not frame.get("retained"))
    partition = workers.partition_of(url)
    fence = workers.fence(partition)
    count, started = workers.kill(), time.monotonic()
    if not count:
        note("left out: the emulator is not this stack's own")
        return
    await settled(lambda: workers.fence(partition) > fence, REPLACED_S, "another worker")
    claimed = time.monotonic()
    back = await viewer.until(lambda frame: frame["type"] == "data" and frame["at"] > claimed, START_S)
    numbers = [payload["n"] for payload in viewer.payloads("telemetry")]
    expect(numbers == sorted(set(numbers)), f"numbers {numbers}")
    await only_one_upstream(smoke)
    await viewer.close()
    note(f"{count} processes killed, data again after {back['at'] - started:.1f} s, 1 upstream")


@row(f"relay: {HANDOVERS} hand-overs in a row under load", slow=True)
async def test_handed_over(smoke: Smoke, note: Note) -> None:
    """Under load, without conflation that would hide a loss: nothing is lost, nothing comes twice, all is in order."""
    workers, loads = LocalRelayWorkers(smoke.stack), [os.getloadavg()[0]]
    # A stream of its own each time: one that was seen before would begin with what was missed since.
    url = f"{smoke.upstreams['sse_url']}?rate={RATE}&run={time.time_ns()}"
    with workers.settings({"REALTIME_MAX_UPDATES_PER_SECOND": "0"}, RELAY, timeout_s=LIMIT_S):
        viewer = await smoke.own(stream("sse", url, None, "telemetry"))
        workers.schedule()  # the gateway may have asked for a worker just before this one's settings were changed
        await data_again(viewer)
        partition = workers.partition_of(url)
        fence, started = workers.fence(partition), time.monotonic()
        within_s = HANDOVERS * _HANDOVER_S
        await settled(lambda: workers.fence(partition) >= fence + HANDOVERS, within_s, f"{HANDOVERS} hand-overs")
        ended = time.monotonic()
        await viewer.until(lambda frame: frame["type"] == "data" and frame["at"] > ended)
        count = workers.fence(partition) - fence
        numbers = [payload["n"] for payload in viewer.payloads("telemetry")]
        await viewer.close()
    loads.append(os.getloadavg()[0])
    odd = [pair for pair in itertools.pairwise(numbers) if pair[1] != pair[0] + 1]
    expect(not odd, f"{len(odd)} of {len(numbers)} not in sequence: {odd[:10]}")
    shown = f"{count} hand-overs in {ended - started:.0f} s, {len(numbers)} messages at {RATE} a second, each once"
    note(f"{shown}; load {loads[0]:.1f} to {loads[1]:.1f} on {os.cpu_count()} cores")
