"""`make drill` where there is nothing to drill, and what a process leaves that is killed in the midst of a drill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local_stack.drills.__main__ import main
from local_stack.drills.catalog import DRILLS
from local_stack.drills.repairs import Noted, Repairs

_KILLED = """
import os, signal, sys
from pathlib import Path
from local_stack.drills.repairs import Repairs
repairs = Repairs(Path(sys.argv[1]), {})
repairs.note("switch", "lamp is on", name="lamp")
try:
    os.kill(os.getpid(), signal.SIGKILL)
finally:
    repairs.put_right()
"""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--name", "dead-relay", "--stage", "production"), "run on the local stack, and not on 'production'"),
        (("--name", "flood"), "There is no drill 'flood'. Allowed: limiter-outage, dead-relay"),
        (("--name", "dead-relay"), "No stack is running"),
        (("--name", "repair", "--stage", "local"), "No stack is running"),
    ],
)
def test_what_cannot_be_drilled_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    assert main([*arguments, "--stack", str(tmp_path / "stack.json")]) == 2
    assert told in capsys.readouterr().err


def test_a_stack_that_does_not_answer_is_not_drilled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack = tmp_path / "stack.json"
    stack.write_text(json.dumps({"emulator_url": "http://127.0.0.1:9", "state": str(tmp_path)}))
    assert main(["--name", "dead-relay", "--stack", str(stack)]) == 2
    assert "Nothing answers at http://127.0.0.1:9" in capsys.readouterr().err


def test_without_a_name_the_drills_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in DRILLS)
    assert main(["--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == list(DRILLS)


def test_a_process_that_is_killed_leaves_a_list_for_the_next(tmp_path: Path) -> None:
    file = tmp_path / "drill.json"
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(file)])
    assert killed.returncode == -signal.SIGKILL
    repaired: list[str] = []
    repairs = Repairs(file, {"switch": lambda of: repaired.append(of["name"])})
    assert repairs.left() == [Noted("switch", "lamp is on", {"name": "lamp"})]
    assert repairs.put_right() == ["lamp is on"] and repaired == ["lamp"] and not file.exists()
