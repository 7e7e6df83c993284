"""The documents say what is so, and the project speaks only of itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from scripts.settings_doc import TARGET, render

ROOT = Path(__file__).resolve().parents[2]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


def test_the_settings_page_is_generated() -> None:
    assert TARGET.read_text() == render(), "run: python scripts/settings_doc.py"


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")), ids=lambda one: one.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_make_targets_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert {"up", "test", "smoke", "down", "integration", "deploy", "admin"} <= named <= targets


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
