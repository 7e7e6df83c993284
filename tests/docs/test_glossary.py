"""The glossary: in order, a sentence a word, and no word missing that the concepts introduce."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tidegate.errors import Denied, Unavailable

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/glossary.md").read_text()
ENTRIES = [
    (word, " ".join(meaning.split()))
    for word, meaning in re.findall(r"^- \*\*(.+?)\*\*: (.+?)(?=\n- |\Z)", PAGE, re.M | re.S)
]
WORDS = {word.lower() for word, _ in ENTRIES}


def test_every_entry_is_read() -> None:
    assert len(ENTRIES) == len(re.findall(r"^- ", PAGE, re.M)) > 100


def test_it_is_in_order_and_without_repetition() -> None:
    words = [word.lower() for word, _ in ENTRIES]
    assert words == sorted(set(words))


@pytest.mark.parametrize(("word", "meaning"), ENTRIES, ids=[word for word, _ in ENTRIES])
def test_a_word_is_one_sentence(word: str, meaning: str) -> None:
    assert meaning.endswith(".") and meaning[0].isupper(), word
    assert not re.search(r"\. [A-Z]", meaning), "one sentence"


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/concepts/*.md")), ids=lambda page: page.stem)
def test_what_a_concept_introduces_is_there(page: Path) -> None:
    introduced = re.findall(r"(?<![\w*])\*([a-z][a-z -]+)\*(?![\w*])", page.read_text())
    missing = [word for word in introduced if not {word, word.removesuffix("s")} & WORDS]
    assert not missing


def test_rooms_outcomes_and_errors_are_there() -> None:
    assert {Denied.code, Unavailable.code} <= WORDS
    assert {"control plane", "delivery", "gateway", "relay", "remote api", "revocation", "limiter"} <= WORDS
