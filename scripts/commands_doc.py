"""Write docs/reference/commands.md: every command of the docs, where it stands, and the test that runs it.

A test keeps both equal. Which test runs what is in tests/docs/commands.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from scripts.markdown import table
from tests.docs.commands import (
    LISTED,
    NEEDS_AN_ACCOUNT,
    NOT_RUN,
    RUN_AS_A_WHOLE,
    RUN_BY,
    RunBy,
    all_commands,
    run_as_a_whole,
    runners,
)
from tests.docs.pages import ROOT

_HEAD = """# Commands

Every command that a page tells people to run, and the test that runs it. A command that nobody runs is in no page, but
for [those at the end](#commands-that-nothing-runs). This page is generated. After a change, run:

    PYTHONPATH=layers/tidegate/python:. .venv/bin/python scripts/commands_doc.py

"""
_RUN = """## Commands that are run

By the test that is named, or by the same code within it.

"""
_ACCOUNT = """
## Commands that need an account

Here no test runs them wholly. What is run of each is named: on moto, which stands in for AWS, on the emulator, or on
botocore's description of AWS. That one finds a service, an operation or an option that does not exist.

"""
_WHOLE = """
## Pages that are run as a whole

The blocks of these pages are run in their order, against the running local stack. `aws` is `tests/aws_cli.py` there,
which calls the emulator. What the blocks call:

"""
_NOT = """
## Commands that nothing runs

"""


def render() -> str:
    """The whole page."""
    found = sorted(all_commands().items())
    return "".join(
        (
            _HEAD,
            _RUN,
            table(("command", "run by", "on"), list(_rows(found, RUN_BY))),
            _ACCOUNT,
            table(("command", "instead", "on"), list(_rows(found, NEEDS_AN_ACCOUNT))),
            _WHOLE,
            table(
                ("page", "calls", "run by"),
                [
                    [_link(page), ", ".join(f"`{each}`" for each in run_as_a_whole(page)) or "`curl` only", f"`{test}`"]
                    for page, test in RUN_AS_A_WHOLE.items()
                ],
            ),
            _NOT,
            table(("command", "why"), [[f"`{command}`", why] for command, why in sorted(NOT_RUN.items())]),
        )
    )


def _rows(found: Iterable[tuple[str, list[str]]], of: Sequence[RunBy]) -> Iterable[list[str]]:
    for command, pages in found:
        for entry in runners(command):
            if entry in of:
                yield [f"`{command}`", f"`{entry.file}`", ", ".join(_link(ROOT / page) for page in sorted(set(pages)))]


def _link(page: Path) -> str:
    """To a page, by its name."""
    return f"[{page.stem}]({os.path.relpath(page, LISTED.parent)})"


if __name__ == "__main__":
    LISTED.write_text(render())
