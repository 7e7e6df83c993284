"""The runbooks of docs/operations: one page for each topic, with the same headings and commands that a test runs."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import DOCS, section

RUNBOOKS = sorted((DOCS / "operations").glob("runbook-*.md"))
HEADINGS = (
    "When",
    "What to look at",
    "Commands",
    "What they print",
    "How to know it is over",
    "How to go back",
)


def blocks(page: Path) -> list[str]:
    """The shell blocks of a page, in their order. Each one goes on where the one before ended."""
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.M | re.S)


def printed(page: Path) -> list[re.Pattern[str]]:
    """The lines that a page says its blocks print. `…` stands for anything."""
    lines = re.findall(r"^ {4}(\S.*)$", section(page.read_text(), "What they print"), re.M)
    return [re.compile(".*".join(re.escape(part) for part in line.split("…"))) for line in lines]
