"""Session and login tokens as JWTs, HS256.

A token that is signed here names its key in the header `kid`. So a token whose key is not known yet is told apart from
one that is forged. Tokens of a remote API have no `kid`, and are tried with every value.

Invariants of this file:

- The algorithm is fixed and never taken from a token. `kid` only chooses among the secret's values.
- To a client every failure is the same `Unauthenticated`. Two are not: expiry, because a new token cures it, and a key
  that is not known yet (`KeyNotYetKnown`), because nothing was decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jwt
from jwt.types import Options

from tidegate.adapters.aws.secrets_manager import Secret, key_id
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
from tidegate.ports.tokens import SessionTokens, UserTokens

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
        value = self._secret.current()
        return jwt.encode(full, value, algorithm=_ALGORITHM, headers={"kid": key_id(value)})

    def decode(self, token: str, now: float) -> dict[str, Any]:
        if len(token) > _MAX_LENGTH or not token.isascii():
            raise Unauthenticated(self._invalid)
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
        try:
            # Nothing of this is believed. It only tells what is not for us at all from what we may have no key for yet.
            unverified = jwt.decode_complete(token, options={"verify_signature": False})
        except jwt.InvalidTokenError:
            return None
        audience = unverified["payload"].get("aud")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            return None
        key = unverified["header"].get("kid")
        if key is not None:
            value = self._secret.value_of(key)
            return None if value is None else self._payload(token, (value,))
        payload = self._payload(token, self._secret.values())
        if payload is None and self._secret.refresh():
            payload = self._payload(token, self._secret.values())
        return payload

    def _payload(self, token: str, values: Iterable[str]) -> dict[str, Any] | None:
        for value in values:
            try:
                payload: dict[str, Any] = jwt.decode(
                    token,
                    value,
                    algorithms=[_ALGORITHM],
                    issuer=self._issuer,
                    audience=self._audience,
                    options=_OPTIONS,
                )
            except jwt.InvalidTokenError:
                continue
            self._secret.verified_with(value)
            return payload
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
