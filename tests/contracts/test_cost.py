"""`make cost`, as the page tells people to run it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from scripts.cost_doc import LOADS, TARGET
from scripts.cost_doc import options as options_of
from tests.docs.commands import commands_of
from tests.docs.pages import ROOT

ASKED = sorted(command for command in commands_of(TARGET) if command.startswith("make cost"))


def run(options: str, where: Path | None = None) -> str:
    if where is not None:
        options = options.replace("mine.json", str(where))
    done = subprocess.run(
        ["make", "cost", f"OPTIONS={options}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", ASKED)
def test_the_commands_of_the_page(command: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text('{"secret": 0.5}')
    found = re.search(r'OPTIONS=(?:"([^"]*)"|(\S+))', command)
    printed = run((found[1] or found[2]) if found else "", mine)
    assert "usage" in printed or "$ a month" in printed or json.loads(printed)["dollars"] > 0


def test_the_page_s_loads_can_be_asked_for() -> None:
    for text, load in LOADS.values():
        answer = json.loads(run(f"{options_of(load)} --json"))
        assert {name: getattr(load, name) for name in load.__slots__} == answer["load"], text
