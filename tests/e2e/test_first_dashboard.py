"""The commands of docs/start/first-dashboard.md, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/start/first-dashboard.md"


def test_the_commands_of_the_first_dashboard_work(stack: Mapping[str, Any]) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    # The last block but one ends the watching; what it prints is what the page promises.
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=ROOT,
        env={**os.environ, "TIDEGATE_STATE": stack["state"]},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for promised in (
        '"type":"ack"',
        '"status":"connected"',
        '"type":"data"',
        "Stream authorization was revoked",
        '"retryable":false',
    ):
        assert promised in done.stdout, f"{promised} is not in:\n{done.stdout}"
