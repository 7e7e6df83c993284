"""Passwords with Argon2id. The parameters are those of the OWASP password storage cheat sheet: 19 MiB, 2 iterations,
parallelism 1."""

from __future__ import annotations

import argon2

from tidegate.ports.control_plane import PasswordHasher


class Argon2Passwords(PasswordHasher):
    """Argon2id with the parameters named above."""

    def __init__(self) -> None:
        self._hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)

    def hash(self, password: str) -> str:
        return self._hasher.hash(password)

    def verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
