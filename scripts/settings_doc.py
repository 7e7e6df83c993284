"""Write docs/reference/settings.md from the settings module; the page says how.

A test keeps both equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tidegate.settings import Setting, documented

TARGET = Path(__file__).resolve().parent.parent / "docs/reference/settings.md"

_HEAD = """# Settings

Environment variables of the functions. A stage sets them in `infra/stages/<stage>.json`; the CDK app checks them at
synth, the functions at cold start, with the same code (`tidegate.settings`). A value that does not parse or is out of
range stops both, with a message that names variable, value and range; nothing falls back to a default silently. An
empty value counts as unset.

Secrets are not settings: they are generated in Secrets Manager, and functions get their ARNs.

This page is generated. After a change of the settings, run:

    PYTHONPATH=layers/tidegate/python:. .venv/bin/python scripts/settings_doc.py

"""


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _table(settings: Iterable[Setting]) -> str:
    heads = ["variable", "default", "effect"]
    lines = _row(heads) + _row(["---"] * len(heads))
    for setting in settings:
        lines += _row([f"`{setting.variable}`", f"`{setting.shown_default}`", setting.effect])
    return lines


def render() -> str:
    """The whole page."""
    return _HEAD + _table(documented())


if __name__ == "__main__":
    TARGET.write_text(render())
