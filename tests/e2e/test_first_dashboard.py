"""The commands of docs/start/first-dashboard.md, and the one of CONTRIBUTING.md, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/start/first-dashboard.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def blocks_of(page: Path) -> list[str]:
    """The shell blocks of a page."""
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.M | re.S)


def run(blocks: list[str], stack: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=ROOT,
        env={**os.environ, "TIDEGATE_STATE": stack["state"]},
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_the_commands_of_the_first_dashboard_work(stack: Mapping[str, Any]) -> None:
    # The last block but one ends the watching; what it prints is what the page promises.
    done = run(blocks_of(PAGE), stack)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for promised in (
        '"type":"ack"',
        '"status":"connected"',
        '"type":"data"',
        "Stream authorization was revoked",
        '"retryable":false',
    ):
        assert promised in done.stdout, f"{promised} is not in:\n{done.stdout}"


def test_the_command_of_the_first_change_is_refused_without_the_change(stack: Mapping[str, Any]) -> None:
    (command,) = [block for block in blocks_of(CONTRIBUTING) if block.startswith("curl ")]
    (told,) = re.findall(r"Without your change it is `([^`]+)`", CONTRIBUTING.read_text())
    done = run([*blocks_of(PAGE)[:2], command], stack)
    assert done.returncode == 0 and told in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
