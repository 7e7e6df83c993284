"""A release whose handlers can be called, and the code of the release before."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate.providers.process import Handler

ROOT = Path(__file__).resolve().parents[2]
PREVIOUS = Path(__file__).parent / "previous"
#: What a release runs of its own.
_CODE = ("functions", "layers/tidegate", "ops")


class NoHistory(Exception):
    """The release before is not in this clone."""


def previous_commit() -> str:
    return next(line for line in PREVIOUS.read_text().splitlines() if line and not line.startswith("#"))


def previous_code(folder: Path, repository: Path = ROOT) -> Path:
    """Bring the code of the release before to a folder. Raises `NoHistory`."""
    commit = previous_commit()
    done = subprocess.run(["git", "archive", commit, "--", *_CODE], cwd=repository, capture_output=True)
    if done.returncode:
        raise NoHistory(
            f"commit {commit} is not in this clone ({done.stderr.decode().strip()}). The test runs the release before, "
            f"so it needs the history: `git fetch --unshallow`, or `git fetch origin {commit}`."
        )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


class Running:
    """The handlers of one release, in a process of their own."""

    def __init__(self, code: Path, env: Mapping[str, str]) -> None:
        path = os.pathsep.join([str(code / "layers/tidegate/python"), str(code)])
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "served.py")],
            cwd=code,
            env={**kept, **env, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    def ask(self, **asked: Any) -> Any:
        """Raises `AssertionError` with what the release raised."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        line = self._process.stdout.readline()
        assert line, "the process of the release has ended"
        told = json.loads(line)
        assert "error" not in told, told["error"]
        return told["answer"]

    def handler(self, module: str) -> Handler:
        """The handler of a module, such as `functions.api.main`."""

        def handle(event: dict[str, Any], _context: Any) -> Any:
            return self.ask(handler=module, event=event)

        return handle

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
