"""Deep health: whether everything that a deployment keeps its state in answers, and how fast.

Invariant of this file: a check that fails is named, and nothing else is told of it. Why it failed is in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.parallel import in_parallel

#: How long one check may take, seconds. A store answers within milliseconds; this is long enough for a first
#: connection, and for one that has gone silent and is replaced.
CHECK_S = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is asked.

    Attributes:
        kind: `table`, `secret` or `queue`.
        name: its name in the docs, never that of the resource.
        ask: asks it, by the monotonic second that it is given. Whatever it raises means that it does not answer.
    """

    kind: str
    name: str
    ask: Callable[[float], object]


@dataclass(frozen=True, slots=True)
class Checked:
    """How a check went. `ms`: how long it took, milliseconds."""

    kind: str
    name: str
    ok: bool
    ms: float


class DeepHealth:
    """Makes all checks at the same time."""

    def __init__(self, *, checks: Sequence[Check], clock: Clock, observer: Observer) -> None:
        self._checks = checks
        self._clock = clock
        self._observer = observer

    def __call__(self) -> Sequence[Checked]:
        """The checks, in their order. It raises nothing."""
        return in_parallel(self._made, self._checks, width=len(self._checks))

    def _made(self, check: Check) -> Checked:
        began, ok = self._clock.monotonic(), True
        try:
            check.ask(began + CHECK_S)
        except Exception as error:  # whatever it is, it does not answer as it should
            ok = False
            self._observer.fault("health check failed", error, kind=check.kind, name=check.name)
        return Checked(check.kind, check.name, ok, round((self._clock.monotonic() - began) * 1000, 1))
