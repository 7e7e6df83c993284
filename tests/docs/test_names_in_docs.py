"""Files, symbols and make targets that the documents name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "layers/tidegate/python/tidegate"
#: The changelog tells of names that are gone.
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")} - {ROOT / "CHANGELOG.md"})
#: A path from the root of the checkout, or from the package, with a symbol behind a colon.
_NAMED = re.compile(r"`((?:[a-z_0-9-]+/)+(?:[A-Za-z_0-9.-]+)?|[a-z_]+\.py)(?:: ([A-Za-z_]+))?`")
_NOT_IN_THE_CHECKOUT = (
    "dashboards/",
    "demo/",
    "production/",
    "site/",
    "protected/",
    "burst/",
    "rate-limit/",
    ".tidegate/",
)


def named(page: Path) -> list[tuple[str, str]]:
    found = [match.group(1, 2) for match in _NAMED.finditer(page.read_text())]
    return [(path, symbol or "") for path, symbol in found if not path.startswith(_NOT_IN_THE_CHECKOUT)]


def place(path: str) -> Path | None:
    """Where the named file or folder is. A bare `name.py` is looked for in the rooms and at the tests."""
    if "/" not in path:
        everywhere = [*PACKAGE.rglob(path), *(ROOT / "tests").rglob(path), *(ROOT / "functions").rglob(path)]
        return everywhere[0] if everywhere else None
    candidates = [folder / path for folder in (ROOT, PACKAGE)]
    return next((candidate for candidate in candidates if candidate.exists()), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    missing = []
    for path, symbol in named(page):
        found = place(path)
        if found is None:
            missing.append(path)
        elif symbol and not re.search(rf"^\s*(?:def|class) {symbol}\b|^{symbol}\b.*=", found.read_text(), re.M):
            missing.append(f"{path}: {symbol}")
    assert not missing


def test_make_targets_in_every_page_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        named_targets = re.findall(r"(?:`|^    |^)make ([a-z-]+)", page.read_text(), re.M)
        unknown = set(named_targets) - targets
        assert not unknown, f"{page.relative_to(ROOT)} names make {sorted(unknown)}"
