"""Building the pages: from `web/` to `web/dist`, when something in it has changed since the last time."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from infra.pages import DIST

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "web"
#: What a build is made from, below `web/`.
SOURCES = ("app", "budgets.ts", "client/src", "package-lock.json", "tsconfig.json", "vite.config.ts")
_STAMP = ".fingerprint"


class BuildFailed(Exception):
    """The pages could not be built. The message is what the build said."""


def build() -> Path:
    """The folder of the built pages. It takes some seconds, and none when nothing has changed.

    Raises:
        BuildFailed: when the sources do not build.
    """
    folder = ROOT / DIST
    wanted = fingerprint(WEB)
    stamp = folder / _STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    command = [str(WEB / "node_modules/.bin/vite"), "build", "--logLevel", "warn"]
    done = subprocess.run(command, cwd=WEB, env=os.environ, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildFailed(f"Building the pages failed:\n{(done.stderr or done.stdout).strip()}")
    stamp.write_text(wanted)
    return folder


def fingerprint(web: Path) -> str:
    """A hash of everything that a build is made from, by name and content."""
    digest = hashlib.sha256()
    for source in SOURCES:
        path = web / source
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(str(file.relative_to(web)).encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
