"""Reading the documents: which there are, their headings, tables and code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "layers/tidegate/python/tidegate"
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
#: Of the clients: what is published with each.
CLIENT_PAGES = (ROOT / "web/client/README.md", ROOT / "clients/python/README.md")
#: Every page, README and CONTRIBUTING included.
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.glob("**/*.md"), *CLIENT_PAGES})
#: Code that runs in a function, and what deploys it.
CODE = ("layers", "functions", "infra")


def name_of(page: Path) -> str:
    """A page as it is named in a failure."""
    return str(page.relative_to(ROOT))


def code_files(*folders: str) -> list[Path]:
    """Python files below these folders of the checkout, by path."""
    return sorted(file for folder in folders or CODE for file in (ROOT / folder).rglob("*.py"))


def headings(text: str) -> list[str]:
    """The headings of a page, without their number signs. Code blocks are not looked into."""
    return re.findall(r"^#{1,6} (.+?)\s*$", without_blocks(text), re.M)


def anchor(heading: str) -> str:
    """A heading's anchor: lower case, spaces to hyphens, and no other sign but hyphen and underscore (as GitHub)."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def without_blocks(text: str) -> str:
    """The page without its fenced code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of the same level or a higher one.

    Raises:
        AssertionError: no such heading.
    """
    start = re.search(rf"^(#+) {re.escape(heading)}\s*$", text, re.M)
    assert start, f"no heading: {heading}"
    rest = text[start.end() :]
    end = re.search(rf"^#{{1,{len(start.group(1))}}} ", rest, re.M)
    return rest[: end.start()] if end else rest


def rows(text: str) -> Iterator[list[str]]:
    """The rows of all tables, as cells; heads and rules are left out."""
    for table in re.findall(r"(?:^\|.*\|\n?)+", text, re.M):
        for line in table.strip().splitlines()[2:]:
            yield [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]


def code_words(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)
