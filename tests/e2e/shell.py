"""Commands of pages, run in a shell against the running stack."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_stack.config import CREDENTIALS, REGION, ROOT


def run(commands: str, stack: Mapping[str, Any], said: str = "", **env: str) -> str:
    """What they print. All of them succeed. `said`: what is typed meanwhile."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=ROOT,
        env={**os.environ, "TIDEGATE_STATE": stack["state"], **env},
        input=said,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def with_aws(folder: Path, stack: Mapping[str, Any]) -> dict[str, str]:
    """An environment whose `aws` is tests/aws_cli.py on the emulator. `make` there does no set-up, which was done."""
    _command(folder / "aws", f'exec {sys.executable} -m tests.aws_cli "$@"')
    _command(folder / "make", f'exec {shutil.which("make")} --no-print-directory -o setup "$@"')
    return {
        **CREDENTIALS,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": stack["emulator_url"],
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }


def _command(file: Path, line: str) -> None:
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)
