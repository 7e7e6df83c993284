"""What a part of the bench found: tables of figures, and the circumstances they were measured under."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local_stack import show


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, and the format it is shown in (Python's format specification)."""

    value: float
    spec: str = ","

    def __str__(self) -> str:
        return format(self.value, self.spec)


Cell = str | Figure


@dataclass(frozen=True, slots=True)
class Table:
    """Figures in rows.

    Attributes:
        columns: what each column holds, with its unit. The first names the table.
        rows: as many cells in each as there are columns. An empty text where a figure does not apply.
        notes: sentences to print below.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        lines = [show.table([self.columns, *(tuple(str(cell) for cell in row) for row in self.rows)])]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def json(self) -> dict[str, Any]:
        """Numbers as numbers, for programs that compare results."""
        rows = [[cell.value if isinstance(cell, Figure) else cell for cell in row] for row in self.rows]
        return {"columns": list(self.columns), "rows": rows, "notes": list(self.notes)}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Where, when and beside how much other work something was measured.

    Attributes:
        date: start of the measurement, UTC.
        cores: that this process may use.
        load_before, load_after: the system's load average of the last minute (`os.getloadavg`). The bench is part of
            the second.
    """

    date: datetime
    cores: int
    load_before: float
    load_after: float = 0.0

    def text(self) -> str:
        return (
            f"measured {self.date:%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}, {platform.machine()}, "
            f"{self.cores} cores, load {self.load_before:.2f} before and {self.load_after:.2f} after"
        )

    def json(self) -> dict[str, Any]:
        return {
            "date": self.date.isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": self.cores,
            "load_before": self.load_before,
            "load_after": self.load_after,
        }


def circumstances() -> Circumstances:
    """Those of now."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Circumstances(datetime.now(UTC), cores, os.getloadavg()[0])


@dataclass(frozen=True, slots=True)
class Result:
    """One part's figures. `small` says that they come from a run too small to mean anything."""

    part: str
    small: bool
    circumstances: Circumstances
    tables: Sequence[Table]

    def text(self) -> str:
        size = ["small size: shows that the part runs, its figures mean nothing"] if self.small else []
        head = "\n".join([self.circumstances.text(), *size])
        return "\n\n".join([head, *(table.text() for table in self.tables)]) + "\n"

    def json(self) -> Mapping[str, Any]:
        return {
            "part": self.part,
            "size": "small" if self.small else "full",
            **self.circumstances.json(),
            "tables": [table.json() for table in self.tables],
        }

    def keep(self, folder: Path) -> None:
        """Write it as `<part>.txt` for people and `<part>.json` for programs.

        A part that was left out on this machine has no rows, and leaves there what was measured elsewhere.
        """
        if any(table.rows for table in self.tables):
            folder.mkdir(exist_ok=True)
            (folder / f"{self.part}.txt").write_text(self.text())
            (folder / f"{self.part}.json").write_text(json.dumps(self.json(), indent=1) + "\n")
