from __future__ import annotations

from dataclasses import replace

import pytest

from tidegate.domain.rotation import (
    REST_S,
    Add,
    Carried,
    Carrier,
    Carry,
    Done,
    Drop,
    Refused,
    State,
    Step,
    Switch,
    Version,
    Wait,
    Waits,
    next_step,
    switched_id,
)
from tidegate.domain.secret_names import PENDING, PREVIOUS

WAITS = Waits(caches_s=360, use_s=300)
T = 1_000_000.0
OLD, OLDER = Version("old", T - 90_000), Version("older", T - 100_000)
ADDED = Version("rotation-1-pending", T)
SWITCHED = Version(switched_id(ADDED.version_id), T + 400)
REST, ADD = State(T, OLD), State(T, OLD, pending=ADDED)
SWITCH = State(T + 400, SWITCHED, OLD, ADDED)


def at(state: State, seconds: float) -> State:
    return replace(state, now=T + seconds)


def carried(state: State, value: Carried, *, deployed: bool = True) -> State:
    return replace(state, carrier=Carrier(value, deployed))


@pytest.mark.parametrize(
    ("state", "step"),
    [
        (ADD, Wait(360, "until every process has read the new value")),
        (at(ADD, 359), Wait(1, "until every process has read the new value")),
        (at(ADD, 360), Switch(SWITCHED.version_id)),
        (SWITCH, Wait(660, "until nothing is in use that the old value made")),
        (at(SWITCH, 1059), Wait(1, "until nothing is in use that the old value made")),
        (at(SWITCH, 1060), Drop(PREVIOUS, "old")),
        (replace(at(SWITCH, 1060), previous=None), Drop(PENDING, ADDED.version_id)),
        # a value that was set by hand has left a previous one
        (State(T, Version("hand", T - 10), OLD), Wait(650, "until nothing is in use that the previous value made")),
        (State(T, Version("hand", T - 660), OLD), Drop(PREVIOUS, "old")),
        (
            State(T + 360, Version("hand", T), OLD, ADDED),
            Wait(300, "until nothing is in use that the previous value made"),
        ),
        (State(T + 360, OLD, OLDER, ADDED), Switch(SWITCHED.version_id)),
        # the origin secret
        (carried(at(ADD, 360), Carried.CURRENT), Switch(SWITCHED.version_id)),
        (carried(SWITCH, Carried.ACCEPTED), Carry()),
        (carried(at(SWITCH, 9999), Carried.ACCEPTED), Carry()),
        (
            carried(at(SWITCH, 9999), Carried.CURRENT, deployed=False),
            Wait(None, "until CloudFront adds the new value everywhere"),
        ),
        (carried(at(SWITCH, 1060), Carried.CURRENT), Drop(PREVIOUS, "old")),
        (carried(ADD, Carried.UNKNOWN), Carry()),
        (carried(REST, Carried.ACCEPTED), Carry()),
    ],
)
@pytest.mark.parametrize("begin", [True, False])
def test_a_rotation_that_is_under_way_goes_on(state: State, step: Step, begin: bool) -> None:
    assert next_step(state, WAITS, begin=begin) == step


def test_at_rest_a_rotation_begins_when_it_shall() -> None:
    assert next_step(REST, WAITS, begin=False) == Done()
    step = next_step(REST, WAITS, begin=True)
    assert isinstance(step, Add) and 32 <= len(step.version_id) <= 64, "what Secrets Manager takes as a version's id"
    assert step == next_step(at(REST, 9), WAITS, begin=True), "two who begin at once give the same id"
    assert step != next_step(REST, WAITS, begin=True, attempt=1)
    assert step != next_step(replace(REST, current=OLDER), WAITS, begin=True)


def test_the_next_rotation_is_refused_for_a_while() -> None:
    ended = State(T + 400 + 660, SWITCHED)
    assert next_step(ended, WAITS, begin=True) == Refused(
        "the current value is 660 s old; a next rotation may begin in 600 s"
    )
    assert isinstance(next_step(ended, WAITS, begin=True, again=True), Add)
    assert isinstance(next_step(replace(ended, now=ended.now + REST_S), WAITS, begin=True), Add)
    assert next_step(ended, WAITS, begin=False) == Done()


def test_a_foreign_pending_version_is_refused() -> None:
    step = next_step(replace(REST, pending=Version("theirs", T)), WAITS, begin=True)
    assert isinstance(step, Refused) and "theirs" in step.reason
