"""What a drill found, as people and scripts read it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from local_stack import show
from local_stack.drills.drill import Drill, Finding

#: Characters of what was seen, in a table. What a check says of a frame can be longer; JSON has all of it.
_SEEN = 72


@dataclass(frozen=True, slots=True)
class Report:
    """What a drill found. `seconds`: how long it took, repairs included."""

    drill: str
    findings: Sequence[Finding]
    seconds: float

    @property
    def held(self) -> bool:
        """Whether every expectation holds. A drill that expected nothing has shown nothing."""
        return bool(self.findings) and all(finding.held for finding in self.findings)

    def as_table(self) -> str:
        rows = [(each.expectation, _short(each.seen), "held" if each.held else "not held") for each in self.findings]
        held = sum(each.held for each in self.findings)
        result = f"  {held} of {len(self.findings)} expectations held, in {self.seconds:.0f} s"
        table = show.table([("expectation", "seen", "held?"), *rows])
        return f"{table}\n\n{show.green(result) if self.held else show.red(result)}"

    def as_json(self) -> str:
        """One line."""
        findings = [asdict(each) for each in self.findings]
        return json.dumps(
            {"drill": self.drill, "held": self.held, "seconds": round(self.seconds, 1), "findings": findings},
            ensure_ascii=False,
        )


def listed(drills: Iterable[Drill]) -> str:
    """All drills: how long each takes, and what it breaks."""
    rows = [(drill.name, f"{drill.takes_s} s", drill.breaks) for drill in drills]
    return show.table([("drill", "takes", "what it breaks"), *rows])


def listed_as_json(drills: Iterable[Drill]) -> str:
    """The same as one line."""
    return json.dumps([{"name": each.name, "takesSeconds": each.takes_s, "breaks": each.breaks} for each in drills])


def _short(text: str) -> str:
    return text if len(text) <= _SEEN else f"{text[:_SEEN]} …"
