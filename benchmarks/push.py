"""From the commit of a rotation until real viewers are notified, through the whole local stack.

Seconds are this machine's: one emulator process stores every claim and carries every message. Nothing here is a figure
of AWS.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import Cell, Figure, Table
from benchmarks.progress import step
from local_stack.config import Config
from local_stack.seed import OWN, Api, document, mqtt
from local_stack.up import down, up
from local_stack.viewer import Viewer

#: Handshakes and subscribes under way at the same time.
_ARRIVING = 4
#: How long a viewer may wait to be notified, and to be disconnected, seconds.
_PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class Size:
    """How many viewers one dashboard has."""

    viewers: int


FULL = Size(viewers=1_000)
SMALL = Size(viewers=5)


def run(config: Config, size: Size) -> list[Table]:
    """From the answer to a rotation until the last of many real viewers is notified."""
    unlimited = str(10**6)
    settings = {
        "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN": unlimited,
        "DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN": unlimited,
        "REALTIME_MAX_CONNECTIONS_PER_DASHBOARD": str(size.viewers),
    }
    stack = up(config, settings)
    try:
        return [asyncio.run(_push(stack, size))]
    finally:
        down(config)


async def _push(stack: Mapping[str, Any], size: Size) -> Table:
    admin, editor = (
        Api.login(stack["edge_url"], stack["users"][who]["email"], stack["users"][who]["password"])
        for who in ("admin", "editor")
    )
    profile = {"name": "bench", "transport": "iot-core", "allowPublicUse": True}
    broker = admin.call("POST", "/api/broker-profiles", profile)["id"]
    made = editor.call("POST", "/api/dashboards", document("Bench", [mqtt("telemetry", broker, f"{OWN}/bench")]))
    path = f"/api/dashboards/{made['id']}"
    made = editor.call("PUT", f"{path}/visibility", {"visibility": "link"})
    body = {"dashboardId": made["id"], "datasourceId": "telemetry", "shareToken": made["shareToken"]}
    token = Api(stack["edge_url"], address="127.9.0.1").call("POST", "/api/datasource-sessions", body)["token"]
    gate = asyncio.Semaphore(_ARRIVING)
    with step("viewers arrive", size.viewers) as progress:

        async def arrive(number: int) -> Viewer:
            async with gate:
                address = f"127.9.{1 + number // 250}.{1 + number % 250}"
                viewer = await Viewer.open(stack["websocket_url"], address=address)
                ack = await viewer.subscribe(made["id"], "telemetry", token)
                assert ack["ok"], ack
                progress.advance()
                return viewer

        viewers = await asyncio.gather(*(arrive(number) for number in range(size.viewers)))
    with step("share token rotated, viewers are notified", size.viewers) as progress:

        async def notified(viewer: Viewer) -> float:
            frame = await viewer.until(lambda frame: frame["type"] == "error", _PATIENCE_S)
            progress.advance()
            return float(frame["at"])

        await asyncio.to_thread(editor.call, "POST", f"{path}/share-token:rotate")
        committed = time.monotonic()  # the answer is here; the commit was some milliseconds before
        times = await asyncio.gather(*(notified(viewer) for viewer in viewers))
    after = sorted(max(0.0, at - committed) * 1000 for at in times)
    # A connection stays open when its subscriptions have ended.
    await asyncio.gather(*(viewer.close() for viewer in viewers))
    figures = {"first": after[0], "median": statistics.median(after), "p95": after[int(len(after) * 0.95)]}
    figures["last"] = after[-1]
    row: tuple[Cell, ...] = (
        f"{size.viewers:,} viewers, push path",
        *(Figure(figure, ",.0f") for figure in figures.values()),
    )
    return Table(("rotation until notified, ms", *figures), [row])
