"""What tokens say. Signing and verifying are done by an adapter.

The page "Internal API" of the reference lists the claims of a session token. One of them, `sv`, is the session version
of the signed-in user. With it, a password reset ends the tokens that were minted before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal, Role
from tidegate.domain.identifiers import is_identifier
from tidegate.errors import Denied, Unauthenticated

#: The largest number that every JSON reader takes without loss: RFC 8259, section 6.
_EXACT = 2**53 - 1

#: Scope of a session token that may stream one datasource.
STREAM_SCOPE = "datasource:stream"
#: Scope of a session token for a whole dashboard. It opens nothing by itself: see `SessionClaims.of_datasource`.
DASHBOARD_SCOPE = "dashboard:stream"
#: A token is to be refreshed in this part of its life. It begins at one half, as for tokens of one datasource, and is
#: a quarter long: of 1,000 viewers who came together, four a second come back with the default life of 300 s.
_REFRESH_FROM, _REFRESH_WITHIN = 0.5, 0.25

#: Claims that a token for a whole dashboard has not.
_OF_ONE_DATASOURCE = ("datasourceId", "credentialProfileId", "intentHash")


@dataclass(frozen=True, slots=True)
class SessionClaims:
    """Claims of a session token: one datasource of one dashboard, or all of them, for one principal.

    Attributes:
        subject: user id or `public`.
        dashboard_id, datasource_id: what may be streamed. `datasource_id` is empty in a token for a whole dashboard.
        scope: `datasource:stream`, or `dashboard:stream` for a whole dashboard.
        issued_at, expires_at: epoch seconds.
        jti: the token's id; None when the issuer states none.
        intent_hash: hash of the intent it was minted for; None when the issuer states none, and for a whole dashboard.
        share_version, session_version: see `Principal`.
        role: the principal's role, for people who read logs. It decides nothing.
        credential_profile_id: the profile that the datasource uses; None when it uses none.
        viewer_id: tells public viewers of a dashboard apart. A token that follows another one keeps it. None for users,
            and when the issuer states none.
    """

    subject: str
    dashboard_id: str
    datasource_id: str
    scope: str
    issued_at: int
    expires_at: int
    jti: str | None = None
    intent_hash: str | None = None
    share_version: int | None = None
    session_version: int | None = None
    role: str | None = None
    credential_profile_id: str | None = None
    viewer_id: str | None = None

    @property
    def principal(self) -> Principal:
        """Whom the token speaks for. Where the issuer states no share version, a public viewer has version 0."""
        version = self.share_version
        if version is None and self.subject == PUBLIC_SUBJECT:
            version = 0
        return Principal(self.subject, version, self.session_version)

    @property
    def for_dashboard(self) -> bool:
        """Whether it is for all datasources of the dashboard."""
        return self.scope == DASHBOARD_SCOPE

    def of_datasource(self, dashboard_id: str, datasource_id: str) -> SessionClaims:
        """These claims for one datasource. A token for a whole dashboard is narrowed to it.

        The narrowed claims rest on the intent that the datasource has when they are checked. So what minting checks for
        a datasource has to be checked with them. `Authorizer` does.

        Raises:
            Denied: the token is for another dashboard or datasource.
        """
        datasource = datasource_id if self.for_dashboard else self.datasource_id
        if (self.dashboard_id, datasource) != (dashboard_id, datasource_id):
            raise Denied("Datasource identifiers do not match token claims")
        if not self.for_dashboard:
            return self
        return replace(self, datasource_id=datasource_id, scope=STREAM_SCOPE, intent_hash=None)

    def claim(self, current_intent_hash: str) -> Claim:
        """What a subscription made with this token rests on. A token without an intent hash takes the current one."""
        return Claim(
            dashboard_id=self.dashboard_id,
            datasource_id=self.datasource_id,
            principal=self.principal,
            intent_hash=self.intent_hash or current_intent_hash,
            expires_at=self.expires_at,
        )


@dataclass(frozen=True, slots=True)
class UserClaims:
    """Claims of a login token. The user is read again on every request; its `session_version` must still be equal.

    Attributes:
        issued_at, expires_at: of this token, epoch seconds.
        login_id: of the login, `lid` in the token. A token that renews another has the same.
        logged_in_at: when the login began, epoch seconds; `auth_time` in the token. A renewal keeps it.
    """

    user_id: str
    email: str
    role: Role
    session_version: int
    issued_at: int
    expires_at: int
    login_id: str
    logged_in_at: int


def refresh_after(claims: SessionClaims) -> float:
    """When the holder should come back for a new token, epoch seconds.

    It is spread over a quarter of the token's life by the token's id, which is random. So viewers who came together do
    not come back together.
    """
    chance = int.from_bytes(hashlib.sha256((claims.jti or "").encode()).digest()[:4], "big") / 2**32
    life = claims.expires_at - claims.issued_at
    return claims.issued_at + life * (_REFRESH_FROM + _REFRESH_WITHIN * chance)


def session_payload(claims: SessionClaims) -> dict[str, object]:
    """The JWT payload of the claims, without issuer and audience."""
    payload: dict[str, object] = {
        "sub": claims.subject,
        "jti": claims.jti,
        "dashboardId": claims.dashboard_id,
        "datasourceId": claims.datasource_id,
        "credentialProfileId": claims.credential_profile_id,
        "intentHash": claims.intent_hash,
        "shareTokenVersion": claims.share_version,
        "scope": claims.scope,
        "role": claims.role,
        "iat": claims.issued_at,
        "exp": claims.expires_at,
    }
    if claims.for_dashboard:
        for name in _OF_ONE_DATASOURCE:
            del payload[name]
    if claims.session_version is not None:
        payload["sv"] = claims.session_version
    if claims.viewer_id is not None:
        payload["viewerId"] = claims.viewer_id
    return payload


def session_claims(payload: Mapping[str, object]) -> SessionClaims:
    """Read a verified payload.

    Raises:
        Unauthenticated: a required claim is missing or of the wrong type, or a token for a whole dashboard names a
            datasource.
    """
    scope = _text(payload, "scope")
    if scope == DASHBOARD_SCOPE and any(payload.get(name) is not None for name in _OF_ONE_DATASOURCE):
        raise Unauthenticated("Invalid token")
    return SessionClaims(
        subject=_text(payload, "sub"),
        dashboard_id=_text(payload, "dashboardId"),
        datasource_id="" if scope == DASHBOARD_SCOPE else _text(payload, "datasourceId"),
        scope=scope,
        issued_at=int(moment(payload, "iat") or 0),
        expires_at=_expiry(payload),
        jti=_optional_text(payload, "jti"),
        intent_hash=_optional_text(payload, "intentHash"),
        share_version=_optional_integer(payload, "shareTokenVersion"),
        session_version=_optional_integer(payload, "sv"),
        role=_optional_text(payload, "role"),
        credential_profile_id=_optional_text(payload, "credentialProfileId"),
        viewer_id=_optional_text(payload, "viewerId"),
    )


def user_payload(claims: UserClaims) -> dict[str, object]:
    """The JWT payload of a login token."""
    return {
        "sub": claims.user_id,
        "email": claims.email,
        "role": claims.role.value,
        "sv": claims.session_version,
        "lid": claims.login_id,
        "auth_time": claims.logged_in_at,
        "iat": claims.issued_at,
        "exp": claims.expires_at,
    }


def user_claims(payload: Mapping[str, object]) -> UserClaims:
    """Read a verified payload. Raises `Unauthenticated`."""
    try:
        role = Role(_text(payload, "role"))
    except ValueError as error:
        raise Unauthenticated("Invalid token") from error
    return UserClaims(
        user_id=_text(payload, "sub"),
        email=str(payload.get("email", "")),
        role=role,
        session_version=_integer(payload, "sv"),
        issued_at=int(moment(payload, "iat") or 0),
        expires_at=_expiry(payload),
        login_id=_text(payload, "lid"),
        logged_in_at=_integer(payload, "auth_time"),
    )


def moment(payload: Mapping[str, object], name: str) -> float | None:
    """A claim that is a time, epoch seconds; None when it is missing. RFC 7519 allows fractions.

    Raises:
        Unauthenticated: it is no number, or none that a time can be.
    """
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _EXACT:
        raise Unauthenticated("Invalid token")
    return float(value)


def _expiry(payload: Mapping[str, object]) -> int:
    expires_at = moment(payload, "exp")
    if expires_at is None:
        raise Unauthenticated("Invalid token")
    return int(expires_at)


def _text(payload: Mapping[str, object], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not is_identifier(value):
        raise Unauthenticated("Invalid token")
    return value


def _optional_text(payload: Mapping[str, object], name: str) -> str | None:
    return None if payload.get(name) is None else _text(payload, name)


def _integer(payload: Mapping[str, object], name: str) -> int:
    value = payload.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_EXACT <= value <= _EXACT:
        raise Unauthenticated("Invalid token")
    if value != int(value):
        raise Unauthenticated("Invalid token")
    return int(value)


def _optional_integer(payload: Mapping[str, object], name: str) -> int | None:
    return None if payload.get(name) is None else _integer(payload, name)
