"""The internal API, for other gateways and APIs: introspection, the feed of revoked tokens, and rate limits.

Invariant of this file: a reader of the feed that always uses the cursor it was given last never skips an event.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.domain.client_ip import ip_key
from tidegate.domain.credentials import placement_of
from tidegate.domain.limits import (
    GATEWAY_SCOPES,
    MAX_GATEWAY_LIMIT,
    PUBLIC_SUBSCRIBE_IP_SCOPE,
    PUBLIC_SUBSCRIBE_SHARE_SCOPE,
    RateDecision,
    gateway_key,
)
from tidegate.domain.profiles import CredentialType
from tidegate.domain.tokens import SessionClaims
from tidegate.errors import Denied, InvalidInput, LimitReached
from tidegate.ports.control_plane import CredentialCipher
from tidegate.ports.limits import KeyHasher
from tidegate.ports.profiles import ProfileStore
from tidegate.ports.revocation import RevocationFeed
from tidegate.ports.runtime import Clock
from tidegate.ports.tokens import SessionTokens
from tidegate.protocol import messages, strict_json
from tidegate.usecases.gateway.authorizer import LocalAuthorizer
from tidegate.usecases.limits.rate_limits import RateLimits, stored_address

#: Keys of an intent that other gateways are not shown: they keep no history.
_NOT_SHOWN = frozenset(
    {"dashboardId", "datasourceId", "brokerRevision", "credentialRevision", "historySeconds", "historyEveryMs"}
)


class Introspect:
    """Answers, for a session token, with the intent that its holder may stream, secrets included.

    For trusted callers only.
    """

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
        """Introspect a token. `dashboard_id` and `datasource_id` must match the token unless they are None.

        A token for a whole dashboard matches any datasource of it, and needs `datasource_id`.

        Raises:
            Denied, NotFound, Unauthenticated: the holder may not. The texts are part of the internal API.
            SecretUnreadable: the credential cannot be decrypted. This does not refuse the holder, so the caller must
                not end the holder's subscription for it.
            Unavailable: a store or the key's service did not answer.
        """
        now = self._clock.now()
        claims = _narrowed(self._tokens.verify(token, now), dashboard_id, datasource_id)
        admitted = self._authorizer.check(claims, now)
        claim = admitted.claim
        intent = self._authorizer.intent(claim)
        broker, credential = self._authorizer.profiles_of(intent, member=admitted.member)
        shown: dict[str, Any] = {key: value for key, value in intent.items() if key not in _NOT_SHOWN}
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
            placement = placement_of(credential, secret, shown["authPlacement"], parameter)
            if placement is not None:
                shown["url"], shown["headers"] = placement.onto(shown["url"], shown["headers"])
        return {
            "dashboardId": claim.dashboard_id,
            "datasourceId": claim.datasource_id,
            "credentialProfileId": intent.get("credentialProfileId"),
            "scope": claims.scope,
            "intent": shown,
        }


def _narrowed(claims: SessionClaims, dashboard_id: str | None, datasource_id: str | None) -> SessionClaims:
    if dashboard_id is not None and dashboard_id != claims.dashboard_id:
        raise Denied("dashboardId does not match token")
    if claims.for_dashboard:
        if datasource_id is None:
            raise Denied("datasourceId is needed with a token for a whole dashboard")
        return claims.of_datasource(claims.dashboard_id, datasource_id)
    if datasource_id is not None and datasource_id != claims.datasource_id:
        raise Denied("datasourceId does not match token")
    return claims


@dataclass(frozen=True, slots=True)
class RevokedTokens:
    """One page of the feed, in the form of the internal API."""

    events: list[dict[str, Any]]
    next_cursor: str
    cursor_expired: bool


class ReadRevokedTokens:
    """Reads the feed as the internal API shows it: only events about share versions of dashboards.

    Events about users are left out, because readers of the internal API know share versions only. The cursor moves past
    them.
    """

    def __init__(self, *, feed: RevocationFeed, max_batch: int, clock: Clock) -> None:
        self._feed = feed
        self._max_batch = max_batch
        self._clock = clock

    def __call__(self, cursor: str | None, limit: object) -> RevokedTokens:
        """Read one page after `cursor`; from the oldest retained event without one.

        `limit` is brought into the range of 1 to the largest page; anything but a number means the largest page.
        """
        now = self._clock.now()
        count = self._max_batch
        if isinstance(limit, int | float) and not isinstance(limit, bool):
            count = int(min(max(limit, 1), self._max_batch))
        after, expired = self._after(cursor)
        page = self._feed.read(after, count, now)
        if cursor is not None and page.misses(after, count):
            expired = True
        if after > page.head:
            page = self._feed.read(0, count, now)  # a cursor of another feed
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
        """Returns (id after which to read, whether the cursor is unusable)."""
        if cursor is None:
            return 0, False
        try:
            fields = strict_json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
            event_id = str(fields["eventId"])
        except (InvalidInput, ValueError, KeyError, TypeError, binascii.Error):
            return 0, True
        if event_id == "bootstrap":
            return 0, False
        if not (event_id.isascii() and event_id.isdigit()) or len(event_id) > 18:
            return 0, True
        # A cursor may be old and still lose nothing. Ids have no gaps, so they show whether events after it are gone.
        return int(event_id), False


def encode_cursor(created_at_ms: int, event_id: str) -> str:
    """The opaque text of a cursor: base64url of JSON, without padding. `event_id` is `bootstrap` before any event."""
    text = json.dumps({"createdAtMs": created_at_ms, "eventId": event_id}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


class ConsumeRateLimit:
    """Counts one call for another gateway, in the budget that our own gateway counts in."""

    def __init__(self, *, rates: RateLimits, keys: KeyHasher) -> None:
        self._rates = rates
        self._keys = keys

    def __call__(self, scope: object, key: object, limit: object) -> dict[str, Any]:
        """Count one call. Returns the answer of the internal API.

        Raises:
            InvalidInput: scope or key is missing, or the scope is not supported.
            LimiterUnavailable: the store did not answer and the failure mode is fail-closed.
        """
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
            decision = self._rates.consume(
                scope_text,
                self._key(scope_text, key_text),
                per_minute,
                refusal="Limited",
                shown_as=f"gateway-{scope_text}",
            )
        except LimitReached as refused:
            return _answer(RateDecision(False, 0, refused.retry_after_ms or 1), "limited")
        return _answer(decision, "allowed" if decision.counted else "backend_fail_open")

    def _key(self, scope: str, given: str) -> str:
        """What our own gateway counts under. An address may be given as it stands, in any form that proxies write."""
        key = gateway_key(given if scope == PUBLIC_SUBSCRIBE_SHARE_SCOPE else ip_key(given))
        # A subscribe does not know the address any more, only what is stored of it.
        return stored_address(self._keys, key) if scope == PUBLIC_SUBSCRIBE_IP_SCOPE else key


def _answer(decision: RateDecision, reason: str) -> dict[str, Any]:
    return {
        "allowed": decision.allowed,
        "retryAfterMs": decision.retry_after_ms,
        "remaining": decision.remaining,
        "reason": reason,
    }
