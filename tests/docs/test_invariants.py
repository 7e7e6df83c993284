"""The invariants page: its numbers, and the files and tests it names are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "layers/tidegate/python/tidegate"
PAGE = (ROOT / "docs/reference/invariants.md").read_text()
SECTIONS = re.findall(r"^## Invariant (\d+): ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)


def test_the_numbers_are_without_gaps_and_in_the_list() -> None:
    numbers = [int(number) for number, _, _ in SECTIONS]
    assert numbers == list(range(1, len(SECTIONS) + 1))
    listed = [(int(number), text.lower()) for number, text in re.findall(r"^\| (\d+) \| (.+)\. \|$", PAGE, re.M)]
    assert listed == [(int(number), title.lower()) for number, title, _ in SECTIONS]


@pytest.mark.parametrize(("number", "text"), [(number, text) for number, _, text in SECTIONS])
def test_an_invariant_names_who_keeps_it_and_what_would_fail(number: str, text: str) -> None:
    kept, _, tests = text.partition("| test | it fails when |")
    files = re.findall(r"^- `([^`]+)`", kept, re.M)
    assert files and all((PACKAGE / path).is_file() for path in files), files
    rows = [line for line in tests.splitlines() if line.startswith("| `")]
    assert rows
    for row in rows:
        named = re.match(r"\| `(tests/[\w/]+\.py): (\w+)` \| \S", row)
        assert named, row
        path, name = named.groups()
        assert name in collected(ROOT / path), row


def collected(path: Path) -> set[str]:
    """The tests pytest would collect from a file, and the state machines it runs."""
    names = set()
    assigned = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            assigned |= set(re.findall(r"(\w+)\.TestCase", ast.unparse(node.value)))
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            names.add(node.name)
    return names | assigned


def test_what_is_no_test_is_not_taken_for_one() -> None:
    assert "GOOD" not in collected(ROOT / "tests/docs/test_first_change.py")
    assert "collected" not in collected(Path(__file__))
    assert "test_what_is_no_test_is_not_taken_for_one" in collected(Path(__file__))
