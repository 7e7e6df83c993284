"""Decide by asking a remote API whether a session token may subscribe, and to which stream.

Invariant of this file: nobody is authorized for anything that the API does not authorize now. `recheck` asks `allowed`,
as everywhere, with the remote access item, which holds what the API's feed has revoked since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tidegate.domain.access import Claim, Refusal, allowed
from tidegate.domain.stream_policy import StreamPolicy
from tidegate.domain.tokens import STREAM_SCOPE, SessionClaims
from tidegate.errors import Denied, TidegateError
from tidegate.ports.gateway import AccessStore
from tidegate.ports.limits import KeyHasher
from tidegate.ports.remote_api import Introspections
from tidegate.ports.runtime import Observer
from tidegate.usecases.gateway.authorizer import Authorization
from tidegate.usecases.parallel import in_parallel
from tidegate.usecases.remote_api.introspection import introspect


class RemoteAuthorizer:
    """The `Authorizer` of `usecases.gateway.authorizer` that asks a remote API, by introspection."""

    def __init__(
        self,
        *,
        introspections: Introspections,
        access: AccessStore,
        policy: StreamPolicy,
        keys: KeyHasher,
        observer: Observer,
    ) -> None:
        self._introspections = introspections
        self._keys = keys
        self._access = access
        self._policy = policy
        self._observer = observer

    def __call__(self, claims: SessionClaims, token: str, now: float) -> Authorization:
        """Authorize, or raise the refusal.

        Raises:
            Denied, NotFound, Unauthenticated, InvalidInput: the API says no.
            PolicyBlocked: nobody may.
            Unavailable: the API did not answer the question.
        """
        if claims.scope != STREAM_SCOPE:
            raise Denied("Datasource token scope mismatch")
        ids = claims.dashboard_id, claims.datasource_id
        introspection = introspect(self._introspections, self._observer, token, *ids)
        stream = introspection.stream(self._policy, self._keys.key, int(now))
        # The hash in the token does not cover all that makes a stream another one: a secret is not in it. So the claim
        # names both, the hash and the stream.
        intent = f"{claims.intent_hash or ''}.{stream.stream_key}"
        return Authorization(replace(claims.claim(""), intent_hash=intent), stream, session_token=token)

    def of_all(
        self, claims: Sequence[SessionClaims], token: str, now: float
    ) -> Sequence[Authorization | TidegateError]:
        """Authorize each. The API is asked about every datasource, about several at the same time."""

        def one(claim: SessionClaims) -> Authorization | TidegateError:
            try:
                return self(claim, token, now)
            except TidegateError as refusal:
                return refusal

        return in_parallel(one, claims)

    def recheck(self, claims: Sequence[Claim], now: float) -> Sequence[Refusal | None]:
        """Read the access item now and ask `allowed` again. None for each claim that holds."""
        dashboard_id = claims[0].dashboard_id
        dashboard = self._access.read([dashboard_id], []).dashboards.get(dashboard_id)
        return [allowed(claim, dashboard, None, None, now) for claim in claims]
