"""The commands of docs/start/first-dashboard.md, and the call of CONTRIBUTING.md, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/start/first-dashboard.md"


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.M | re.S)


def printed(stack: Mapping[str, Any], commands: Sequence[str]) -> str:
    """What these blocks print, one after the other in one shell."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=ROOT,
        env={**os.environ, "TIDEGATE_STATE": stack["state"]},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_the_commands_of_the_first_dashboard_work(stack: Mapping[str, Any]) -> None:
    # The last block but one ends the watching; what it prints is what the page promises.
    output = printed(stack, blocks(PAGE))
    for promised in (
        '"type":"ack"',
        '"status":"connected"',
        '"type":"data"',
        "Stream authorization was revoked",
        '"retryable":false',
    ):
        assert promised in output, f"{promised} is not in:\n{output}"


def test_the_call_of_the_first_change_is_refused(stack: Mapping[str, Any]) -> None:
    """Since the change is not made here."""
    page = ROOT / "CONTRIBUTING.md"
    (call,) = [block for block in blocks(page) if block.startswith("curl ")]
    (refusal,) = re.findall(r"Without your change it is `([^`]+)`", page.read_text())
    assert f': {refusal}"' in printed(stack, [*blocks(PAGE)[:2], call])
