"""Mint a session token for one datasource of one dashboard.

The order is: limits, access, datasource, profile policies, sign. The limits come first, also for a dashboard that does
not exist, so that guessing ids is limited like anything else.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from tidegate.domain.access import (
    PUBLIC_SUBJECT,
    DashboardAccess,
    Principal,
    UserAccess,
    Visibility,
    is_member,
    may_see,
)
from tidegate.domain.dashboards import Dashboard
from tidegate.domain.intents import Intent
from tidegate.domain.stream_policy import check_public_use
from tidegate.domain.tokens import STREAM_SCOPE, SessionClaims
from tidegate.domain.users import User
from tidegate.errors import Denied, LimiterUnavailable, NotFound, TidegateError
from tidegate.ports.control_plane import AuditEvent, AuditLog, DashboardStore, ProfileStore
from tidegate.ports.gateway import AccessStore, SessionTokens
from tidegate.ports.runtime import Clock, Ids
from tidegate.usecases.limits.rate_limits import RateLimits

_REFUSAL = "Too many datasource session token requests"


@dataclass(frozen=True, slots=True)
class MintPolicy:
    """Settings of minting. `ttl_s`: life of a token, seconds. The others: tokens per minute."""

    ttl_s: int
    per_user: int
    per_public_ip: int
    per_share_token: int


@dataclass(frozen=True, slots=True)
class Minted:
    """A session token. `expires_at`: epoch seconds."""

    token: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class MintRequest:
    """Who asks for what.

    Attributes:
        user: the signed-in user; None for public viewers.
        address: the client's address in the form that limits count.
        share_token: from the link of a dashboard; None without a link.
        current_token: the session token that the new one shall replace. Such a refresh does not count against the
            limit of the address.
    """

    user: User | None
    address: str
    dashboard_id: str
    datasource_id: str
    share_token: str | None = None
    current_token: str | None = None


class Mint:
    """The use case behind `POST /datasource-sessions`."""

    def __init__(
        self,
        *,
        policy: MintPolicy,
        dashboards: DashboardStore,
        access: AccessStore,
        profiles: ProfileStore,
        tokens: SessionTokens,
        rates: RateLimits,
        audit: AuditLog,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._policy = policy
        self._dashboards = dashboards
        self._access = access
        self._profiles = profiles
        self._tokens = tokens
        self._rates = rates
        self._audit = audit
        self._clock = clock
        self._ids = ids

    def __call__(self, request: MintRequest) -> Minted:
        """Mint a token, or raise the refusal.

        Raises:
            Denied, NotFound: the caller may not see this datasource.
            LimitReached: too many tokens were requested.
            LimiterUnavailable: the limits could not be checked and the failure mode is fail-closed.
            Unavailable: a store did not answer.
        """
        now = int(self._clock.now())
        self._limit(request, now)
        user_ids = [request.user.user_id] if request.user else []
        snapshot = self._access.read([request.dashboard_id], user_ids)
        access = snapshot.dashboards.get(request.dashboard_id)
        if access is None or access.deleted:
            raise NotFound("Dashboard not found")
        user = snapshot.users.get(request.user.user_id) if request.user else None
        principal = self._principal(request, access, user)
        intent_hash = access.intents.get(request.datasource_id)
        if intent_hash is None:
            raise NotFound("Datasource not found")
        intent = self._access.intent(request.dashboard_id, request.datasource_id) or {}
        if not is_member(access, user):
            self._check_public_use(intent)
        role = "public" if request.user is None else request.user.role.value
        credential_id = intent.get("credentialProfileId")
        claims = SessionClaims(
            subject=principal.subject,
            dashboard_id=request.dashboard_id,
            datasource_id=request.datasource_id,
            scope=STREAM_SCOPE,
            issued_at=now,
            expires_at=now + self._policy.ttl_s,
            jti=self._ids.new_id(),
            intent_hash=intent_hash,
            share_version=principal.share_version,
            session_version=principal.session_version,
            role=role,
            credential_profile_id=str(credential_id) if credential_id else None,
        )
        return Minted(self._tokens.sign(claims), claims.expires_at)

    def _principal(self, request: MintRequest, access: DashboardAccess, user: UserAccess | None) -> Principal:
        """The principal that the token will speak for. Raises `Denied`."""
        by_link = access.visibility is Visibility.PUBLIC
        if request.share_token is not None:
            dashboard = self._dashboards.get(request.dashboard_id)
            by_link = by_link or _holds(dashboard, request.share_token)
        version = access.share_version if by_link else None
        if request.user is None:
            if access.visibility is Visibility.PRIVATE:
                raise Denied("Dashboard is not externally visible")
            principal = Principal(PUBLIC_SUBJECT, version)
            if not may_see(access, None, principal):
                raise Denied("Dashboard share token is invalid")
            return principal
        member = Principal(request.user.user_id, None, request.user.session_version)
        if may_see(access, user, member):
            return member
        guest = Principal(request.user.user_id, version, request.user.session_version)
        if may_see(access, user, guest):
            return guest
        raise Denied("Dashboard access denied")

    def _check_public_use(self, intent: Intent) -> None:
        broker_id, credential_id = intent.get("brokerProfileId"), intent.get("credentialProfileId")
        broker = self._profiles.broker(str(broker_id)) if broker_id else None
        credential = self._profiles.credential(str(credential_id)) if credential_id else None
        check_public_use(broker, credential, member=False)

    def _limit(self, request: MintRequest, now: int) -> None:
        policy, deadline = self._policy, self._rates.deadline()
        user, dashboard_id = request.user, request.dashboard_id
        if user is not None:
            scopes = [
                ("user", user.user_id, policy.per_user),
                ("user-dashboard", f"{user.user_id}|{dashboard_id}", policy.per_user),
            ]
        else:
            scopes = [("public-share", request.share_token or dashboard_id, policy.per_share_token)]
            if not self._refreshes(request, now):
                scopes.insert(0, ("public-ip", request.address, policy.per_public_ip))
        for scope, key, limit in scopes:
            try:
                self._rates.consume(f"datasource-mint-{scope}", key, limit, deadline=deadline, refusal=_REFUSAL)
            except LimiterUnavailable as error:
                self._record("datasource.session_token.limiter_unavailable", request, scope, now)
                text = "Datasource session token limiter is temporarily unavailable"
                raise LimiterUnavailable(text) from error
            except TidegateError:
                self._record("datasource.session_token.rate_limited", request, scope, now)
                raise

    def _refreshes(self, request: MintRequest, now: int) -> bool:
        """Whether the caller presents a public token of the same datasource that is still valid."""
        if request.current_token is None:
            return False
        try:
            claims = self._tokens.verify(request.current_token, now)
        except TidegateError:
            return False
        requested = (PUBLIC_SUBJECT, request.dashboard_id, request.datasource_id)
        return (claims.subject, claims.dashboard_id, claims.datasource_id) == requested

    def _record(self, action: str, request: MintRequest, scope: str, now: int) -> None:
        actor = request.user.user_id if request.user else None
        self._audit.record(AuditEvent(action, actor, "dashboard", request.dashboard_id, now * 1000, {"scope": scope}))


def _holds(dashboard: Dashboard | None, share_token: str) -> bool:
    return dashboard is not None and hmac.compare_digest(dashboard.share_token.encode(), share_token.encode())
