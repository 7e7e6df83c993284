"""Every drill holds, on a stack of its own: what they break is the business of all who share one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from local_stack.config import ROOT, Config, on_free_ports
from local_stack.deployment import client
from local_stack.drills.catalog import DRILLS
from local_stack.processes import wait_until
from local_stack.up import down, up

pytestmark = pytest.mark.full
#: How long a drill may take until it has broken something, seconds.
_BROKEN_S = 60.0


@pytest.fixture(scope="module")
def drilled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    config = on_free_ports(tmp_path_factory.mktemp("drilled"))
    up(config)
    yield config
    down(config)


def make(config: Config, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make drill` on the stack."""
    command = ["make", "--no-print-directory", "drill", f"PYTHON={os.environ.get('PYTHON', 'python3')}", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "TIDEGATE_STATE": str(config.state)}, capture_output=True, text=True
    )


def state(config: Config) -> Mapping[str, Any]:
    """What drills break: mappings, schedules, policies of roles and variables of functions."""
    functions, roles = client(config, "lambda"), client(config, "iam")
    all_functions = functions.list_functions()["Functions"]
    return {
        "mappings": {
            each["UUID"]: each["State"] for each in functions.list_event_source_mappings()["EventSourceMappings"]
        },
        "schedules": [each["State"] for each in client(config, "scheduler").list_schedules()["Schedules"]],
        "policies": {
            role: roles.list_role_policies(RoleName=role)["PolicyNames"]
            for role in {each["Role"].rpartition("/")[2] for each in all_functions}
        },
        "variables": {each["FunctionName"]: each["Environment"]["Variables"] for each in all_functions},
    }


@pytest.mark.parametrize("name", DRILLS)
def test_a_drill_holds_and_leaves_all_as_it_was(
    drilled: Config, name: str, record_property: Callable[[str, object], None]
) -> None:
    before = state(drilled)
    done = make(drilled, f"NAME={name}", "OPTIONS=--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["held"] and report["drill"] == name and len(report["findings"]) > 5
    assert state(drilled) == before and not (drilled.state / "drill.json").exists()
    record_property("seconds", report["seconds"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_an_ended_drill_broke_is_put_right(drilled: Config, number: signal.Signals) -> None:
    """By the drill itself where it can, and else by the next run."""
    before = state(drilled)
    command = [sys.executable, "-m", "local_stack.drills", "--name", "lost-stream-mapping"]
    command += ["--stack", str(drilled.stack_file)]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: state(drilled) != before, _BROKEN_S, process=running), "it broke nothing"
        running.send_signal(number)
    finally:
        running.wait()
    if number is signal.SIGKILL:
        assert state(drilled) != before
    else:
        assert running.returncode == 130
    repaired = make(drilled, "NAME=repair")
    assert repaired.returncode == 0, repaired.stderr
    assert ("put right, of a drill that was ended" in repaired.stdout) == (number is signal.SIGKILL)
    assert state(drilled) == before and not (drilled.state / "drill.json").exists()


def test_only_the_local_stage_is_drilled(drilled: Config) -> None:
    before = state(drilled)
    refused = make(drilled, "NAME=dead-relay", "STAGE=staging")
    assert refused.returncode == 2 and "not on 'staging'" in refused.stderr
    assert state(drilled) == before
