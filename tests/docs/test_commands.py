"""Every command that a page tells people to run is run by something: an entry of `commands.RUN_BY` says by what.

That the commands are right as they stand there, tests/contracts/test_commands.py shows, which starts processes.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import commands_doc
from tests.docs.commands import (
    LISTED,
    NEEDS_AN_ACCOUNT,
    NOT_RUN,
    RUN_AS_A_WHOLE,
    RUN_BY,
    RunBy,
    all_commands,
    commands_of,
    run_as_a_whole,
    runners,
)
from tests.docs.pages import PAGES, ROOT, name_of

COMMANDS = sorted(all_commands())


def test_the_list_of_all_commands_is_current() -> None:
    assert commands_doc.render() == LISTED.read_text(), "run: python scripts/commands_doc.py"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_run_by_something(command: str) -> None:
    assert runners(command) or command in NOT_RUN, f"nobody runs it; it is in {all_commands()[command]}"


@pytest.mark.parametrize("entry", [*RUN_BY, *NEEDS_AN_ACCOUNT], ids=lambda entry: entry.pattern)
def test_who_runs_a_command_does(entry: RunBy) -> None:
    assert entry.says in (ROOT / entry.file).read_text(), entry.file
    assert any(runners(command) == [entry] for command in COMMANDS), "no page has it any more"


@pytest.mark.parametrize("page", RUN_AS_A_WHOLE, ids=name_of)
def test_what_runs_a_page_does(page: Path) -> None:
    assert re.search(rf"{page.name}|\bRUNBOOKS\b", (ROOT / RUN_AS_A_WHOLE[page]).read_text())
    assert run_as_a_whole(page) or page.name == "first-dashboard.md", "only curl, which is no command of ours"


def test_what_nothing_runs_is_in_pages() -> None:
    assert set(NOT_RUN) <= set(COMMANDS)
    assert not [command for command in NOT_RUN if runners(command)]


def test_what_pre_commit_would_run_is_what_make_check_runs() -> None:
    hooks = re.findall(r"entry: (.+)", (ROOT / ".pre-commit-config.yaml").read_text())
    (recipe,) = re.findall(r"^check:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.M)
    ignored = re.compile(r"env|PYTHONPATH=.*|--force-exclude|@\$\(RUN\)|\.")

    def words(line: str) -> list[str]:
        return [word.removeprefix(".venv/bin/") for word in line.split() if not ignored.fullmatch(word)]

    assert [words(hook) for hook in hooks] == [words(line) for line in recipe.splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_its_language(page: Path) -> None:
    """A block of commands that does not say so would not be looked into."""
    opened = re.findall(r"^```(.*)$", page.read_text(), re.M)[::2]
    assert set(opened) <= {"sh", "python", "json", "yaml", "js", "html"}


def test_commands_are_found_wherever_they_stand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Run `make one`, not `one`:\n\n    make two  # now\n\n```sh\nmake \\\n  three\n```\n\n    no command\n"
    )
    assert sorted(commands_of(page)) == ["make one", "make three", "make two"]


def test_a_command_that_nobody_runs_is_noticed() -> None:
    assert not runners("make coffee") and not runners("python -m functions.relays")
