"""What the code counts and logs, read from its calls of an observer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from tests.docs.pages import code_files

#: Method of an observer -> level of the line it logs; None for what logs none.
LEVELS = {"count": None, "time": None, "about": None, "info": "INFO", "warning": "WARNING", "fault": "ERROR"}
#: Where an observer is used, beside `local_stack`, which has none.
FOLDERS = ("layers", "functions")


@dataclass
class Observed:
    """A metric, or a log message: the method that writes it, its names of dimensions or fields, and where."""

    method: str
    fields: set[str] = field(default_factory=set)
    places: list[str] = field(default_factory=list)


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """(method, call, file and line) of each call of an observer."""
    for file in code_files(*FOLDERS):
        if "memory" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value
            owner_name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if owner_name.strip("_") == "observer" and node.func.attr in LEVELS:
                yield node.func.attr, node, f"{file.name}:{node.lineno}"


def _text(call: ast.Call) -> str:
    first = call.args[0]
    assert isinstance(first, ast.Constant), "a metric or message is written down, so that it can be found"
    return str(first.value)


@cache
def metrics() -> dict[str, Observed]:
    """By name."""
    return _collected(("count", "time"), ())


@cache
def logs() -> dict[str, Observed]:
    """By message."""
    return _collected(("info", "warning", "fault"), ())


def names_of_events() -> set[str]:
    """Fields that are put into all further lines of an event."""
    return {each.arg for method, call, _ in calls() if method == "about" for each in call.keywords if each.arg}


def _collected(methods: tuple[str, ...], skipped: tuple[str, ...]) -> dict[str, Observed]:
    found: dict[str, Observed] = {}
    for method, call, place in calls():
        if method in methods:
            observed = found.setdefault(_text(call), Observed(method))
            assert observed.method == method, f"{_text(call)} has two meanings: {observed.places}, {place}"
            observed.fields |= {each.arg for each in call.keywords if each.arg and each.arg != "value"} - set(skipped)
            observed.places.append(place)
    return found
