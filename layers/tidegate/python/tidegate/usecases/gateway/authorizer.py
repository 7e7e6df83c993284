"""Decide from our own tables whether a session token may subscribe, and to which stream.

Invariant of this file: `allowed` decides. The checks around it only choose a better text for the refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple, Protocol

from tidegate.domain.access import (
    PUBLIC_SUBJECT,
    Claim,
    DashboardAccess,
    Refusal,
    Visibility,
    allowed,
    guest_version_holds,
    is_member,
    may_see,
    open_to_guests,
)
from tidegate.domain.intents import Intent, intent_hash
from tidegate.domain.profiles import BrokerProfile, CredentialProfile
from tidegate.domain.stream_policy import StreamPolicy, check_destination, check_public_use, stream_for
from tidegate.domain.subscriptions import Stream
from tidegate.domain.tokens import DASHBOARD_SCOPE, STREAM_SCOPE, SessionClaims
from tidegate.errors import Denied, NotFound, TidegateError, Unauthenticated, Unavailable
from tidegate.ports.gateway import AccessSnapshot, AccessStore
from tidegate.ports.profiles import ProfileStore


@dataclass(frozen=True, slots=True)
class Authorization:
    """A claim that holds now, and the stream it is delivered from.

    Attributes:
        session_token: is stored with the subscription; see `Subscription`. None when it need not be.
        owner_id: who owns the dashboard; None when a remote API does not say it.
    """

    claim: Claim
    stream: Stream
    session_token: str | None = field(default=None, repr=False)
    owner_id: str | None = None


class Admitted(NamedTuple):
    """A claim that holds now.

    Attributes:
        member: whether its holder is a member of the dashboard, and not a guest.
        owner_id: who owns the dashboard.
    """

    claim: Claim
    member: bool
    owner_id: str


class Authorizer(Protocol):
    """Decides about subscribes: `LocalAuthorizer` from our tables, `RemoteAuthorizer` by asking a remote API."""

    def __call__(self, claims: SessionClaims, token: str, now: float) -> Authorization:
        """Authorize, or raise the refusal. `token` is the verified token that `claims` were read from."""

    def of_all(
        self, claims: Sequence[SessionClaims], token: str, now: float
    ) -> Sequence[Authorization | TidegateError]:
        """Authorize claims that differ in the datasource only. For each, in order, what a call for it gives or raises.

        Raises:
            Unavailable: a store did not answer, so none is decided.
        """

    def recheck(self, claims: Sequence[Claim], now: float) -> Sequence[Refusal | None]:
        """Read the access items now and ask `allowed` again. None for each claim that holds.

        The claims differ in datasource and intent only.
        """


class LocalAuthorizer:
    """Decides whether the token's holder may stream the datasource now, and from which stream."""

    def __init__(self, *, access: AccessStore, profiles: ProfileStore, policy: StreamPolicy) -> None:
        self._access = access
        self._profiles = profiles
        self._policy = policy

    def __call__(self, claims: SessionClaims, token: str, now: float) -> Authorization:
        """Authorize, or raise the refusal.

        Raises:
            Denied, NotFound, Unauthenticated: this holder may not.
            PolicyBlocked: nobody may.
            Unavailable: a store did not answer.
        """
        admitted = self.check(claims, now)
        return self._authorized(admitted, self.intent(admitted.claim), self._profiles, now)

    def of_all(
        self, claims: Sequence[SessionClaims], token: str, now: float
    ) -> Sequence[Authorization | TidegateError]:
        """Authorize claims that differ in the datasource only. Access items, intents and each profile are read once.

        Every read is made after the call began, as for one. Raises `Unavailable` when a store did not answer.
        """
        first = claims[0]
        if any(claim.scope != STREAM_SCOPE for claim in claims):
            return [Denied("Datasource token scope mismatch") for _ in claims]
        snapshot = self._snapshot(first.dashboard_id, first.principal.subject, first.principal.is_public)
        return self._each(claims, snapshot, now)

    def of_guests(
        self, dashboard_id: str, datasource_ids: Sequence[str], now: float
    ) -> Sequence[Authorization | TidegateError]:
        """What a guest who comes now would be given or refused of these datasources, each in order.

        A private dashboard is looked at as if everybody might see it: as it will be once it is shared.

        Raises:
            NotFound: there is no such dashboard.
            Unavailable: a store did not answer, so none is decided.
        """
        snapshot = self._access.read([dashboard_id], [])
        dashboard = snapshot.dashboards.get(dashboard_id)
        if dashboard is None:
            raise NotFound("Dashboard not found")
        if dashboard.visibility is Visibility.PRIVATE:
            owner = self._access.read([], [dashboard.owner_id]).users
            snapshot = AccessSnapshot({dashboard_id: replace(dashboard, visibility=Visibility.PUBLIC)}, owner)
        whole = SessionClaims(
            subject=PUBLIC_SUBJECT,
            dashboard_id=dashboard_id,
            datasource_id="",
            scope=DASHBOARD_SCOPE,
            issued_at=int(now),
            expires_at=int(now) + 1,
            share_version=dashboard.share_version,
        )
        return self._each([whole.of_datasource(dashboard_id, each) for each in datasource_ids], snapshot, now)

    def _each(
        self, claims: Sequence[SessionClaims], snapshot: AccessSnapshot, now: float
    ) -> Sequence[Authorization | TidegateError]:
        if not claims:
            return []
        intents = self._access.intents_of(claims[0].dashboard_id)
        profiles = _ReadOnce(self._profiles)

        def one(claim: SessionClaims) -> Authorization | TidegateError:
            try:
                admitted = _checked(claim, snapshot, now)
                intent = _unchanged(intents.get(claim.datasource_id), admitted.claim)
                return self._authorized(admitted, intent, profiles, now)
            except TidegateError as refusal:
                return refusal

        return [one(claim) for claim in claims]

    def _authorized(self, admitted: Admitted, intent: Intent, profiles: _Profiles, now: float) -> Authorization:
        broker, _ = _allowed_profiles(profiles, intent, member=admitted.member)
        stream = stream_for(intent, broker, self._policy, int(now))
        return Authorization(admitted.claim, stream, owner_id=admitted.owner_id)

    def check(self, claims: SessionClaims, now: float) -> Admitted:
        """The claim of the token's holder, if it holds now. Otherwise raises the refusal."""
        if claims.scope != STREAM_SCOPE:
            raise Denied("Datasource token scope mismatch")
        snapshot = self._snapshot(claims.dashboard_id, claims.principal.subject, claims.principal.is_public)
        return _checked(claims, snapshot, now)

    def check_dashboard(self, claims: SessionClaims) -> None:
        """Raise what refuses the token's holder every datasource of the dashboard. It admits to none of them.

        Raises as `__call__`. `claims`: of a token for a whole dashboard.
        """
        snapshot = self._snapshot(claims.dashboard_id, claims.principal.subject, claims.principal.is_public)
        dashboard = _shown(claims, snapshot)
        user, owner = snapshot.users.get(claims.principal.subject), snapshot.owner_of(claims.dashboard_id)
        if not may_see(dashboard, user, owner, claims.principal):
            raise Denied("Dashboard access denied")

    def recheck(self, claims: Sequence[Claim], now: float) -> Sequence[Refusal | None]:
        """Read the access items now and ask `allowed` again. None for each claim that holds."""
        first = claims[0]
        snapshot = self._snapshot(first.dashboard_id, first.principal.subject, first.principal.is_public)
        dashboard, owner = snapshot.dashboards.get(first.dashboard_id), snapshot.owner_of(first.dashboard_id)
        user = snapshot.users.get(first.principal.subject)
        return [allowed(claim, dashboard, user, owner, now) for claim in claims]

    def _snapshot(self, dashboard_id: str, subject: str, public: bool) -> AccessSnapshot:
        return self._access.read([dashboard_id], [] if public else [subject])

    def intent(self, claim: Claim) -> Intent:
        """The stored intent of a claim. Raises `Unavailable` when the intent is being changed."""
        return _unchanged(self._access.intent(claim.dashboard_id, claim.datasource_id), claim)

    def profiles_of(self, intent: Intent, *, member: bool) -> tuple[BrokerProfile | None, CredentialProfile | None]:
        """The profiles that an intent uses.

        Unless for a member, they must allow public use. The credential must be allowed to go to the intent's URL.

        Raises:
            Denied: one of them is gone, or refuses.
            Unavailable: the store did not answer.
        """
        return _allowed_profiles(self._profiles, intent, member=member)


class _Profiles(Protocol):
    def broker(self, profile_id: str) -> BrokerProfile | None: ...
    def credential(self, profile_id: str) -> CredentialProfile | None: ...


class _ReadOnce:
    """Profiles, each read at most once, for one pass over several datasources."""

    def __init__(self, profiles: ProfileStore) -> None:
        self.broker = cache(profiles.broker)
        self.credential = cache(profiles.credential)


def _allowed_profiles(
    profiles: _Profiles, intent: Intent, *, member: bool
) -> tuple[BrokerProfile | None, CredentialProfile | None]:
    broker_id, credential_id = intent.get("brokerProfileId"), intent.get("credentialProfileId")
    broker = profiles.broker(str(broker_id)) if broker_id else None
    credential = profiles.credential(str(credential_id)) if credential_id else None
    if broker_id and broker is None:
        raise Denied("Broker profile not found")
    if credential_id and credential is None:
        raise Denied("Credential profile not found")
    check_public_use(broker, credential, member=member)
    check_destination(intent, credential)
    return broker, credential


def _unchanged(intent: Intent | None, claim: Claim) -> Intent:
    if intent is None or intent_hash(intent) != claim.intent_hash:
        # Hash and intent are written in one transaction. They differ, so a write came between our two reads.
        raise Unavailable("The datasource is being changed")
    return intent


def _shown(claims: SessionClaims, snapshot: AccessSnapshot) -> DashboardAccess:
    """The dashboard, or why it is not shown to anybody, or to no guest with this token.

    The datasource is that of the claims. A token for a whole dashboard has none: then any datasource will do.
    """
    dashboard = snapshot.dashboards.get(claims.dashboard_id)
    if dashboard is None or dashboard.deleted:
        raise NotFound("Dashboard not found")
    if claims.principal.is_public:
        if not open_to_guests(dashboard, snapshot.owner_of(claims.dashboard_id)):
            raise Denied("Dashboard is not externally visible")
        if not guest_version_holds(dashboard, claims.principal.share_version, claims.datasource_id or None):
            raise Denied("Share token is stale", code="share_token_stale")
    return dashboard


def _checked(claims: SessionClaims, snapshot: AccessSnapshot, now: float) -> Admitted:
    dashboard, owner = _shown(claims, snapshot), snapshot.owner_of(claims.dashboard_id)
    claim = claims.claim(dashboard.intents.get(claims.datasource_id, ""))
    user = snapshot.users.get(claim.principal.subject)
    refusal = allowed(claim, dashboard, user, owner, now)
    if refusal is Refusal.REVOKED:
        raise Denied("Dashboard access denied")
    if refusal is Refusal.EXPIRED:
        raise Unauthenticated("Datasource session token expired", code="token_expired")
    if refusal is Refusal.REMOVED or claims.datasource_id not in dashboard.intents:
        raise NotFound("Datasource not found")
    if refusal is Refusal.INTENT_CHANGED:
        raise Denied("Datasource intent mismatch", code="intent_changed")
    return Admitted(claim, is_member(dashboard, user), dashboard.owner_id)
