"""A section is named of a standard only, and no numbered text is cited that the project does not contain.

"As in section 4.5" or "requirement 3" tells a reader nothing: the text that has the number is not here.
`test_references.py` looks after the lists that are here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import name_of
from tests.docs.test_references import FILES

_SECTION = re.compile(r"\bsections?\s+\d+(?:\.\d+)*\b", re.IGNORECASE)
#: Tests that have such references as examples.
EXAMPLES = (Path(__file__), Path(__file__).with_name("test_references.py"))
#: What a section may be of; its name stands in the same sentence.
_STANDARD = re.compile(r"\bRFC \d+|\bWHATWG\b|\b3\.1\.1\b|\bISO \d+")
_FOREIGN = re.compile(
    r"\b(?:chapter|clause|requirement|specification|spec|design)s?\s+\d+(?:\.\d+)*\b|\b(?:rule|step|part)\s+\d+\.\d+|§\s*\d",
    re.IGNORECASE,
)


def unled(text: str) -> Iterator[str]:
    """The references in a text that lead nowhere, however lines are broken."""
    flowing = re.sub(r"\s*\n\s*(?:#:? )?", " ", text)
    yield from (match.group() for match in _FOREIGN.finditer(flowing))
    for match in _SECTION.finditer(flowing):
        before = re.split(r"[.;] ", flowing[max(0, match.start() - 80) : match.start()])[-1]
        if not _STANDARD.search(before):
            yield match.group()


@pytest.mark.parametrize(
    "text", ["as in section 4.5", "section\n    # 2.9 has it", "requirement 3", "§ 3.2", "step 1.2"]
)
def test_what_leads_nowhere_is_found(text: str) -> None:
    assert list(unled(text))


@pytest.mark.parametrize(
    "text",
    [
        "the WHATWG HTML standard, section 9.2.6",
        "those of MQTT 3.1.1, section 4.7",
        "(RFC 9110, section 7.6.1)",
        "this section has 3 rows",
        "step 2",
    ],
)
def test_what_leads_somewhere_is_let_be(text: str) -> None:
    assert not list(unled(text))


@pytest.mark.parametrize("file", [file for file in FILES if file not in EXAMPLES], ids=name_of)
def test_no_foreign_number_is_cited(file: Path) -> None:
    assert not list(unled(file.read_text()))
