"""Grant a session token its stream, from the tables: what introspection answers, for our own gateway.

Invariant of this file: the last word is `allowed`'s; the checks before it only word the refusal better.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tidegate.domain.access import Claim, Refusal, Visibility, allowed
from tidegate.domain.intents import Intent, intent_hash
from tidegate.domain.profiles import BrokerProfile, CredentialProfile
from tidegate.domain.stream_policy import StreamPolicy, check_public_use, stream_for
from tidegate.domain.subscriptions import Stream
from tidegate.domain.tokens import STREAM_SCOPE, SessionClaims
from tidegate.errors import Denied, NotFound, Unauthenticated, Unavailable
from tidegate.ports.control_plane import ProfileStore
from tidegate.ports.gateway import AccessSnapshot, AccessStore


@dataclass(frozen=True, slots=True)
class Authorization:
    """A claim that holds now, and the stream it is delivered from.

    `session_token` is to be kept with the subscription, see `Subscription`.
    """

    claim: Claim
    stream: Stream
    session_token: str | None = field(default=None, repr=False)


class Authorizer(Protocol):
    """Who decides about subscribes: `LocalAuthorizer` from our tables, `RemoteAuthorizer` by asking a remote API."""

    def __call__(self, claims: SessionClaims, token: str, now: float) -> Authorization:
        """Grant, or raise what refuses. `token` is what `claims` were read from, verified."""

    def recheck(self, claim: Claim, now: float) -> Refusal | None:
        """Ask `allowed` again with access items read now."""


class LocalAuthorizer:
    """Decide whether a token's holder may stream its datasource now, and from which stream."""

    def __init__(self, *, access: AccessStore, profiles: ProfileStore, policy: StreamPolicy) -> None:
        self._access = access
        self._profiles = profiles
        self._policy = policy

    def __call__(self, claims: SessionClaims, token: str, now: float) -> Authorization:
        """Grant, or raise what refuses.

        Raises:
            Denied, NotFound, Unauthenticated: no. PolicyBlocked: nobody may. Unavailable: a store did not answer.
        """
        claim = self.check(claims, now)
        intent = self.intent(claim)
        broker, _ = self.profiles_of(intent, public=claim.principal.is_public)
        return Authorization(claim, stream_for(intent, broker, self._policy, int(now)))

    def check(self, claims: SessionClaims, now: float) -> Claim:
        """What the token's holder rests on, if it holds now. Raises what refuses."""
        if claims.scope != STREAM_SCOPE:
            raise Denied("Datasource token scope mismatch")
        snapshot = self._snapshot(claims.dashboard_id, claims.principal.subject, claims.principal.is_public)
        return _checked(claims, snapshot, now)

    def recheck(self, claim: Claim, now: float) -> Refusal | None:
        """Ask `allowed` again with access items read now."""
        snapshot = self._snapshot(claim.dashboard_id, claim.principal.subject, claim.principal.is_public)
        return allowed(
            claim,
            snapshot.dashboards.get(claim.dashboard_id),
            snapshot.users.get(claim.principal.subject),
            now,
        )

    def _snapshot(self, dashboard_id: str, subject: str, public: bool) -> AccessSnapshot:
        return self._access.read([dashboard_id], [] if public else [subject])

    def intent(self, claim: Claim) -> Intent:
        """The stored intent of a claim. Raises `Unavailable` when it is changing just now."""
        intent = self._access.intent(claim.dashboard_id, claim.datasource_id)
        if intent is None or intent_hash(intent) != claim.intent_hash:
            # Both were written in one transaction, so it has changed between the two reads.
            raise Unavailable("The datasource is being changed")
        return intent

    def profiles_of(self, intent: Intent, *, public: bool) -> tuple[BrokerProfile | None, CredentialProfile | None]:
        """The profiles an intent uses; for public viewers they must be for public use. Raises `Denied`."""
        broker_id, credential_id = intent.get("brokerProfileId"), intent.get("credentialProfileId")
        broker = self._profiles.broker(str(broker_id)) if broker_id else None
        credential = self._profiles.credential(str(credential_id)) if credential_id else None
        if broker_id and broker is None:
            raise Denied("Broker profile not found")
        if credential_id and credential is None:
            raise Denied("Credential profile not found")
        if public:
            check_public_use(broker, credential)
        return broker, credential


def _checked(claims: SessionClaims, snapshot: AccessSnapshot, now: float) -> Claim:
    dashboard = snapshot.dashboards.get(claims.dashboard_id)
    if dashboard is None or dashboard.deleted:
        raise NotFound("Dashboard not found")
    if claims.principal.is_public:
        if dashboard.visibility is Visibility.PRIVATE:
            raise Denied("Dashboard is not externally visible")
        if claims.principal.share_version != dashboard.share_version:
            raise Denied("Share token is stale", code="share_token_stale")
    claim = claims.claim(dashboard.intents.get(claims.datasource_id, ""))
    refusal = allowed(claim, dashboard, snapshot.users.get(claim.principal.subject), now)
    if refusal is Refusal.REVOKED:
        raise Denied("Dashboard access denied")
    if refusal is Refusal.EXPIRED:
        raise Unauthenticated("Datasource session token expired", code="token_expired")
    if claims.datasource_id not in dashboard.intents:
        raise NotFound("Datasource not found")
    if refusal is Refusal.INTENT_CHANGED:
        raise Denied("Datasource intent mismatch", code="intent_changed")
    return claim
