"""All interleavings of viewers who come to a stage at rest, of those who leave it, and of the schedule's runs: whoever
watches is looked at in time. It stops being so as soon as one safeguard is taken out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.model.explorer import Actor, Explorer, Violation
from tests.model.idle import BOUND_AFTER_DEATH_S, OPENS, PUTS, WAKES, Resting, leave, viewer
from tidegate.usecases.gateway import wake_schedule
from tidegate.usecases.gateway.wake_schedule import WakeSchedule
from tidegate.usecases.revocation import queue_tasks

ONE, OTHER = Actor("b", viewer("b")), Actor("c", viewer("c"))

SCENES: dict[str, Callable[[], Resting]] = {
    "one comes": lambda: Resting([ONE], minutes=1, seconds=110, starts=1),
    "two come at once": lambda: Resting([ONE, OTHER], minutes=0, seconds=30, starts=2),
    "one comes, and the run that is started dies": lambda: Resting(
        [ONE], minutes=1, seconds=100, starts=1, dying=True, bound_s=BOUND_AFTER_DEATH_S
    ),
    "one comes, and its process dies": lambda: Resting(
        [Actor("b", viewer("b", order=(OPENS, WAKES)))], minutes=1, seconds=80, starts=1
    ),
    "one comes after the last has left": lambda: Resting(
        [Actor("b", viewer("b", knows_s=50))], minutes=1, seconds=110, active_s=50, starts=1
    ),
    "the last leaves while one comes": lambda: Resting(
        [Actor("a", leave("a")), ONE], minutes=1, seconds=90, there=["a"], starts=1
    ),
    "one stays": lambda: Resting([], minutes=3, seconds=230, there=["a"]),
}


@pytest.mark.parametrize("name", SCENES)
def test_whoever_watches_is_looked_at_in_time(name: str, record_property: Callable[[str, object], None]) -> None:
    explored = Explorer(SCENES[name]()).explore()
    record_property("explored", explored.told(name))
    assert explored.ends > 1 and explored.states > 100


# --- the model has teeth -------------------------------------------------------------------------------------


def _weak_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Resting, "weak_state", True)


def _blind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Resting, "blind", True)


def _no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WakeSchedule, "__call__", lambda wake: wake._clock.now() and None)


def _known_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake_schedule, "LEAD_S", float("-inf"))


def _nothing_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_tasks, "AHEAD_S", 0)


@pytest.mark.parametrize(
    ("taken_out", "name", "what"),
    [
        (_no_start, "one comes", "nobody looks"),
        (_known_for_ever, "one comes after the last has left", "nobody looks"),
        (_blind, "one stays", "nobody looks"),
        (_blind, "the last leaves while one comes", "nobody looks"),
        (_weak_state, "two come at once", "queued twice"),
        (_nothing_ahead, "one stays", "nobody looks"),
    ],
)
def test_without_any_one_safeguard_it_fails(
    taken_out: Callable[[pytest.MonkeyPatch], None], name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_out(monkeypatch)
    with pytest.raises(Violation, match=what) as found:
        Explorer(SCENES[name]()).explore()
    assert found.value.trace


def test_asked_after_the_row_is_put_it_fails() -> None:
    """Its process dies between the two: the viewer stays, and nobody started anything."""
    dies = Actor("b", viewer("b", order=(OPENS, PUTS)))
    with pytest.raises(Violation, match="nobody looks"):
        Explorer(Resting([dies], minutes=1, seconds=80)).explore()


def test_a_run_that_dies_is_late_by_more_than_the_usual_bound() -> None:
    """What the longer bound is for."""
    with pytest.raises(Violation, match="nobody looks"):
        Explorer(Resting([ONE], minutes=1, seconds=100, starts=1, dying=True)).explore()
