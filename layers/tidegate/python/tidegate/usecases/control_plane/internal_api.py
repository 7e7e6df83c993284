"""The internal API, for other gateways and APIs: introspection, the feed of revoked tokens, rate limits.

Invariant of this file: a reader of the feed that keeps the cursor it was given never skips an event.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.domain.credentials import placed
from tidegate.domain.limits import GATEWAY_SCOPES, MAX_GATEWAY_LIMIT, RateDecision
from tidegate.domain.profiles import CredentialType
from tidegate.errors import Denied, InvalidInput, LimitReached
from tidegate.ports.control_plane import CredentialCipher, ProfileStore
from tidegate.ports.gateway import SessionTokens
from tidegate.ports.revocation import RevocationFeed
from tidegate.ports.runtime import Clock
from tidegate.protocol import messages
from tidegate.usecases.gateway.authorizer import LocalAuthorizer
from tidegate.usecases.limits.rate_limits import RateLimits


class Introspect:
    """A session token to the intent it may stream, secrets included. For trusted callers only."""

    def __init__(
        self,
        *,
        tokens: SessionTokens,
        authorizer: LocalAuthorizer,
        profiles: ProfileStore,
        cipher: CredentialCipher,
        clock: Clock,
    ) -> None:
        self._tokens = tokens
        self._authorizer = authorizer
        self._profiles = profiles
        self._cipher = cipher
        self._clock = clock

    def __call__(self, token: str, dashboard_id: str | None, datasource_id: str | None) -> dict[str, Any]:
        """Introspect.

        Raises:
            Denied, NotFound, Unauthenticated: the holder may not, with the contract's texts.
            SecretUnreadable: the credential cannot be opened. No refusal of the holder: who asks must not end them.
            Unavailable: a store or the key's service did not answer.
        """
        now = self._clock.now()
        claims = self._tokens.verify(token, now)
        if dashboard_id is not None and dashboard_id != claims.dashboard_id:
            raise Denied("dashboardId does not match token")
        if datasource_id is not None and datasource_id != claims.datasource_id:
            raise Denied("datasourceId does not match token")
        claim = self._authorizer.check(claims, now)
        intent = self._authorizer.intent(claim)
        broker, credential = self._authorizer.profiles_of(intent, public=claim.principal.is_public)
        shown: dict[str, Any] = {
            key: value
            for key, value in intent.items()
            if key not in ("dashboardId", "datasourceId", "brokerRevision", "credentialRevision")
        }
        secret: Mapping[str, str] = {}
        if credential is not None and credential.type is not CredentialType.NONE:
            sealed = self._profiles.sealed_secret(credential.profile_id)
            if sealed is None:
                raise Denied("Credential profile is incomplete")
            secret = self._cipher.decrypt(credential.profile_id, sealed)
        if broker is not None:
            shown |= {
                "tls": dict(broker.tls),
                "topicAllowlist": list(broker.topic_allowlist),
                "username": secret.get("username"),
                "password": secret.get("password"),
            }
        elif credential is not None:
            parameter = shown.pop("queryParamName", None)
            shown["url"], shown["headers"] = placed(
                shown["url"], shown["headers"], credential, secret, shown["authPlacement"], parameter
            )
        return {
            "dashboardId": claim.dashboard_id,
            "datasourceId": claim.datasource_id,
            "credentialProfileId": intent.get("credentialProfileId"),
            "scope": claims.scope,
            "intent": shown,
        }


@dataclass(frozen=True, slots=True)
class RevokedTokens:
    """One page of the feed, in the contract's form."""

    events: list[dict[str, Any]]
    next_cursor: str
    cursor_expired: bool


class ReadRevokedTokens:
    """The feed as the contract tells it: events about dashboards; those about users are ours alone (a contract reader
    knows versions of dashboards only), but the cursor passes over them."""

    def __init__(self, *, feed: RevocationFeed, max_batch: int, clock: Clock) -> None:
        self._feed = feed
        self._max_batch = max_batch
        self._clock = clock

    def __call__(self, cursor: str | None, limit: object) -> RevokedTokens:
        now = self._clock.now()
        wanted = self._max_batch
        if isinstance(limit, int | float) and not isinstance(limit, bool):
            wanted = int(min(max(limit, 1), self._max_batch))
        after, expired = self._after(cursor)
        page = self._feed.read(after, wanted, now)
        if cursor is not None and page.misses(after, wanted):
            expired = True
        if after > page.head:
            page = self._feed.read(0, wanted, now)  # a cursor of another feed
        events = [
            {
                "eventId": str(event.event_id),
                "dashboardId": event.revocation.dashboard_id,
                "shareTokenVersion": event.revocation.share_version,
                "revokedAt": messages.timestamp(event.revoked_at_ms / 1000),
            }
            for event in page.events
            if event.revocation.dashboard_id is not None and event.revocation.share_version is not None
        ]
        if page.events:
            last = page.events[-1]
            next_cursor = encode_cursor(last.revoked_at_ms, str(last.event_id))
        elif cursor is not None and not expired:
            next_cursor = cursor
        else:
            next_cursor = encode_cursor(int(now * 1000), str(page.head) if page.head else "bootstrap")
        return RevokedTokens(events, next_cursor, expired)

    @staticmethod
    def _after(cursor: str | None) -> tuple[int, bool]:
        """(id after which to read, whether the cursor is of no use)."""
        if cursor is None:
            return 0, False
        try:
            fields = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
            event_id = str(fields["eventId"])
        except (ValueError, KeyError, TypeError, binascii.Error):
            return 0, True
        if event_id == "bootstrap":
            return 0, False
        if not event_id.isdigit() or len(event_id) > 18:
            return 0, True
        # An old cursor is no loss by itself: gapless ids tell whether events after it are gone.
        return int(event_id), False


def encode_cursor(created_at_ms: int, event_id: str) -> str:
    text = json.dumps({"createdAtMs": created_at_ms, "eventId": event_id}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


class ConsumeRateLimit:
    """Count one call for another gateway."""

    def __init__(self, *, rates: RateLimits) -> None:
        self._rates = rates

    def __call__(self, scope: object, key: object, limit: object) -> dict[str, Any]:
        """Returns the contract's answer. Raises `InvalidInput`, or `LimiterUnavailable` when failing closed."""
        scope_text = scope.strip().lower()[:96] if isinstance(scope, str) else ""
        key_text = key.strip().lower()[:512] if isinstance(key, str) else ""
        if not scope_text or not key_text:
            raise InvalidInput("scope and key are required")
        if scope_text not in GATEWAY_SCOPES:
            raise InvalidInput("scope is not supported")
        per_minute = 1
        if isinstance(limit, int | float) and not isinstance(limit, bool):
            per_minute = int(min(max(limit, 1), MAX_GATEWAY_LIMIT))
        try:
            decision = self._rates.consume(f"gateway-{scope_text}", key_text, per_minute)
        except LimitReached as refused:
            return _answer(RateDecision(False, 0, refused.retry_after_ms or 1), "limited")
        return _answer(decision, "allowed" if decision.counted else "backend_fail_open")


def _answer(decision: RateDecision, reason: str) -> dict[str, Any]:
    return {
        "allowed": decision.allowed,
        "retryAfterMs": decision.retry_after_ms,
        "remaining": decision.remaining,
        "reason": reason,
    }
