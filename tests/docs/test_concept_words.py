"""A word that a concept introduces, in italics, is in the glossary."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, name_of
from tests.docs.test_glossary import ENTRIES

WORDS = {word.casefold() for word, _ in ENTRIES}
PAGES = sorted((DOCS / "concepts").glob("*.md"))


def introduced(page: Path) -> list[str]:
    return re.findall(r"(?<![\w*])\*([a-z][a-z -]+)\*(?![\w*])", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_concept_introduces_is_there(page: Path) -> None:
    assert not [word for word in introduced(page) if not {word, word.removesuffix("s")} & WORDS]


def test_concepts_introduce_words() -> None:
    assert len({word for page in PAGES for word in introduced(page)}) > 10
