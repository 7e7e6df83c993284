"""A numbered reference leads somewhere: "invariant 6" to a heading, "decision 9" to a file; others are refused.

A number whose list is nowhere in the project ("contract 1.2") tells a reader nothing. A section may be named of a
standard, which the same sentence then names.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INVARIANTS = set(re.findall(r"^## Invariant (\d+):", (ROOT / "docs/reference/invariants.md").read_text(), re.M))
DECISIONS = {str(int(path.name[:4])) for path in (ROOT / "docs/decisions").glob("[0-9][0-9][0-9][0-9]-*.md")}

_NUMBER = r"(\d+(?:\.\d+)*)"
_INVARIANT = re.compile(rf"\binvariants?\s+(?:number\s+)?{_NUMBER}\b", re.I)
_DECISION = re.compile(rf"\bdecisions?\s+(?:number\s+)?{_NUMBER}\b", re.I)
#: References to a text that is not in the project, whatever their number.
_ELSEWHERE = re.compile(
    rf"\b(?:contract|chapter|clause|requirement|specification|spec|design|plan|part|point|item|rule|step)s?"
    rf"(?:'s|,(?=\s+section))?\s+\(?(?:section\s+)?{_NUMBER}\b|§\s*{_NUMBER}",
    re.I,
)
_SECTION = re.compile(rf"\bsections?\s+{_NUMBER}(?![\w])", re.I)
#: What a section may be of: a standard, by name, in the same sentence.
_STANDARD = re.compile(r"\bRFC \d+|\bWHATWG\b|\bMQTT 3\.1\.1\b|\b3\.1\.1\b|\bISO \d+")
#: Words that only look like a reference: "rule 2" of a list on the same page is none of ours, "part 1" of a bench is.
_HARMLESS = re.compile(r"\b(?:parts?|items?|steps?|points?)\s+\d+\b(?!\.\d)", re.I)


def unled(text: str) -> Iterator[str]:
    """The references in a text that lead nowhere."""
    plain = re.sub(r"\n[ \t]*(?:#:?|\*|>)?[ \t]*", " ", text)  # a reference may go over the end of a line
    for match in _INVARIANT.finditer(plain):
        if match.group(1) not in INVARIANTS:
            yield match.group()
    for match in _DECISION.finditer(plain):
        if match.group(1) not in DECISIONS:
            yield match.group()
    for match in _ELSEWHERE.finditer(plain):
        if not _HARMLESS.fullmatch(match.group()):
            yield match.group()
    for match in _SECTION.finditer(plain):
        around = re.split(r"[.;] ", plain[max(0, match.start() - 80) : match.start()])[-1] + plain[match.end() :][:40]
        if not _STANDARD.search(around):
            yield match.group()


def sources() -> list[Path]:
    """Code and documents of the project, without what is generated or of others."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if re.search(r"(\.(py|md|toml|yaml|yml)|^Makefile)$", name)]
    return sorted(path for path in paths if path.exists() and path != Path(__file__))


@pytest.mark.parametrize(
    "text",
    [
        "invariant 99",
        "Invariant 6.1",
        "see invariant\n    # 77 there",
        "decision 4711",
        "12 characters or more (contract 1.4)",
        "the contract's section 1.2",
        "(contract, section 2.9)",
        "as in section 4.5",
        "§ 3.2",
        "requirement 3",
        "the role table of the contract (5.6)",
        "step 1.2",
    ],
)
def test_what_leads_nowhere_is_found(text: str) -> None:
    assert list(unled(text))


@pytest.mark.parametrize(
    "text",
    [
        "invariant 6",
        "(invariant 2 of the product)",
        "[Decision 9](decisions/0009.md)",
        "the WHATWG HTML standard, section 9.2.6",
        "those of MQTT 3.1.1, section 4.7",
        "(RFC 9110, section 7.6.1)",
        "the filter was refused (3.1.1, section 3.9.3)",
        "this section has 3 rows",
        "step 2",
    ],
)
def test_what_leads_somewhere_is_let_be(text: str) -> None:
    assert not list(unled(text))


def test_no_reference_leads_nowhere() -> None:
    paths = sources()
    assert ROOT / "layers/tidegate/python/tidegate/tables.py" in paths and ROOT / "README.md" in paths
    found = {str(path.relative_to(ROOT)): list(unled(path.read_text())) for path in paths}
    assert {path: references for path, references in found.items() if references} == {}


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_linked_decision_is_the_one_that_is_named(page: Path) -> None:
    for number, file_number in re.findall(r"\[[Dd]ecision\s+(\d+)\]\([^)]*?(\d{4})-[^)]*\)", page.read_text()):
        assert int(number) == int(file_number)
