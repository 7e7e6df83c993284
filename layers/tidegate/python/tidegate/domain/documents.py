"""Dashboard documents, version 1: what is accepted, and its canonical form.

Invariant of this file: for any JSON, `check_document` either returns a document whose datasources are well formed and
uniquely named and carry no secret in plain sight, and whose panes can be drawn, or raises an error that lists the path
of every problem found.

Documents come from other tools too. So of panes only that is refused which could not be drawn; `document_warnings` has
the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tidegate.domain import history
from tidegate.domain.identifiers import MAX_IDENTIFIER
from tidegate.domain.plain_secrets import has_user_info, names_secret, secret_parameters
from tidegate.errors import InvalidInput
from tidegate.protocol import strict_json

MAX_DATASOURCES, MAX_PANES, MAX_DEPTH = 200, 200, 32
#: Of all panes together, as other tools have it.
MAX_WIDGETS = 1000
#: Least and greatest place and size of a pane, in cells of the grid. A dashboard has up to 12 columns.
_LAYOUT = {"x": (0, 11), "y": (0, 10_000), "w": (1, 12), "h": (1, 100)}
#: A DynamoDB item holds at most 400 KB. The rest of the dashboard has to fit in as well.
MAX_BYTES = 350_000

_WIDTHS = ("sm", "md", "lg", "xl")
_KEYS = {"schemaVersion", "title", "columns", "width", "settings", "datasources", "panes", "image", "generator"}
_DATASOURCE_KEYS = {"id", "title", "type", "enabled", "settings"}


_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*:[/\\]{2}")
_USE_PROFILE = "Put the secret into a credential profile, and name that in credentialProfileId"


class InvalidDocument(InvalidInput):
    """The document is not accepted. `problems` are pairs (path, what is allowed)."""

    code = "invalid_document"

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        text = "; ".join(f"{path}: {what}" for path, what in problems[:5])
        super().__init__(f"Dashboard document failed validation: {text}")
        self.problems = problems


def check_document(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the canonical document. Raises `InvalidDocument`."""
    problems: list[tuple[str, str]] = []

    def need(condition: bool, path: str, allowed: str) -> None:
        if not condition:
            problems.append((path, allowed))

    if _depth(raw) > MAX_DEPTH:
        raise InvalidDocument([("$", f"at most {MAX_DEPTH} levels deep")])
    try:
        size = len(json.dumps(raw, ensure_ascii=False, allow_nan=False).encode())
    except ValueError as error:
        raise InvalidDocument([("$", "no lone surrogates, no NaN or Infinity")]) from error
    need(size <= MAX_BYTES, "$", f"at most {MAX_BYTES} bytes")
    need(not raw.keys() - _KEYS, "$", f"only {', '.join(sorted(_KEYS))}")
    version = raw.get("schemaVersion")
    need(type(version) is int and version == 1, "schemaVersion", "1")
    title = raw.get("title")
    need(isinstance(title, str) and 1 <= len(title.strip()) <= 200, "title", "1 to 200 characters")
    columns = raw.get("columns", 3)
    need(isinstance(columns, int) and not isinstance(columns, bool) and 3 <= columns <= 12, "columns", "3 to 12")
    need(raw.get("width", "md") in _WIDTHS, "width", ", ".join(_WIDTHS))
    need(isinstance(raw.get("settings", {}), dict), "settings", "an object")
    panes = raw.get("panes", [])
    need(isinstance(panes, list) and len(panes) <= MAX_PANES, "panes", f"a list of at most {MAX_PANES}")
    datasources = raw.get("datasources", [])
    need(
        isinstance(datasources, list) and len(datasources) <= MAX_DATASOURCES,
        "datasources",
        f"a list of at most {MAX_DATASOURCES}",
    )
    if isinstance(datasources, list):
        _check_datasources(datasources, problems)
    if isinstance(panes, list):
        _check_panes(panes, problems)
    if problems:
        raise InvalidDocument(problems)
    return {
        "columns": 3,
        "width": "md",
        "settings": {},
        "datasources": [],
        "panes": [],
        **raw,
        "title": str(title).strip(),
    }


def datasource(document: Mapping[str, Any], datasource_id: str) -> Mapping[str, Any] | None:
    """The datasource of that id; None when there is none."""
    return next((entry for entry in document["datasources"] if entry["id"] == datasource_id), None)


def _check_datasources(datasources: list[Any], problems: list[tuple[str, str]]) -> None:
    seen: set[str] = set()
    for index, entry in enumerate(datasources):
        path = f"datasources[{index}]"
        if not isinstance(entry, dict):
            problems.append((path, "an object"))
            continue
        identity = entry.get("id")
        if not isinstance(identity, str) or not 1 <= len(identity) <= 128 or identity != identity.strip():
            problems.append((f"{path}.id", "1 to 128 characters without spaces around"))
        elif identity in seen:
            problems.append((f"{path}.id", f"unique; '{identity}' is there twice"))
        else:
            seen.add(identity)
        if not isinstance(entry.get("type"), str) or not entry["type"].strip():
            problems.append((f"{path}.type", "a type such as sse, websocket, mqtt"))
        _check_settings(entry.get("settings", {}), f"{path}.settings", problems)
        if not isinstance(entry.get("enabled", True), bool):
            problems.append((f"{path}.enabled", "true or false"))
        if entry.keys() - _DATASOURCE_KEYS:
            problems.append((path, f"only {', '.join(sorted(_DATASOURCE_KEYS))}"))


def _check_panes(panes: list[Any], problems: list[tuple[str, str]]) -> None:
    """Refuse what pages cannot draw: they tell panes apart by their ids, and widgets of a pane by theirs."""
    seen: set[str] = set()
    widgets = 0
    for index, pane in enumerate(panes):
        path = f"panes[{index}]"
        if not isinstance(pane, dict):
            problems.append((path, "an object"))
            continue
        _check_id(pane, path, seen, problems)
        _check_layout(pane.get("layout"), f"{path}.layout", problems)
        inner = pane.get("widgets", [])
        if not isinstance(inner, list):
            problems.append((f"{path}.widgets", "a list"))
            continue
        widgets += len(inner)
        _check_widgets(inner, f"{path}.widgets", problems)
    if widgets > MAX_WIDGETS:
        problems.append(("panes", f"at most {MAX_WIDGETS} widgets in all panes"))


def _check_widgets(widgets: list[Any], path: str, problems: list[tuple[str, str]]) -> None:
    seen: set[str] = set()
    for index, widget in enumerate(widgets):
        at = f"{path}[{index}]"
        if not isinstance(widget, dict):
            problems.append((at, "an object"))
            continue
        _check_id(widget, at, seen, problems)
        if not isinstance(widget.get("settings", {}), dict):
            problems.append((f"{at}.settings", "an object"))


def _check_id(entry: Mapping[str, Any], path: str, seen: set[str], problems: list[tuple[str, str]]) -> None:
    """An id may be left out: pages then go by the place in the list. One that is there is unique."""
    identity = entry.get("id")
    if identity is None:
        return
    if not isinstance(identity, str) or not 1 <= len(identity) <= MAX_IDENTIFIER:
        problems.append((f"{path}.id", f"1 to {MAX_IDENTIFIER} characters"))
    elif identity in seen:
        problems.append((f"{path}.id", f"unique; {_quoted(identity)} is there twice"))
    else:
        seen.add(identity)


def _check_layout(layout: Any, path: str, problems: list[tuple[str, str]]) -> None:
    """What is left out, or null, is for pages to choose."""
    if layout is None:
        return
    if not isinstance(layout, dict):
        problems.append((path, "an object"))
        return
    for name, (low, high) in _LAYOUT.items():
        value = layout.get(name)
        if value is not None and (type(value) is not int or not low <= value <= high):
            problems.append((f"{path}.{name}", f"an integer from {low} to {high}"))


def _check_settings(settings: Any, path: str, problems: list[tuple[str, str]]) -> None:
    if not isinstance(settings, dict):
        problems.append((path, "an object"))
        return
    for name in ("brokerProfileId", "credentialProfileId"):
        profile_id = settings.get(name)
        if isinstance(profile_id, str) and len(profile_id.strip()) > MAX_IDENTIFIER:
            problems.append((f"{path}.{name}", f"at most {MAX_IDENTIFIER} characters"))
    if "history" in settings and (wrong := history.problem(settings["history"])) is not None:
        problems.append((f"{path}.history{wrong[0]}", wrong[1]))
    for name in ("headers", "requestHeaders"):
        _check_headers(settings.get(name), f"{path}.{name}", problems)
    for name, value in settings.items():
        if isinstance(value, str) and (name == "url" or _URL.match(value)):
            _check_url(value, f"{path}.{name}", problems)


def _check_headers(headers: Any, path: str, problems: list[tuple[str, str]]) -> None:
    """Refuse headers that carry a secret, whether they come as an object, as text of one, or as a list of names."""
    if isinstance(headers, str) and headers.strip():
        try:
            headers = strict_json.loads(headers.encode())
        except (InvalidInput, ValueError):
            problems.append((path, "a JSON object"))
            return
    if isinstance(headers, list):
        headers = [entry.get("name") for entry in headers if isinstance(entry, dict)]
    names = [name.strip() for name in headers if isinstance(name, str)] if isinstance(headers, dict | list) else []
    problems += [(path, f"no {_quoted(name)}. {_USE_PROFILE}") for name in names if names_secret(name)]


def _check_url(url: str, path: str, problems: list[tuple[str, str]]) -> None:
    if has_user_info(url):
        problems.append((path, f"no user name and no password. {_USE_PROFILE}"))
    problems += [(path, f"no parameter {_quoted(name)}. {_USE_PROFILE}") for name in secret_parameters(url)]


def _quoted(name: str) -> str:
    return f"{name[:60]!a}"


def _depth(value: Any) -> int:
    """How deep the JSON is nested. It walks without recursion, so that deep nesting cannot exhaust the stack."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        if deepest > MAX_DEPTH + 1:
            break
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return deepest
