"""Does the steps of `domain.rotation`, one after the other, and tells what it does.

It keeps nothing: after every step the secret is read again. So it may end at any point, and several may run at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ops.edge_header import Distribution, EdgeHeader
from ops.secret_versions import SecretVersions
from tidegate.domain.rotation import Add, Carry, Done, Drop, Refused, State, Step, Switch, Wait, Waits, next_step
from tidegate.domain.secret_names import CURRENT, PENDING

#: Between two looks while it waits, seconds.
LOOK_S = 15.0
#: A version whose id is taken and that has no label is given up after so many looks.
_LOOKS = 4


@dataclass(frozen=True, slots=True)
class Event:
    """What was done, or is waited for. `seconds`: how long is left, where that is known."""

    step: str
    text: str
    seconds: float | None = None


class RotationRefused(Exception):
    """The rotation may not begin. The message says why."""


class Rotation:
    """One secret that can be rotated."""

    def __init__(self, versions: SecretVersions, waits: Waits, edge: EdgeHeader | None = None) -> None:
        self._versions = versions
        self._waits = waits
        self._edge = edge
        self._distribution: Distribution | None = None

    def state(self) -> State:
        """The secret and its carrier. Raises `ClientError`."""
        # The distribution comes first: when it is changed after that, our own change is refused.
        self._distribution = self._edge.read() if self._edge else None
        state = self._versions.read()
        if self._distribution is None:
            return state
        carrier = self._distribution.carrier(self._versions.value(CURRENT), self._versions.accepted())
        return replace(state, carrier=carrier)

    def next(self) -> tuple[State, Step]:
        """The state, and what the stage it is in needs next."""
        state = self.state()
        return state, next_step(state, self._waits, begin=False)

    def run(
        self,
        report: Callable[[Event], None],
        sleep: Callable[[float], None],
        *,
        again: bool = False,
        wait: bool = True,
    ) -> bool:
        """Go on with the rotation that is under way, or begin one, until it is done.

        Args:
            again: begin although the last rotation has only just ended.
            wait: False does what may be done now, and then ends.

        Returns:
            False when there is something left to wait for.

        Raises:
            RotationRefused: it may not begin.
            ClientError: AWS refused.
        """
        begin, overtaken = True, 0
        while True:
            state = self.state()
            if state.pending is not None:
                begin = False  # that one is gone on with, and no other begun after it
            # An id that stays taken is of a version whose label was taken away by hand.
            step = next_step(state, self._waits, begin=begin, again=again, attempt=overtaken // _LOOKS)
            match step:
                case Done():
                    report(Event("done", "the rotation is done"))
                    return True
                case Refused(reason):
                    raise RotationRefused(reason)
                case Wait(seconds, reason):
                    report(Event("wait", reason, seconds))
                    if not wait:
                        return False
                    sleep(LOOK_S if seconds is None else min(LOOK_S, max(seconds, 1.0)))
                case _ if not self._do(step, report):  # somebody else was first, and will be seen
                    overtaken += isinstance(step, Add)
                    sleep(1.0)

    def _do(self, step: Step, report: Callable[[Event], None]) -> bool:
        """Do a step. False when it was overtaken."""
        match step:
            case Add(version_id):
                done, event = self._versions.add(version_id), Event("add", "a new value was added")
            case Switch(version_id):
                done, event = self._versions.switch(version_id), Event("switch", "the new value is the current one")
            case Drop(label, version_id):
                text = "the label of the new value was taken" if label == PENDING else "the old value was dropped"
                done, event = self._versions.drop(label, version_id), Event("drop", text)
            case Carry():
                assert self._edge is not None and self._distribution is not None
                done = self._edge.put(self._distribution, self._versions.value(CURRENT))
                event = Event("carry", "CloudFront was given the current value")
            case _:
                raise AssertionError(step)
        if done:
            report(event)
        return done
