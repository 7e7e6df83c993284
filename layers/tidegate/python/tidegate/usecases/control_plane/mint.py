"""Mint a session token for one datasource of one dashboard, or for a whole dashboard.

The order is: own limits, access, datasource, profile policies, shared limit, sign. A token for a whole dashboard names
no datasource: what is checked here of one is checked when it is subscribed to. The caller's own limits come first,
also for a dashboard that does not exist, so that guessing is limited like anything else.

Invariant of this file: limits count under verified values only: the address, the user of a login, the viewer that a
token of ours names, the dashboard and share version that the caller was found to hold. What all viewers of a dashboard
share is spent last, by who is admitted and new.
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
    guest_version_holds,
    is_member,
    may_see,
    open_to_guests,
)
from tidegate.domain.audit import AuditEvent
from tidegate.domain.intents import Intent
from tidegate.domain.stream_policy import check_destination, check_public_use
from tidegate.domain.tokens import DASHBOARD_SCOPE, STREAM_SCOPE, SessionClaims, refresh_after
from tidegate.domain.users import User
from tidegate.errors import Denied, LimiterUnavailable, NotFound, TidegateError
from tidegate.ports.control_plane import AuditLog, DashboardStore
from tidegate.ports.gateway import AccessStore
from tidegate.ports.profiles import ProfileStore
from tidegate.ports.runtime import Clock, Ids
from tidegate.ports.tokens import SessionTokens
from tidegate.usecases.limits.rate_limits import RateLimits

#: Whose tokens a scope counts, as a refusal says it.
_WHOSE = {
    "user": "of this user",
    "public-ip": "from this address",
    "public-viewer": "of this viewer",
    "public-following-ip": "from this address",
    "public-share": "for this dashboard",
}


@dataclass(frozen=True, slots=True)
class MintPolicy:
    """Settings of minting. The sizes belong together: see `domain.budgets`.

    Attributes:
        ttl_s: life of a token, seconds.
        per_user: tokens of a signed-in user in a minute.
        new_per_address: in a minute, public viewers of an address that are new, and its wrong guesses.
        new_per_dashboard: in a minute, public viewers of a dashboard and share version that are new.
        per_viewer: in a minute, tokens that follow a token of the same public viewer.
        following_per_address: the same of all public viewers of an address.
    """

    ttl_s: int
    per_user: int
    new_per_address: int
    new_per_dashboard: int
    per_viewer: int
    following_per_address: int


@dataclass(frozen=True, slots=True)
class Minted:
    """A session token.

    Attributes:
        expires_at: epoch seconds.
        refresh_after: when its holder should ask for the next one, epoch seconds: see `domain.tokens.refresh_after`.
        minted_at: epoch seconds.
    """

    token: str
    expires_at: int
    refresh_after: float
    minted_at: int


@dataclass(frozen=True, slots=True)
class MintRequest:
    """Who asks for what.

    Attributes:
        user: the signed-in user; None for public viewers.
        address: the client's address in the form that limits count.
        datasource_id: None for a token for the whole dashboard.
        share_token: from the link of a dashboard; None without a link.
        current_token: a session token of the same dashboard that this viewer holds already. With a valid one a public
            viewer is not new.
    """

    user: User | None
    address: str
    dashboard_id: str
    datasource_id: str | None
    share_token: str | None = None
    current_token: str | None = None


class Mint:
    """The use case behind `POST /datasource-sessions` and `POST /dashboards/{id}/session`."""

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
            Denied, NotFound: the caller may not see the dashboard or this datasource, or a profile of it refuses.
            LimitReached: too many tokens were requested.
            LimiterUnavailable: the limits could not be checked and the failure mode is fail-closed.
            Unavailable: a store did not answer.
        """
        now = int(self._clock.now())
        spend = _Spending(self._rates, self._audit, request, now)
        held = self._held(request, now)
        self._spend_own(request, held, spend)
        user_ids = [request.user.user_id] if request.user else []
        snapshot = self._access.read([request.dashboard_id], user_ids)
        access = snapshot.dashboards.get(request.dashboard_id)
        if access is None or access.deleted:
            raise NotFound("Dashboard not found")
        spend.dashboard_id = request.dashboard_id
        user = snapshot.users.get(request.user.user_id) if request.user else None
        opened = request.share_token is not None and self._opens(request.dashboard_id, request.share_token)
        if held is not None and request.share_token is not None and not opened:
            spend("public-ip", request.address, self._policy.new_per_address)
        principal = self._principal(request, access, user, snapshot.owner_of(request.dashboard_id), opened)
        intent_hash, credential_id = self._datasource(request, access, member=is_member(access, user))
        role = "public" if request.user is None else request.user.role.value
        claims = SessionClaims(
            subject=principal.subject,
            dashboard_id=request.dashboard_id,
            datasource_id=request.datasource_id or "",
            scope=DASHBOARD_SCOPE if request.datasource_id is None else STREAM_SCOPE,
            issued_at=now,
            expires_at=now + self._policy.ttl_s,
            jti=self._ids.new_uuid(),
            intent_hash=intent_hash,
            share_version=principal.share_version,
            session_version=principal.session_version,
            role=role,
            credential_profile_id=credential_id,
            viewer_id=self._viewer_id(request, principal, held, access, spend) if principal.is_public else None,
        )
        return Minted(self._tokens.sign(claims), claims.expires_at, refresh_after(claims), now)

    def _datasource(
        self, request: MintRequest, access: DashboardAccess, *, member: bool
    ) -> tuple[str | None, str | None]:
        """Intent hash and credential profile of the datasource that is asked for; None and None for a whole dashboard.

        Raises:
            Denied, NotFound: there is no such datasource, or a profile of it refuses.
        """
        if request.datasource_id is None:
            return None, None
        intent_hash = access.intents.get(request.datasource_id)
        if intent_hash is None:
            raise NotFound("Datasource not found")
        intent = self._access.intent(request.dashboard_id, request.datasource_id) or {}
        self._check_profiles(intent, member=member)
        credential_id = intent.get("credentialProfileId")
        return intent_hash, str(credential_id) if credential_id else None

    def _held(self, request: MintRequest, now: int) -> SessionClaims | None:
        """The claims of `current_token`, if it is a valid public token of this dashboard that names its viewer."""
        if request.user is not None or request.current_token is None:
            return None
        try:
            claims = self._tokens.verify(request.current_token, now)
        except TidegateError:
            return None
        known = claims.principal.is_public and claims.dashboard_id == request.dashboard_id
        return claims if known and claims.viewer_id is not None else None

    def _spend_own(self, request: MintRequest, held: SessionClaims | None, spend: _Spending) -> None:
        if request.user is not None:
            spend("user", request.user.user_id, self._policy.per_user)
        elif held is None or held.viewer_id is None:
            spend("public-ip", request.address, self._policy.new_per_address)
        else:
            spend("public-viewer", held.viewer_id, self._policy.per_viewer)
            spend("public-following-ip", request.address, self._policy.following_per_address)

    def _viewer_id(
        self,
        request: MintRequest,
        principal: Principal,
        held: SessionClaims | None,
        access: DashboardAccess,
        spend: _Spending,
    ) -> str | None:
        """Who this public viewer is. Who is new spends what all viewers of the dashboard share."""
        if held is not None and guest_version_holds(access, held.principal.share_version):
            return held.viewer_id
        if held is not None:  # its link has been replaced
            spend("public-ip", request.address, self._policy.new_per_address)
        shared = f"{request.dashboard_id}:{principal.share_version}"
        spend("public-share", shared, self._policy.new_per_dashboard)
        return self._ids.new_id()

    def _opens(self, dashboard_id: str, share_token: str) -> bool:
        """Whether this is the dashboard's share token."""
        dashboard = self._dashboards.get(dashboard_id)
        return dashboard is not None and hmac.compare_digest(dashboard.share_token.encode(), share_token.encode())

    def _principal(
        self,
        request: MintRequest,
        access: DashboardAccess,
        user: UserAccess | None,
        owner: UserAccess | None,
        opened: bool,
    ) -> Principal:
        """The principal that the token will speak for. `opened`: the caller holds the link. Raises `Denied`."""
        by_link = access.visibility is Visibility.PUBLIC or opened
        version = access.share_version if by_link else None
        if request.user is None:
            if not open_to_guests(access, owner):
                raise Denied("Dashboard is not externally visible")
            principal = Principal(PUBLIC_SUBJECT, version)
            if not may_see(access, None, owner, principal):
                raise Denied("Dashboard share token is invalid")
            return principal
        member = Principal(request.user.user_id, None, request.user.session_version)
        if may_see(access, user, owner, member):
            return member
        guest = Principal(request.user.user_id, version, request.user.session_version)
        if may_see(access, user, owner, guest):
            return guest
        raise Denied("Dashboard access denied")

    def _check_profiles(self, intent: Intent, *, member: bool) -> None:
        """Refuse what the profiles do not allow. Only those are read that can refuse. Raises `Denied`."""
        broker_id, credential_id = intent.get("brokerProfileId"), intent.get("credentialProfileId")
        if member and broker_id:
            return
        broker = self._profiles.broker(str(broker_id)) if broker_id else None
        credential = self._profiles.credential(str(credential_id)) if credential_id else None
        check_public_use(broker, credential, member=member)
        check_destination(intent, credential)


class _Spending:
    """Spends the budgets of one request, under one deadline, and tells the audit log what was refused.

    `dashboard_id`: of the dashboard, once it was found. Until then the audit log is told no id: a client would choose
    how many rows there are.
    """

    def __init__(self, rates: RateLimits, audit: AuditLog, request: MintRequest, now: int) -> None:
        self._rates = rates
        self._audit = audit
        self._request = request
        self._now = now
        self._deadline = rates.deadline()
        self.dashboard_id: str | None = None

    def __call__(self, scope: str, key: str, limit: int) -> None:
        """Count one token. Raises `LimitReached` or `LimiterUnavailable`."""
        refusal = f"Too many datasource session token requests {_WHOSE[scope]}: at most {limit} in a minute"
        try:
            self._rates.consume(f"datasource-mint-{scope}", key, limit, refusal=refusal, deadline=self._deadline)
        except LimiterUnavailable as error:
            self._record("datasource.session_token.limiter_unavailable", scope)
            raise LimiterUnavailable("Datasource session token limiter is temporarily unavailable") from error
        except TidegateError:
            self._record("datasource.session_token.rate_limited", scope)
            raise

    def _record(self, action: str, scope: str) -> None:
        actor = self._request.user.user_id if self._request.user else None
        event = AuditEvent(action, actor, "dashboard", self.dashboard_id, self._now * 1000, {"scope": scope})
        self._audit.record(event)
