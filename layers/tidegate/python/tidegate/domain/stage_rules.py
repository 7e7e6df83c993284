"""What a stage decides about settings, before any value of theirs is looked at.

A stage says what is in front of it, and whether it keeps its data. Some values are right only in rare stages. The stage
file has to confirm these, so that nobody sets one by mistake.

Invariant of this file: a confirmation that is missing is refused, and so is one that is not needed. So what a stage
confirms is always what it does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum


class Proxies(StrEnum):
    """What is in front of a stage."""

    EDGE = "edge"
    NONE = "none"
    LOCAL = "local"


#: How many addresses are appended to X-Forwarded-For. CloudFront and API Gateway append one each, the edge of the local
#: stack one. Without the edge, the platform's source address is the client's.
HOPS_OF: Mapping[Proxies, int] = {Proxies.EDGE: 2, Proxies.NONE: 0, Proxies.LOCAL: 1}
#: The settings that say how many there are.
HOPS = ("REALTIME_TRUST_PROXY_HOPS", "API_TRUST_PROXY_HOPS")

#: Settings with values that production takes only with a reason in the stage file.
EXCEPTIONS = (
    "REALTIME_LIMITER_FAILURE_MODE",
    "SECURITY_LIMITER_FAILURE_MODE",
    "EGRESS_ALLOW_PRIVATE_DESTINATIONS",
)


def proxies_of(*, edge: bool, local: bool) -> Proxies:
    """What is in front of a stage, by its file. `local`: whether it runs on the emulator."""
    if local:
        return Proxies.LOCAL
    return Proxies.EDGE if edge else Proxies.NONE


def is_production_stage(*, disposable: bool) -> bool:
    """Whether a stage is a production stage: one whose data is kept when its stack goes."""
    return not disposable


def unconfirmed(unusual: Collection[str], confirmed: Collection[str]) -> list[str]:
    """The settings with an unusual value that the stage does not confirm, in their order."""
    return [name for name in unusual if name not in confirmed]


def unneeded(unusual: Collection[str], confirmed: Collection[str]) -> list[str]:
    """The settings that the stage confirms although their value is a usual one, in their order."""
    return [name for name in confirmed if name not in unusual]
