"""A drill that runs: its exit, and that what it broke is put right whatever becomes of it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from local_stack.checks import CheckFailed
from local_stack.drills.catalog import DRILLS
from local_stack.drills.damage import Damage
from local_stack.drills.drill import MADE, Drill, Finding, Running
from local_stack.drills.repairs import NotPutRight, Repairs
from local_stack.drills.report import Report, listed, listed_as_json
from local_stack.drills.runner import DrillFailed, carry_out
from local_stack.smoke.client import Smoke


class Switches:
    """Stands for the stack: what is off, in the order in which it was switched off."""

    def __init__(self, file: Path) -> None:
        self.off: list[str] = []
        self.repaired: list[str] = []
        self.stuck: set[str] = set()
        self.repairs = Repairs(file, {"switch": self._on, MADE: self._on})

    def switch_off(self, name: str, kind: str = "switch") -> None:
        self.repairs.note(kind, f"{name} is on", name=name)
        self.off.append(name)

    def _on(self, of: Mapping[str, str]) -> None:
        if of["name"] in self.stuck:
            raise LookupError("it is stuck")
        self.repaired.append(of["name"])
        if of["name"] in self.off:
            self.off.remove(of["name"])


class NoViewers:
    """Of `Smoke`, what the runner needs."""

    async def close_viewers(self) -> None: ...


@pytest.fixture
def switches(tmp_path: Path) -> Switches:
    return Switches(tmp_path / "drill.json")


def run(switches: Switches, body: Callable[[Running], Awaitable[None]]) -> Report:
    running = Running(cast(Smoke, NoViewers()), cast(Damage, None), switches.repairs)
    return carry_out(Drill("a-drill", "a switch is off", 1, body), running, switches.repairs)


async def holds() -> str:
    return "light"


async def fails(error: Exception) -> str:
    raise error


@pytest.mark.parametrize(
    ("error", "seen"),
    [(CheckFailed("dark"), "dark"), (TimeoutError("no light within 3 s"), "no light within 3 s")],
)
def test_an_expectation_that_does_not_hold_is_told_and_the_next_is_looked_at(
    switches: Switches, error: Exception, seen: str
) -> None:
    async def body(running: Running) -> None:
        switches.switch_off("lamp")
        await running.expects("there is light", fails(error))
        await running.expects("there is light again", holds())

    report = run(switches, body)
    assert report.findings == [
        Finding("there is light", seen, held=False),
        Finding("there is light again", "light", held=True),
    ]
    assert not report.held and not switches.off


def test_a_drill_whose_expectations_hold_has_held(switches: Switches) -> None:
    async def body(running: Running) -> None:
        switches.switch_off("lamp")
        await running.expects("there is light", holds())

    assert run(switches, body).held and not switches.off


def test_a_drill_that_expected_nothing_has_shown_nothing() -> None:
    assert not Report("a-drill", [], 1.0).held


def test_a_fault_of_the_drill_is_none_of_the_stack_and_all_is_put_right(switches: Switches) -> None:
    async def body(running: Running) -> None:
        switches.switch_off("lamp")
        raise KeyError("a fault")

    with pytest.raises(DrillFailed, match="KeyError: 'a fault'"):
        run(switches, body)
    assert not switches.off and not switches.repairs.left()


def test_what_was_interrupted_is_put_right(switches: Switches) -> None:
    async def body(running: Running) -> None:
        switches.switch_off("lamp")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(switches, body)
    assert not switches.off


def test_the_next_run_puts_right_what_a_killed_drill_left_behind(switches: Switches, tmp_path: Path) -> None:
    """A process that is killed runs nothing of its own any more: all that is left of it is the list."""
    switches.switch_off("lamp")
    switches.switch_off("fan")
    next_run = Switches(tmp_path / "drill.json")
    assert next_run.repairs.put_right() == ["fan is on", "lamp is on"]
    assert next_run.repaired == ["fan", "lamp"]
    assert Switches(tmp_path / "drill.json").repairs.left() == []


def test_who_is_killed_between_note_and_damage_has_it_put_right_all_the_same(switches: Switches) -> None:
    switches.repairs.note("switch", "lamp is on", name="lamp")
    assert switches.repairs.put_right() == ["lamp is on"] and not switches.off


def test_what_cannot_be_put_right_stays_on_the_list_and_the_rest_is_put_right(switches: Switches) -> None:
    for name in ("lamp", "fan", "bell"):
        switches.switch_off(name)
    switches.stuck = {"fan"}
    with pytest.raises(NotPutRight, match="fan is on: LookupError: it is stuck"):
        switches.repairs.put_right()
    assert switches.off == ["fan"] and [each.of for each in switches.repairs.left()] == [{"name": "fan"}]
    switches.stuck = set()
    assert switches.repairs.put_right() == ["fan is on"] and not switches.off


def test_a_repair_within_a_drill_leaves_what_the_drill_made(switches: Switches) -> None:
    async def body(running: Running) -> None:
        switches.switch_off("dashboard", MADE)
        switches.switch_off("lamp")
        await running.put_right()
        assert switches.off == ["dashboard"]
        await running.expects("there is light", holds())

    assert run(switches, body).held and not switches.off


# --- what is printed ----------------------------------------------------------------------------------------


def test_the_table_lines_up_and_says_what_held() -> None:
    findings = [Finding("light", "light", held=True), Finding("a long expectation", "x" * 200, held=False)]
    lines = Report("a-drill", findings, 3.4).as_table().splitlines()
    assert lines[0].split() == ["expectation", "seen", "held?"]
    assert lines[1].index("held") == lines[2].index("not held") == lines[0].index("held?")
    assert lines[-1] == "  1 of 2 expectations held, in 3 s"


def test_json_has_all_that_was_seen() -> None:
    said = json.loads(Report("a-drill", [Finding("light", "x" * 200, held=False)], 3.44).as_json())
    finding = {"expectation": "light", "seen": "x" * 200, "held": False}
    assert said == {"drill": "a-drill", "held": False, "seconds": 3.4, "findings": [finding]}


def test_all_drills_are_listed() -> None:
    assert list(DRILLS) == [
        "limiter-outage",
        "dead-relay",
        "lost-stream-mapping",
        "poisoned-task",
        "throttled-platform",
        "expired-cursor",
    ]
    shown = listed(DRILLS.values())
    for drill in DRILLS.values():
        assert f"{drill.name} " in shown and f" {drill.takes_s} s " in shown and drill.breaks in shown
    assert [each["name"] for each in json.loads(listed_as_json(DRILLS.values()))] == list(DRILLS)
