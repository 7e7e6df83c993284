"""Links lead to a file that is there, and to a heading that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, anchor, headings, name_of, without_blocks


def links(page: Path) -> list[tuple[Path, str]]:
    """(file, anchor) of the links to our own pages."""
    found = re.findall(r"\]\(([^)\s]*)\)", without_blocks(page.read_text()))
    own = [link for link in found if not re.match(r"[a-z]+:", link)]
    return [
        ((page.parent / link.partition("#")[0]) if link[0] != "#" else page, link.partition("#")[2]) for link in own
    ]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target, heading in links(page):
        assert target.exists(), f"no file {target}"
        if heading:
            anchors = [anchor(each) for each in headings(target.read_text())]
            assert heading in anchors, f"no heading {heading} in {target.name}"


def test_every_page_is_reached_from_the_index() -> None:
    reached, new = set(), {DOCS / "README.md"}
    while new:
        reached |= new
        new = {target.resolve() for page in new for target, _ in links(page) if target.suffix == ".md"} - reached
    alone = [name_of(page) for page in PAGES if page.is_relative_to(DOCS) and page not in reached]
    assert not alone


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("GET /api/users/{user_id}", "get-apiusersuser_id"),
        ("1. A `right` is lost: what then?", "1-a-right-is-lost-what-then"),
        ("See [this](that.md)", "see-this"),
    ],
)
def test_anchors(heading: str, expected: str) -> None:
    assert anchor(heading) == expected
