"""The glossary has a sentence for each word, in order, and pages keep to its words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, REFERENCE, ROOT, name_of, without_blocks

PAGE = (REFERENCE / "glossary.md").read_text()
ENTRIES = [
    (word.strip("`"), re.sub(r"\s+", " ", text))
    for word, text in re.findall(r"^- \*\*(.+?)\*\*: (.+?)(?=\n- |\Z)", PAGE, re.M | re.S)
]
#: Words that once meant what another word means now.
RETIRED = (
    "second look",
    "outbox",
    "full pass",
    "attested",
    "external API",
    "another API",
    "internal contract",
    "asking limit",
    "feed shard",
)


def test_words_are_in_order_and_there_once() -> None:
    words = [word.casefold() for word, _ in ENTRIES]
    assert len(words) > 100 and words == sorted(set(words), key=lambda word: word.replace("-", " "))


@pytest.mark.parametrize(("word", "text"), ENTRIES, ids=[word for word, _ in ENTRIES])
def test_a_word_has_one_sentence(word: str, text: str) -> None:
    assert text[0].isupper() or text[0] == "`", word
    assert text.rstrip().endswith(".") and not re.search(r"[.!?] [A-Z]", text), word


@pytest.mark.parametrize("page", sorted(set(PAGES) - {ROOT / "CHANGELOG.md"}), ids=name_of)
def test_pages_use_no_retired_word(page: Path) -> None:
    text = re.sub(r"\s+", " ", without_blocks(page.read_text())).casefold()
    assert not [word for word in RETIRED if word.casefold() in text]
