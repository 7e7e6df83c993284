"""How a secret gets a new value without a moment in which somebody is refused.

A rotation goes in stages: *add* the new value, wait, *switch* to it, wait, *drop* the old one. The stage is read from
the secret's versions and their labels alone, as Secrets Manager reports them. So a rotation can be gone on with from
any machine, after an end at any point, and by two at once.

| stage | labels | what signs | what verifies |
|---|---|---|---|
| at rest | current | current | current |
| added | current, pending | current | both |
| switched | current, pending (the same value), previous | current | both |

The times are those at which AWS made the versions. Switching makes a version too, with the pending version's value, so
that its time is the time of the switch.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from enum import StrEnum

from tidegate.domain.secret_names import PENDING, PREVIOUS

#: After a rotation the next one is refused for so long, seconds. A command that is run twice rotates once.
REST_S = 600
_ADDED, _SWITCHED = "-pending", "-current"


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a secret. `created_at`: epoch seconds, by the clock of Secrets Manager."""

    version_id: str
    created_at: float


class Carried(StrEnum):
    """Which value CloudFront adds to requests."""

    CURRENT = "current"
    ACCEPTED = "accepted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Carrier:
    """What CloudFront adds, and whether all its locations do by now. Only the origin secret has a carrier."""

    value: Carried
    deployed: bool


@dataclass(frozen=True, slots=True)
class State:
    """A secret as it was read, all at the same time.

    Attributes:
        now: epoch seconds, by the clock of Secrets Manager.
        carrier: None for a secret that CloudFront does not carry.
    """

    now: float
    current: Version
    previous: Version | None = None
    pending: Version | None = None
    carrier: Carrier | None = None

    @property
    def switched(self) -> bool:
        """Whether the pending value is the current one already."""
        return self.pending is not None and self.current.version_id == switched_id(self.pending.version_id)


@dataclass(frozen=True, slots=True)
class Waits:
    """How long the stages of a secret take, seconds.

    Attributes:
        caches_s: until every process has read the secret again.
        use_s: how long what was made with a value is used: the life of the tokens that it signs.
    """

    caches_s: float
    use_s: float

    @property
    def old_value_s(self) -> float:
        """How long after a switch the old value is needed."""
        return self.caches_s + self.use_s


def waits(cache_s: int, use_s: int) -> Waits:
    """The waits of a secret that processes keep for `cache_s`. A reading that failed is repeated after a tenth of that
    at the latest, so a fifth more leaves room for two."""
    return Waits(math.ceil(cache_s * 1.2), use_s)


@dataclass(frozen=True, slots=True)
class Add:
    """Put a new random value with the label pending."""

    version_id: str


@dataclass(frozen=True, slots=True)
class Switch:
    """Put the pending value as a new version, with the label current."""

    version_id: str


@dataclass(frozen=True, slots=True)
class Carry:
    """Make CloudFront add the current value."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Take a label from a version."""

    label: str
    version_id: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing may be done yet. `seconds`: how long; None when only the carrier knows."""

    seconds: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A rotation may not begin, or somebody else's is under way."""

    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """No rotation is under way."""


Step = Add | Switch | Carry | Drop | Wait | Refused | Done


def next_step(state: State, waits: Waits, *, begin: bool, again: bool = False, attempt: int = 0) -> Step:
    """What is to be done next.

    Args:
        begin: whether a rotation shall begin when none is under way.
        again: begin although the last one has only just ended.
        attempt: how often an `Add` after this current version found its version id taken by one without a label.
    """
    if state.carrier is not None and state.carrier.value is Carried.UNKNOWN:
        return Carry()  # nobody gets through: this does not wait for anything
    if state.pending is None:
        return _at_rest(state, waits, begin, again, attempt)
    if not state.pending.version_id.endswith(_ADDED):
        return Refused(f"version {state.pending.version_id} has the label {PENDING}, and not from this command")
    return _to_drop(state, waits) if state.switched else _to_switch(state, state.pending, waits)


def _to_switch(state: State, pending: Version, waits: Waits) -> Step:
    known_at = pending.created_at + waits.caches_s
    if state.now < known_at:
        return Wait(known_at - state.now, "until every process has read the new value")
    if state.previous is not None:
        unused_at = state.current.created_at + waits.old_value_s
        if state.now < unused_at:
            return Wait(unused_at - state.now, "until nothing is in use that the previous value made")
    return Switch(switched_id(pending.version_id))


def _to_drop(state: State, waits: Waits) -> Step:
    if step := _carried(state):
        return step
    unused_at = state.current.created_at + waits.old_value_s
    if state.now < unused_at:
        return Wait(unused_at - state.now, "until nothing is in use that the old value made")
    if state.previous is not None:
        return Drop(PREVIOUS, state.previous.version_id)
    assert state.pending is not None
    return Drop(PENDING, state.pending.version_id)


def _at_rest(state: State, waits: Waits, begin: bool, again: bool, attempt: int) -> Step:
    if step := _carried(state):
        return step
    if state.previous is not None:  # rotated in another way than by this command
        unused_at = state.current.created_at + waits.old_value_s
        if state.now < unused_at:
            return Wait(unused_at - state.now, "until nothing is in use that the previous value made")
        return Drop(PREVIOUS, state.previous.version_id)
    if not begin:
        return Done()
    free_at = state.current.created_at + waits.old_value_s + REST_S
    if state.current.version_id.endswith(_SWITCHED) and state.now < free_at and not again:
        age, left = round(state.now - state.current.created_at), math.ceil(free_at - state.now)
        return Refused(f"the current value is {age} s old; a next rotation may begin in {left} s")
    return Add(_added_id(state.current.version_id, attempt))


def _carried(state: State) -> Step | None:
    carrier = state.carrier
    if carrier is None:
        return None
    if carrier.value is not Carried.CURRENT:
        return Carry()
    return None if carrier.deployed else Wait(None, "until CloudFront adds the new value everywhere")


def _added_id(current_id: str, attempt: int) -> str:
    """The id of the version that is added after `current_id`. All who add at the same time give the same, so that
    Secrets Manager lets only one of them."""
    digest = hashlib.sha256(f"{current_id} {attempt}".encode()).hexdigest()[:32]
    return f"rotation-{digest}{_ADDED}"


def switched_id(pending_id: str) -> str:
    """The id of the version that makes the pending value the current one."""
    return pending_id.removesuffix(_ADDED) + _SWITCHED
