"""Session and login tokens as JWTs, HS256.

Invariant of this file: the algorithm is fixed and never taken from a token. To a client every failure is the same
`Unauthenticated`, except expiry, because a new token cures it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jwt
from jwt.types import Options

from tidegate.adapters.aws.secrets_manager import Secret
from tidegate.domain.tokens import (
    SessionClaims,
    UserClaims,
    moment,
    session_claims,
    session_payload,
    user_claims,
    user_payload,
)
from tidegate.errors import Unauthenticated
from tidegate.ports.control_plane import UserTokens
from tidegate.ports.gateway import SessionTokens

_ALGORITHM = "HS256"
#: Longest accepted token, characters. Nobody signs a longer one, so a longer one is not even decoded.
_MAX_LENGTH = 8192
#: Login tokens are for this audience only, so that a session token never passes for a login token, or the reverse.
_LOGIN_AUDIENCE = "tidegate-user"


#: Times are not verified by the library but here, against the caller's clock. An issuer may leave out `jti`, or set it
#: to null.
_OPTIONS: Options = {
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_jti": False,
    "require": ["exp"],
}


class _Tokens:
    def __init__(self, secret: Secret, issuer: str, audience: str, invalid: str) -> None:
        self._secret = secret
        self._issuer = issuer
        self._audience = audience
        self._invalid = invalid

    def encode(self, payload: Mapping[str, object]) -> str:
        full = {**payload, "iss": self._issuer, "aud": self._audience}
        return jwt.encode(full, self._secret.current(), algorithm=_ALGORITHM)

    def decode(self, token: str, now: float) -> dict[str, Any]:
        if len(token) > _MAX_LENGTH or not token.isascii():
            raise Unauthenticated(self._invalid)
        payload = self._verified(token)
        if payload is None and self._secret.refresh():
            payload = self._verified(token)
        if payload is None:
            raise Unauthenticated(self._invalid)
        try:
            expires_at, not_before = moment(payload, "exp"), moment(payload, "nbf")
        except Unauthenticated as error:
            raise Unauthenticated(self._invalid) from error
        if expires_at is None or (not_before is not None and now < not_before):
            raise Unauthenticated(self._invalid)
        if now >= expires_at:
            raise Unauthenticated(self._invalid, code="token_expired")
        return payload

    def _verified(self, token: str) -> dict[str, Any] | None:
        for value in self._secret.values():
            try:
                payload: dict[str, Any] = jwt.decode(
                    token,
                    value,
                    algorithms=[_ALGORITHM],
                    issuer=self._issuer,
                    audience=self._audience,
                    options=_OPTIONS,
                )
                return payload
            except jwt.InvalidTokenError:
                continue
        return None


class JwtSessionTokens(SessionTokens):
    """Session tokens of datasources."""

    def __init__(self, secret: Secret, issuer: str, audience: str) -> None:
        self._tokens = _Tokens(secret, issuer, audience, "Invalid datasource session token")

    def verify(self, token: str, now: float) -> SessionClaims:
        return session_claims(self._tokens.decode(token, now))

    def sign(self, claims: SessionClaims) -> str:
        return self._tokens.encode(session_payload(claims))


class JwtUserTokens(UserTokens):
    """Login tokens."""

    def __init__(self, secret: Secret, issuer: str) -> None:
        self._tokens = _Tokens(secret, issuer, _LOGIN_AUDIENCE, "Invalid or expired login")

    def verify(self, token: str, now: float) -> UserClaims:
        return user_claims(self._tokens.decode(token, now))

    def sign(self, claims: UserClaims) -> str:
        return self._tokens.encode(user_payload(claims))
