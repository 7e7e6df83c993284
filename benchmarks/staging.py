"""The layers and functions as they are shipped, in a folder of this machine: what `infra/packaging.py` builds for a
stage whose architecture is `host`, without the CDK."""

from __future__ import annotations

import compileall
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

from local_stack.config import ROOT, StackError

#: The layers that hold other people's packages, as folders of `layers/`.
DEPENDENCIES = "dependencies"
API_DEPENDENCIES = "api_dependencies"
RELAY_DEPENDENCIES = "relay_dependencies"


#: Folders of a staged tree that hold our own code.
SHARED = "tidegate"
FUNCTIONS = "functions"


def stage(target: Path) -> None:
    """Put every layer, and every function, below `target`, each in a folder that goes on `sys.path`.

    As on Lambda, layers carry bytecode and functions do not: their few files are compiled at every cold start.
    Raises `StackError` when a package cannot be installed.
    """
    for layer in (DEPENDENCIES, API_DEPENDENCIES, RELAY_DEPENDENCIES):
        _install(ROOT / "layers" / layer / "requirements.txt", target / layer)
    _copy(ROOT / "layers/tidegate/python", target / SHARED)
    for folder in target.iterdir():
        compileall.compile_dir(str(folder), quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    _copy(ROOT / "functions", target / FUNCTIONS / "functions")


def _install(requirements: Path, target: Path) -> None:
    command = ["uv", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--target", str(target)]
    done = subprocess.run(
        [*command, "--python", sys.executable, "-r", str(requirements)], capture_output=True, text=True
    )
    if done.returncode:
        raise StackError(f"{requirements.parent.name} could not be installed: {done.stderr.strip()}")


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
