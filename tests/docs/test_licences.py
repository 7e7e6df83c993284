"""The page of licences is as its script writes it, and every licence is allowed where the package is used."""

from __future__ import annotations

import pytest

from scripts import licences_doc
from scripts.inventory import Package, packages
from scripts.licences_doc import DEPLOYED, TARGET, TOOLS, known, problem, with_licences
from tests.docs.pages import ROOT

PAGE = TARGET.read_text()
EVERYTHING = with_licences(PAGE, packages())


def test_the_page_is_current() -> None:
    assert licences_doc.render(PAGE) == PAGE, "run: python scripts/licences_doc.py"


def test_every_licence_is_allowed_where_the_package_is_used() -> None:
    wrong = {
        f"{each.name} {each.version}": told
        for each, licence in EVERYTHING
        if (told := problem(licence, DEPLOYED if each.deployed else TOOLS))
    }
    assert not wrong


def test_every_licence_that_is_allowed_is_that_of_a_package() -> None:
    used = {word for _, licence in EVERYTHING for word in licence.split()}
    assert used >= TOOLS


def test_every_package_of_every_lock_file_is_there() -> None:
    """Counted in another way than the script reads them."""
    names = {each.name for each, _ in EVERYTHING}
    for file in [*ROOT.glob("requirements/*.txt"), *ROOT.glob("layers/*/requirements.txt")]:
        pinned = [
            line for line in file.read_text().splitlines() if "==" in line and "sys_platform == 'win32'" not in line
        ]
        assert pinned and {line.partition("==")[0].partition("[")[0] for line in pinned} <= names, file
    for layer in ("dependencies", "api_dependencies", "relay_dependencies", "console"):
        assert any(layer in each.used_in for each, _ in EVERYTHING), layer


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("(MIT OR GPL-3.0-only)", True),
        ("Apache-2.0 AND MIT", True),
        ("Apache-2.0 AND GPL-3.0-only", False),
        ("MPL-2.0", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_a_licence_is_held_to_what_is_allowed(licence: str, allowed: bool) -> None:
    assert (problem(licence, DEPLOYED) is None) is allowed


def test_what_is_not_installed_here_keeps_its_licence_in_its_version_only() -> None:
    page = "| `some` | 1.0 | MIT | pypi |\n"
    assert known(page) == {("some", "1.0"): "MIT"}
    found = [Package("pypi", "some", version, "", ("development",)) for version in ("1.0", "1.1")]
    assert [licence for _, licence in with_licences(page, found)] == ["MIT", "unknown"]
