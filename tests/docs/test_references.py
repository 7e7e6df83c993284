"""A reference such as "invariant 6" leads to what it names, and what is promised has a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PACKAGE, PAGES, REFERENCE, ROOT, code_files, headings, name_of, rows, section

INVARIANTS = (REFERENCE / "invariants.md").read_text()
#: Where people write sentences: code, its comments and docstrings, and pages.
FILES = [
    *code_files("layers", "functions", "infra", "local_stack", "ops", "fixtures", "scripts", "tests", "benchmarks"),
    *PAGES,
]
#: "invariant 6", "decisions 2 and 11", "contract 1.2", "contract (5.6)", "contract's section 4.5", "section 2.9".
_REFERENCE = re.compile(
    r"\b(invariant|decision|contract)s?(?:'s)?(?:,? sections?)?\s*\(?(?:section )?(\d+(?:\.\d+)*)", re.IGNORECASE
)
#: A file, and a function or class in it, as the page writes them.
_TEST = re.compile(r"`((?:tests/)?[a-z_0-9/]*test_\w+\.py): (\w+)`")


def numbered() -> dict[str, set[str]]:
    """The numbers that there are, by word."""
    decisions = {str(int(page.name[:4])) for page in (DOCS / "decisions").glob("0*.md")}
    found = {match.group(1) for heading in headings(INVARIANTS) if (match := re.match(r"Invariant (\d+):", heading))}
    return {"invariant": found, "decision": decisions, "contract": set()}


def references(text: str) -> list[tuple[str, str]]:
    """(word, number) of each reference, however lines are broken."""
    flowing = re.sub(r"\s*\n\s*(?:#:? )?", " ", text)
    return [(word.lower(), number) for word, number in _REFERENCE.findall(flowing)]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_references_lead_somewhere(file: Path) -> None:
    known = numbered()
    wrong = [each for each in references(file.read_text()) if each[1] not in known[each[0]]]
    assert not wrong or file == Path(__file__)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("keeps invariant 6 of", [("invariant", "6")]),
        ("see decision\n    10 for", [("decision", "10")]),
        ("(contract 1.4)", [("contract", "1.4")]),
        ("the contract's section 4.5", [("contract", "4.5")]),
        ("of the contract (5.6)", [("contract", "5.6")]),
        ("the contract, section 2.9", [("contract", "2.9")]),
        ("3 invariants, 2 decisions", []),
    ],
)
def test_what_counts_as_a_reference(text: str, expected: list[tuple[str, str]]) -> None:
    assert references(text) == expected


def test_invariants_are_numbered_without_gaps() -> None:
    assert numbered()["invariant"] == {str(number) for number in range(1, len(numbered()["invariant"]) + 1)}


def test_every_product_invariant_names_its_files_and_tests() -> None:
    for heading in headings(INVARIANTS):
        if heading.startswith("Invariant "):
            text = section(INVARIANTS, heading)
            assert re.search(r"- Kept by .*`[a-z_/]+\.py", text) and _TEST.search(text.partition("- Tests: ")[2]), (
                heading
            )


def files_named(name: str) -> list[Path]:
    return [ROOT / name] if name.startswith("tests/") else sorted((ROOT / "tests").rglob(name))


@pytest.mark.parametrize(("file", "test"), sorted(set(_TEST.findall(INVARIANTS))))
def test_the_named_tests_are_there(file: str, test: str) -> None:
    found = files_named(file)
    assert any(re.search(rf"^\s*(?:async )?(?:def|class) {test}\b", each.read_text(), re.M) for each in found)


def test_every_file_that_promises_something_is_listed() -> None:
    promising = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if re.search(r"Invariants? of this file", ast.get_docstring(ast.parse(file.read_text())) or "")
    }
    assert {row[0].strip("`") for row in rows(section(INVARIANTS, "Of single files"))} == promising
