"""A check of `make doctor`: its name, why it is made, and what decides it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from infra.stage import Stage
from ops.readiness import State


class Verdict(NamedTuple):
    """What a check found, and what to do about it; empty when nothing is."""

    state: State
    found: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at.

    Attributes:
        name: as it is printed.
        why: why it is looked at, a sentence for people.
        decide: decides it from the stage's file and the value of the answer; None for that of a file's check.
        answer: the name of the answer it is decided from; empty for a check of the file alone.
        of: whether a stage has what is looked at. Others have no such line.
    """

    name: str
    why: str
    decide: Callable[[Stage, Any], Verdict]
    answer: str = ""
    of: Callable[[Stage], bool] = lambda stage: True


def wrong(stage: Stage) -> State:
    """What an unsafe value is: to be mended where data is kept, and worth a look elsewhere."""
    return State.WARN if stage.disposable else State.FAILED


def file_of(stage: Stage) -> str:
    """Where the stage's file is."""
    return f"infra/stages/{stage.name}.json"


def deploy(stage: Stage) -> str:
    """What brings a stage's file to where it runs."""
    return f"run `make deploy STAGE={stage.name}`" if stage.tls else "run `make up`"
