"""What is odd in a dashboard document and may still be saved: for its author, who may not have meant it.

Documents come from other tools too, so what pages can draw in some way is no error. `check_document` refuses the rest.

Invariant of this file: for any JSON, warnings are made without an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from tidegate.domain.documents import MAX_PANES
from tidegate.domain.payload_paths import ALLOWED, is_path

#: Types of widget that pages draw.
WIDGET_TYPES = ("value", "gauge", "sparkline", "series", "table", "status", "text")
#: Warnings of a document that are told. Who has more begins with these.
MOST_WARNINGS = 200

Warnings = Iterator[tuple[str, str]]


class _Place(NamedTuple):
    """Where a pane lies, in cells of the grid."""

    path: str
    x: int
    y: int
    w: int
    h: int

    def overlaps(self, other: _Place) -> bool:
        beside = self.x + self.w <= other.x or other.x + other.w <= self.x
        return not (beside or self.y + self.h <= other.y or other.y + other.h <= self.y)


def warnings_of(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs (path, message), in the order of the document, `MOST_WARNINGS` at most."""
    return list(islice(_warnings(document), MOST_WARNINGS))


def _warnings(document: Mapping[str, Any]) -> Warnings:
    columns = document.get("columns", 3)
    named = {entry.get("id") for _, entry in _objects(document.get("datasources"), "") if _is_text(entry.get("id"))}
    places: list[_Place] = []
    # No more than a document may have: each is compared with those before it.
    for path, pane in islice(_objects(document.get("panes"), "panes"), MAX_PANES):
        if not _is_text(pane.get("id")):
            yield f"{path}.id", "The pane has no id. The editor gives it one."
        place = _place(pane.get("layout"), f"{path}.layout")
        if place is None:
            yield f"{path}.layout", "The pane says not where it lies: x, y, w and h."
        else:
            if isinstance(columns, int) and place.x + place.w > columns:
                yield (
                    place.path,
                    f"The pane leaves the {columns} columns of the dashboard: x + w is {place.x + place.w}.",
                )
            if (other := next((other for other in places if place.overlaps(other)), None)) is not None:
                yield place.path, f"The pane overlaps another one, {other.path.removesuffix('.layout')}."
            places.append(place)
        for at, widget in _objects(pane.get("widgets"), f"{path}.widgets"):
            yield from _of_widget(widget, at, named)


def _of_widget(widget: Mapping[str, Any], path: str, named: set[Any]) -> Warnings:
    if not _is_text(widget.get("id")):
        yield f"{path}.id", "The widget has no id. The editor gives it one."
    if widget.get("type") not in WIDGET_TYPES:
        yield f"{path}.type", f"The widget is not drawn. Drawn are {', '.join(WIDGET_TYPES)}."
        return
    settings = widget.get("settings")
    if not isinstance(settings, Mapping):
        return
    for at, binding in _objects(settings.get("bindings"), f"{path}.settings.bindings"):
        if not _is_text(binding.get("datasourceId")) or binding["datasourceId"] not in named:
            yield f"{at}.datasourceId", "No datasource of the dashboard has this id."
        yield from _of_path(binding, at)
    for at, column in _objects(settings.get("columns"), f"{path}.settings.columns"):
        yield from _of_path(column, at)


def _of_path(holder: Mapping[str, Any], at: str) -> Warnings:
    path = holder.get("path", "")
    if not isinstance(path, str) or not is_path(path):
        yield f"{at}.path", f"It finds nothing. Allowed is {ALLOWED}."


def _place(layout: Any, path: str) -> _Place | None:
    if not isinstance(layout, Mapping):
        return None
    numbers = [layout[name] for name in ("x", "y", "w", "h") if type(layout.get(name)) is int]
    return _Place(path, *numbers) if len(numbers) == 4 else None


def _objects(entries: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of a list, each with its path. What is no list has none."""
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, Mapping):
            yield f"{path}[{index}]", entry


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
