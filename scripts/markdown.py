"""Tables of the generated pages."""

from __future__ import annotations

from collections.abc import Sequence


def row(cells: Sequence[str]) -> str:
    """A line of a table. A bar in a cell is written so that it ends none."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with its heads."""
    return row(heads) + row(["---"] * len(heads)) + "".join(row(each) for each in rows)
