"""The text of a stage file: JSON, read strictly. What cannot be read is told in one line, which names the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class StageError(ValueError):
    """The stage does not exist, or its file is wrong."""


def read(path: Path) -> dict[str, Any]:
    """The object that a stage file holds. Raises `StageError`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StageError(f"{path.name}: cannot be read: {error.strerror}") from error
    return json_object(raw, path.name)


def json_object(raw: bytes, place: str) -> dict[str, Any]:
    """The object of a JSON text. `place` is what an error names. Raises `StageError`."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StageError(f"{place}: is not UTF-8 (byte {error.start})") from error
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, place), parse_constant=_no_number)
    except RecursionError as error:
        raise StageError(f"{place}: is nested too deeply") from error
    except StageError:
        raise
    except ValueError as error:
        raise StageError(f"{place}: is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise StageError(f"{place}: must be a JSON object")
    return value


def variable(name: str, value: object, place: str) -> str:
    """A setting as the text of an environment variable: `false` -> `"false"`, `5` -> `"5"`. Raises `StageError`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise StageError(
        f"{place}: {name}={shown}: allowed: a text, a whole number, true or false; a list is a text with commas"
    )


def variables(given: Mapping[str, object], place: str) -> dict[str, str]:
    """Settings as environment variables. Raises `StageError`."""
    return {name: variable(name, value, place) for name, value in given.items()}


def _once(pairs: list[tuple[str, Any]], place: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise StageError(f"{place}: {key!r} is there twice")
        found[key] = value
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")
