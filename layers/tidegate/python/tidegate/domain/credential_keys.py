"""Which keys the credentials of a stage are under, and when an older key may go.

A stage declares its credential keys by numbers. The last one is the newest: it encrypts. All of them decrypt. Every
sealed secret names the key it is under, so nothing else is kept about a re-encryption. It goes on from any point.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: How long a request goes on that began before a deployment made another key the newest, seconds: 29 for a request of
#: the API, and as much again. Until then a secret may yet be written under the key before.
SETTLED_S = 60


@dataclass(frozen=True, slots=True)
class CredentialKeys:
    """The declared keys. `arns`: number -> ARN, in the order in which the stage file has them."""

    arns: Mapping[int, str]

    @property
    def newest(self) -> int:
        return list(self.arns)[-1]

    @property
    def older(self) -> list[int]:
        return list(self.arns)[:-1]

    def number(self, arn: str | None) -> int | None:
        """The number of a key; None for one that the stage does not declare."""
        return next((number for number, each in self.arns.items() if each == arn), None)


@dataclass(frozen=True, slots=True)
class Held:
    """What is under which key.

    Attributes:
        counts: number of a declared key -> how many credentials are under it.
        elsewhere: how many are under no declared key.
        to_do: ids of the profiles whose secret is not under the newest key.
    """

    counts: Mapping[int, int]
    elsewhere: int
    to_do: tuple[str, ...]

    @property
    def total(self) -> int:
        return sum(self.counts.values()) + self.elsewhere


def held(keys: CredentialKeys, under: Iterable[tuple[str, str | None]]) -> Held:
    """Count credentials. `under`: (profile id, ARN of the key it is under, None when it does not say)."""
    counts = dict.fromkeys(keys.arns, 0)
    elsewhere, to_do = 0, []
    for profile_id, arn in under:
        number = keys.number(arn)
        if number is None:
            elsewhere += 1
        else:
            counts[number] += 1
        if number != keys.newest:
            to_do.append(profile_id)
    return Held(counts, elsewhere, tuple(to_do))


def next_for(keys: CredentialKeys, now: Held) -> str:
    """What is to be done next, for people."""
    if now.to_do:
        return f"{len(now.to_do)} to re-encrypt: run make rotate-secret NAME=credential-key"
    if keys.older:
        return f"run make rotate-secret NAME=credential-key, which says whether {named(keys.older)} may be dropped"
    return "nothing is under way"


def still_needed(keys: CredentialKeys, now: Held, wanted: Iterable[int]) -> list[int]:
    """Which of the keys are no longer `wanted` although something is under them."""
    kept = set(wanted)
    return [number for number, count in now.counts.items() if count and number not in kept]


def named(numbers: Iterable[int]) -> str:
    """Keys by their numbers: `key 1`, `keys 1, 2`."""
    listed = list(numbers)
    return f"key{'s' if len(listed) > 1 else ''} {', '.join(str(number) for number in listed)}"
