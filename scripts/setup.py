"""Bring everything the project needs into the checkout: Python environments, Node, and the npm packages.

Runs on the standard library alone, changes nothing outside the checkout, and does nothing when all is there already.
`python scripts/setup.py` prepares, with `--browser` also Chromium for tests, with `--audit` what asks for advisories.
`--print-path` prints the directories to put first on PATH.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".tidegate"
VENV = ROOT / ".venv"
EMULATOR_VENV = STATE / "emulator-venv"
AUDIT_VENV = STATE / "audit-venv"
TOOLS_VENV = STATE / "tools-venv"
#: Node's supported lines that the CDK CLI runs on.
NODE_MAJORS = (22, 24)
OLDEST_PYTHON = (3, 11)


class SetupError(Exception):
    """Set-up cannot go on; the message says what to do."""


def main() -> int:
    if "--print-path" in sys.argv:
        print(os.pathsep.join(str(path) for path in tool_paths()))
        return 0
    try:
        if sys.version_info < OLDEST_PYTHON:
            found = ".".join(map(str, sys.version_info[:3]))
            raise SetupError(f"Python 3.11 or newer is needed, this is {found}: run make PYTHON=python3.11 (or newer).")
        STATE.mkdir(exist_ok=True)
        find_uv()  # every time: the CDK app builds layers with it, long after the environments were made
        environment(VENV, ROOT / "requirements/dev.txt", "development environment", further=_layer_requirements())
        own_code(VENV)
        environment(EMULATOR_VENV, ROOT / "requirements/emulator.txt", "emulator")
        node()
        packages(ROOT, "CDK CLI")
        packages(ROOT / "web", "packages of the console")
        if "--browser" in sys.argv:
            chromium()
        if "--audit" in sys.argv:
            environment(AUDIT_VENV, ROOT / "requirements/audit.txt", "audit of Python packages")
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


def tool_paths() -> list[Path]:
    """Directories of the tools that were brought, the ones that must win first."""
    paths = [VENV / "bin", ROOT / "node_modules/.bin"]
    if (TOOLS_VENV / "bin/node").exists():
        paths.append(TOOLS_VENV / "bin")
    if (TOOLS_VENV / "bin/uv").exists():
        paths.append(TOOLS_VENV / "bin")
    return paths


def environment(path: Path, requirements: Path, name: str, *, further: tuple[Path, ...] = ()) -> None:
    """A virtual environment with exactly what the hashed requirements say."""
    wanted = _fingerprint(requirements, *further)
    if _stamped(path / ".fingerprint", wanted):
        return
    say(f"installing the {name}")
    uv = find_uv()
    if not (path / "bin/python").exists():
        run([uv, "venv", "--quiet", "--python", sys.executable, str(path)], f"creating {path.name}")
    interpreter = str(path / "bin/python")
    run(
        [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", interpreter, str(requirements)],
        f"installing {requirements.name}",
    )
    (path / ".fingerprint").write_text(wanted)


def own_code(path: Path) -> None:
    """Let the environment's Python find our packages, so that a command works as it stands in a page."""
    folders = [ROOT, ROOT / "layers/tidegate/python"]
    for place in path.glob("lib/python*/site-packages"):
        (place / "tidegate.pth").write_text("".join(f"{folder}\n" for folder in folders))


def find_uv() -> str:
    """uv of the machine, else a pinned one in an environment of its own."""
    on_path = shutil.which("uv")
    if on_path:
        return on_path
    own = TOOLS_VENV / "bin/uv"
    if not own.exists():
        say("bringing uv")
        pip_install(ROOT / "requirements/uv.txt")
    return str(own)


def pip_install(requirements: Path) -> None:
    """Install hashed requirements into the tools environment with Python's own venv and pip."""
    if not (TOOLS_VENV / "bin/pip").exists():
        made = subprocess.run([sys.executable, "-m", "venv", str(TOOLS_VENV)], capture_output=True, text=True)
        if made.returncode != 0:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise SetupError(f"Python's venv module does not work here: install the package python{version}-venv.")
    pip = [str(TOOLS_VENV / "bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "-r", str(requirements)], f"installing {requirements.name}")


def node() -> None:
    """Node 22 or 24 of the machine, else Node 24 from PyPI."""
    if (TOOLS_VENV / "bin/node").exists() or (shutil.which("npm") and _node_major() in NODE_MAJORS):
        return
    say("bringing Node 24")
    pip_install(ROOT / "requirements/node.txt")


def packages(folder: Path, name: str) -> None:
    """Exactly the npm packages of a folder's lock file."""
    wanted = _fingerprint(folder / "package-lock.json")
    if _stamped(folder / "node_modules/.fingerprint", wanted):
        return
    say(f"installing the {name}")
    run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], "npm ci", folder)
    (folder / "node_modules/.fingerprint").write_text(wanted)


def chromium() -> None:
    """Chromium for the tests in a browser: the machine's, else Debian's package. `CHROMIUM` names another one.

    It is the one thing that is brought to the machine and not into the checkout, because it is made of system packages.
    """
    if os.environ.get("CHROMIUM") or any(
        shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")
    ):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise SetupError(
            "Chromium is needed: install it (on Debian: apt-get install chromium), or name it in CHROMIUM."
        )
    say("installing Chromium (Debian's package)")
    run(["apt-get", "update", "-qq"], "apt-get update")
    run(["apt-get", "install", "-y", "-qq", "chromium"], "apt-get install chromium")


def run(command: list[str], doing: str, folder: Path = ROOT) -> None:
    path = os.pathsep.join([*map(str, tool_paths()), os.environ.get("PATH", "")])
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    if done.returncode != 0:
        raise SetupError(f"{doing} failed:\n{(done.stderr or done.stdout).strip()}")


def say(text: str) -> None:
    print(f"setup: {text} ...", file=sys.stderr, flush=True)


def _layer_requirements() -> tuple[Path, ...]:
    return tuple(sorted(ROOT.glob("layers/*/requirements.txt")))


def _node_major() -> int:
    found = shutil.which("node")
    if not found:
        return 0
    version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout.strip()
    major = version.lstrip("v").split(".")[0]
    return int(major) if major.isdigit() else 0


def _fingerprint(*files: Path) -> str:
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _stamped(stamp: Path, wanted: str) -> bool:
    return stamp.exists() and stamp.read_text() == wanted


if __name__ == "__main__":
    sys.exit(main())
