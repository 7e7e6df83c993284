"""What a full board costs the device that shows it: panes that all change, in headless Chromium.

`web/bench/board.ts` plays the API and the WebSocket through the browser's debugger, so no server takes part.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import Figure, Table
from benchmarks.progress import step
from infra import web_build
from local_stack.config import Config, StackError

#: What a board may take of one core, and how long one task may hold the page, milliseconds.
AIM_CORE, AIM_TASK_MS = 0.30, 200

_BROWSERS = ("chromium", "google-chrome")
#: Above what it measures: a browser that starts, and a page that warms up.
_START_S = 120


@dataclass(frozen=True, slots=True)
class Size:
    """How long is measured, how many panes there are, and how often each changes in a second."""

    seconds: int
    panes: int
    rate: int


FULL = Size(600, 50, 10)
SMALL = Size(4, 10, 5)


def run(_config: Config, size: Size) -> list[Table]:
    """Fifty panes at ten values a second, on a built page in Chromium."""
    if not (os.environ.get("CHROMIUM") or any(map(shutil.which, _BROWSERS))):
        return [Table(("left out: there is no Chromium; `make test-browser` brings it",), ())]
    with step("pages built"):
        try:
            web_build.build()
        except web_build.BuildFailed as error:
            raise StackError(f"The pages could not be built: {error}") from error
    with step(f"{size.panes} panes watched for {size.seconds} s"):
        measured = _measured(size)
    heap = ", ".join(f"{mib:.1f}" for mib in measured["heapMiB"])
    row = (
        f"{measured['panes']} panes at {size.rate} values a second",
        Figure(measured["updates"]),
        Figure(measured["cpuShare"] * 100, ".0f"),
        Figure(measured["longestTaskMs"], ".0f"),
        Figure(measured["heapMiB"][-1], ".1f"),
    )
    notes = (
        f"aims: at most {AIM_CORE:.0%} of one core, and no task over {AIM_TASK_MS} ms",
        f"MiB of the heap after its garbage is collected, at the beginning and after each quarter: {heap}",
        "CPU is of the page's process: scripts, layout, and drawing without a graphics card",
    )
    return [Table(("a board", "values/s", "% of a core", "longest task ms", "heap MiB"), [row], notes)]


def _measured(size: Size) -> dict[str, Any]:
    command = ["node", "bench/board.ts", str(size.seconds), str(size.panes), str(size.rate)]
    try:
        done = subprocess.run(
            command, cwd=web_build.WEB, capture_output=True, text=True, timeout=size.seconds + _START_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StackError(f"The board could not be measured: {error}") from error
    if done.returncode:
        raise StackError(f"The board could not be measured: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
