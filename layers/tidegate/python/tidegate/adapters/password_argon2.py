"""Passwords with Argon2id. The parameters are those of the OWASP password storage cheat sheet: 19 MiB, 2 iterations,
parallelism 1."""

from __future__ import annotations

from dataclasses import dataclass

import argon2

from tidegate.ports.control_plane import PasswordHasher


@dataclass(frozen=True, slots=True)
class Cost:
    """What one hash takes. `memory_kib` is in KiB."""

    iterations: int
    memory_kib: int
    parallelism: int


#: Of every hash that is made.
COST = Cost(iterations=2, memory_kib=19_456, parallelism=1)


class Argon2Passwords(PasswordHasher):
    """Argon2id with the parameters named above."""

    def __init__(self) -> None:
        self._hasher = argon2.PasswordHasher(
            time_cost=COST.iterations, memory_cost=COST.memory_kib, parallelism=COST.parallelism
        )

    def hash(self, password: str) -> str:
        return self._hasher.hash(password)

    def verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
