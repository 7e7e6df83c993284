"""Every command that a page tells people to run is run by something: an entry of `commands.RUN_BY` says by what.

That the commands are right as they stand there, tests/contracts/test_commands.py shows, which starts processes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.commands import FOREIGN, RUN_BY, RunBy, all_commands, commands_of, runners
from tests.docs.pages import ROOT

COMMANDS = sorted(all_commands())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_run_by_something(command: str) -> None:
    assert runners(command) or command in FOREIGN, f"nobody runs it; it is in {all_commands()[command]}"


@pytest.mark.parametrize("entry", RUN_BY, ids=lambda entry: entry.pattern)
def test_who_runs_a_command_does(entry: RunBy) -> None:
    assert entry.says in (ROOT / entry.file).read_text(), entry.file
    assert any(runners(command) == [entry] for command in COMMANDS), "no page has it any more"


def test_foreign_commands_are_in_pages() -> None:
    assert set(FOREIGN) <= set(COMMANDS)


def test_commands_are_found_wherever_they_stand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Run `make one`, not `one`:\n\n    make two  # now\n\n```sh\nmake \\\n  three\n```\n\n    no command\n"
    )
    assert sorted(commands_of(page)) == ["make one", "make three", "make two"]


def test_a_command_that_nobody_runs_is_noticed() -> None:
    assert not runners("make coffee") and not runners("python -m functions.relays")
