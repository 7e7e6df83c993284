"""Rows of the smoke run by pytest itself, with the environment that docs/start/local-stack.md gives."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def test_a_row_runs_by_pytest(stack: Mapping[str, Any]) -> None:
    page = (ROOT / "docs/start/local-stack.md").read_text()
    (environment,) = re.findall(r"^export .+$", page, re.M)
    (command,) = re.findall(r"`(pytest local_stack/smoke)`", page)
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        ["bash", "-c", f"{environment}; {command} -p no:cacheprovider -k wildcard"],
        cwd=ROOT,
        env={**env, "TIDEGATE_STATE": stack["state"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "1 passed" in done.stdout
