"""Tokens, checked and signed. Conventions: see `ports.runtime`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tidegate.domain.tokens import SessionClaims, UserClaims


class SessionTokens(Protocol):
    def verify(self, token: str, now: float) -> SessionClaims:
        """Check signature, issuer, audience and expiry. Raises `Unauthenticated`."""

    def sign(self, claims: SessionClaims) -> str: ...


class UserTokens(Protocol):
    def verify(self, token: str, now: float) -> UserClaims:
        """Check a login token. Raises `Unauthenticated`."""

    def sign(self, claims: UserClaims) -> str: ...
