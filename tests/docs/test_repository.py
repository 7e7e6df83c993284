"""The project speaks only of itself, and what it needs is pinned."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.docs.pages import ROOT


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


def test_no_registry_and_no_foreign_path_is_recorded() -> None:
    hosts = re.compile(r"registry\.npmjs|pypi\.org/simple|files\.pythonhosted|/root/|/home/[a-z]")
    for path in tracked():
        if path == Path(__file__):
            continue
        found = hosts.search(path.read_text(errors="ignore"))
        assert not found, f"{path.relative_to(ROOT)}: {found.group() if found else ''}"


def test_requirements_are_pinned_and_hashed() -> None:
    for path in [*ROOT.glob("requirements/*.txt"), *ROOT.glob("layers/*/requirements.txt")]:
        blocks = re.split(r"\n(?=\S)", path.read_text().strip())
        assert blocks and all("==" in block and "--hash=sha256:" in block for block in blocks), path.name
