"""The short history of datasources that ask for one."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from local_stack.checks import expect, settled
from local_stack.seed import LIVELY, OWN, Api, mqtt, stream
from local_stack.smoke.client import Note, Smoke
from local_stack.smoke.rows import row
from local_stack.viewer import Viewer

HISTORY = {"seconds": 600, "everyMs": 1000}
#: How long the relay may take to write what it gathered, seconds: five, and the write on a busy machine.
_WRITTEN_S = 15.0
#: How long after the first subscribe a history is known to be whole, seconds, and some more for whole seconds.
_KNOWN_S = 5.0
#: How long the last frame of what was missed may take, seconds: five looks, three seconds apart, and cold starts.
_ENDED_S = 30.0


def read(smoke: Smoke, made: Mapping[str, Any], datasource: str, token: str, **query: str) -> list[dict[str, Any]]:
    """All points of a datasource, the newest first."""
    asked = urlencode({"datasourceId": datasource, **query})
    api = Api(smoke.stack["edge_url"], token, smoke.address())
    return list(api.call("GET", f"/api/dashboards/{made['id']}/history?{asked}")["points"])


def board(smoke: Smoke) -> tuple[dict[str, Any], str]:
    """A dashboard of a device and of a stream of the relay, both with a history, and a session token for it."""
    sources = [
        mqtt("device", smoke.stack["demo"]["brokers"]["public"], f"{OWN}/kept"),
        stream("sse", smoke.upstreams["sse_url"] + LIVELY, datasource_id="relay"),
    ]
    for source in sources:
        source["settings"]["history"] = HISTORY
    editor = smoke.user("editor")
    body = {"document": {"schemaVersion": 1, "title": "History", "datasources": sources}}
    made: dict[str, Any] = editor.call("POST", "/api/dashboards", body)
    return made, str(editor.call("POST", f"/api/dashboards/{made['id']}/session", {})["token"])


async def watching(smoke: Smoke, made: Mapping[str, Any], token: str, names: Sequence[str]) -> Viewer:
    viewer = await smoke.viewer()
    for name in names:
        ack = await viewer.subscribe(made["id"], name, token)
        expect(ack["ok"], f"{ack}")
    return viewer


@row("history of a late viewer")
async def test_late_viewer(smoke: Smoke, note: Note) -> None:
    made, token = board(smoke)
    first = await watching(smoke, made, token, ["device", "relay"])
    for number in (5, 9, 2):  # each is seen before the next: what gives way to a newer value is not kept
        await smoke.publish(f"{OWN}/kept", str(number))
        await first.data(number)
    await first.received("relay", 5)
    seen = first.live("relay")[-1]["seq"]
    points = await asyncio.to_thread(read, smoke, made, "device", token)
    least, most = min(point["least"] for point in points), max(point["most"] for point in points)
    expect((least, most, points[0]["last"]) == (2, 9, 2), f"{points}")
    shown: list[dict[str, Any]] = []

    def written() -> bool:
        shown[:] = read(smoke, made, "relay", token)
        return bool(shown) and shown[0]["seq"] >= seen

    await settled(written, _WRITTEN_S, "the points of the relay")
    note(f"{len(points)} points of a device, {len(shown)} of the relay")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("device", marks=row("gap filled after an interruption")),
        pytest.param("relay", marks=row("gap filled after an interruption, of the relay", slow=True)),
    ],
)
async def test_gap(smoke: Smoke, note: Note, name: str) -> None:
    """A viewer comes back. Whatever another one saw meanwhile, this one has: in a point or as it came."""
    made, token = board(smoke)
    staying, leaving = await watching(smoke, made, token, [name]), await watching(smoke, made, token, [name])
    lively = asyncio.create_task(_publish_on(smoke)) if name == "device" else None
    try:
        # What is kept is known to be whole from a moment after the first subscribe on.
        began = time.monotonic()
        await leaving.until(lambda frame: frame["type"] == "data" and frame["at"] > began + _KNOWN_S)
        since = leaving.live(name)[-1]["seq"]
        await leaving.close()
        await staying.received(name, len(staying.live(name)) + 10)
        back = await smoke.viewer()
        asked = {"type": "subscribe", "dashboardId": made["id"], "sessionToken": token}
        ack = await back.ask({**asked, "datasourceIds": [name], "since": {name: since}})
        expect(ack["recovered"] is True, f"{ack}")
        end = await back.until(lambda frame: bool(frame.get("end")), _ENDED_S)
        expect(end["recovered"] is True, f"{end}")
        await back.received(name, len(back.live(name)) + 3)
    finally:
        if lively is not None:
            lively.cancel()
    points = [point for frame in back.frames if frame["type"] == "history" for point in frame["points"]]
    last = {datetime.fromisoformat(point["at"]).timestamp(): point["seq"] for point in points}
    came = {frame["seq"] for frame in back.frames if frame["type"] == "data"}
    wanted = [frame["seq"] for frame in staying.live(name) if since < frame["seq"] <= max(came)]
    missing = [seq for seq in wanted if seq not in came and last.get(int(seq[:15]) // 1000, "") < seq]
    expect(len(wanted) > 10 and not missing, f"{len(missing)} of {len(wanted)} are missing: {missing[:3]}, {points}")
    note(f"{len(wanted)} values, {len(last)} points")


async def _publish_on(smoke: Smoke) -> None:
    """Five values a second."""
    for number in itertools.count():
        await smoke.publish(f"{OWN}/kept", str(number))
        await asyncio.sleep(0.2)
