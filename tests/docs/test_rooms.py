"""The page about the rooms tells what each imports of the others, as the code has it."""

from __future__ import annotations

import ast
import re

from tests.docs.pages import ROOT

USECASES = ROOT / "layers/tidegate/python/tidegate/usecases"
PAGE = ROOT / "docs/concepts/rooms.md"
_PREFIX = "tidegate.usecases."


def imported_rooms(room: str) -> set[str]:
    """The other rooms that the modules of a room import from."""
    found = set()
    for file in (USECASES / room).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(_PREFIX):
                found.add(str(node.module).removeprefix(_PREFIX).split(".")[0])
    return found - {room}


def test_the_table_is_what_the_code_imports() -> None:
    table = PAGE.read_text().partition("| imports of the others |")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`\w+`) \| (.*) \|$", table, re.M)
    told = {room.strip("`"): set(re.findall(r"`(\w+)`", imports)) for room, imports in rows}
    rooms = {folder.name for folder in USECASES.iterdir() if (folder / "__init__.py").exists()}
    assert told == {room: imported_rooms(room) for room in rooms}
