"""In which order a stage's functions come to new code, and which of them by a canary. No CDK.

Invariant of this file: every function of the stack has its place. A function without one stops the synth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

#: The alias of a function: whatever calls the function calls this.
LIVE = "live"
#: Share of the calls that a canary gets, percent, and how long it is watched, minutes.
CANARY_PERCENT, CANARY_MINUTES = 10, 5


class Shift(StrEnum):
    """How the calls of a function come to its new version."""

    CANARY = "canary"
    AT_ONCE = "at once"


#: As it is given on a command line: `make deploy STAGE=staging SHIFT=at-once`.
SHIFTS = {shift.value.replace(" ", "-"): shift for shift in Shift}


@dataclass(frozen=True, slots=True)
class Step:
    """Functions whose calls shift at the same time.

    Attributes:
        name: of the step.
        functions: by their path below the stack, such as `Gateway-Connect`.
    """

    name: str
    functions: Mapping[str, Shift]


#: The steps of a deployment. Each begins when the one before has ended. A way back goes from the last to the first.
STEPS: Sequence[Step] = (
    Step("api", {"HttpApi-Api": Shift.CANARY}),
    Step(
        "gateway",
        {"Gateway-Connect": Shift.CANARY, "Gateway-Disconnect": Shift.CANARY, "Gateway-Messages": Shift.CANARY},
    ),
    Step(
        "revalidation",
        {
            "Revalidation-Worker": Shift.CANARY,
            # One call a minute: a tenth of five minutes is none.
            "Revalidation-Schedule": Shift.AT_ONCE,
            # Few calls. A record that fails comes back, and keeps those behind it waiting.
            "Revalidation-Stream": Shift.AT_ONCE,
            # Called when an admin changes a profile, which is not within any five minutes.
            "Revalidation-Profiles": Shift.AT_ONCE,
        },
    ),
    Step("bridge", {"Mqtt-Bridge": Shift.CANARY, "Mqtt-CatchUp": Shift.CANARY, "Mqtt-Crowd": Shift.CANARY}),
    # A worker runs for fifteen minutes. With two versions, each that starts would take over from one of the other.
    Step("relay", {"Relay-Worker": Shift.AT_ONCE}),
)
#: How long the canaries of a deployment are watched, one step after another, minutes.
WATCHED_MINUTES = CANARY_MINUTES * sum(Shift.CANARY in step.functions.values() for step in STEPS)
