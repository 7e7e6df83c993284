"""Read the short history of a datasource, with the session token of its viewer.

Invariants of this file:

- Who may not subscribe now may not read either: the same authorizer decides, with access items that are read now.
- A viewer sees as much of the past, and as finely, as their own datasource asks for, whatever is kept for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.domain.history import Point, ms_of
from tidegate.domain.switches import REALTIME_OFF
from tidegate.domain.tokens import SessionClaims
from tidegate.errors import Disabled, InvalidInput, NotFound
from tidegate.ports.history import HistoryStore, Series
from tidegate.ports.runtime import Clock
from tidegate.ports.tokens import SessionTokens
from tidegate.usecases.gateway.authorizer import Authorizer
from tidegate.usecases.gateway.stream_history import points_of
from tidegate.usecases.limits.rate_limits import RateLimits

#: About how many bytes of points one answer has at most. The rest is for the next.
MOST_BYTES = 256_000


@dataclass(frozen=True, slots=True)
class HistoryPolicy:
    """Settings of reading.

    Attributes:
        enabled: whether realtime is switched on.
        per_viewer: reads of a user, or of a public viewer, in a minute.
        per_address: reads of all public viewers of an address in a minute.
    """

    per_viewer: int
    per_address: int
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """Who asks for what.

    Attributes:
        token: a session token of the dashboard, or of the datasource.
        topic: of a datasource whose topic filter has a wildcard; else None.
        since: the `seq` of the newest value that the viewer has; None for all.
        until_ms: only points that begin before this, epoch milliseconds; None for all.
        address: the client's address in the form that limits count.
    """

    token: str
    dashboard_id: str
    datasource_id: str
    address: str
    topic: str | None = None
    since: str | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Points, the newest first.

    Attributes:
        every_ms, seconds: what the datasource asks for.
        next_ms: `until_ms` of the request that brings what is before these; None when there is nothing.
    """

    points: Sequence[Point]
    every_ms: int
    seconds: int
    next_ms: int | None


class ReadHistory:
    """The use case behind `GET /dashboards/{id}/history`."""

    def __init__(
        self,
        *,
        policy: HistoryPolicy,
        tokens: SessionTokens,
        authorizer: Authorizer,
        history: HistoryStore,
        rates: RateLimits,
        clock: Clock,
    ) -> None:
        self._policy = policy
        self._tokens = tokens
        self._authorizer = authorizer
        self._history = history
        self._rates = rates
        self._clock = clock

    def __call__(self, request: HistoryRequest) -> HistoryPage:
        """One page.

        Raises:
            Denied, NotFound, Unauthenticated, PolicyBlocked: the holder of the token may not, or nothing is kept.
            InvalidInput: the topic is missing or too much, or `since` is none.
            LimitReached, LimiterUnavailable: too many reads, or that could not be checked.
            Unavailable: a store did not answer.
        """
        if not self._policy.enabled:
            raise Disabled(REALTIME_OFF)
        now = self._clock.now()
        claims = self._tokens.verify(request.token, now).of_datasource(request.dashboard_id, request.datasource_id)
        self._limit(claims, request.address)
        stream = self._authorizer(claims, request.token, now).stream
        kept = stream.history
        if kept is None:
            raise NotFound("The datasource keeps no history", code="no_history")
        if stream.by_topic is (request.topic is None):
            text = "topic is required: the datasource has many" if stream.by_topic else "the datasource has no topics"
            raise InvalidInput(text)
        if request.since is not None:
            _check_since(request.since)
        points, next_ms = points_of(
            self._history,
            Series(stream.stream_key, request.topic),
            kept,
            now,
            since=request.since,
            before_ms=request.until_ms,
            most_bytes=MOST_BYTES,
        )
        return HistoryPage(points, kept.every_ms, kept.seconds, next_ms)

    def _limit(self, claims: SessionClaims, address: str) -> None:
        """Count one read under what was verified: the user, or the public viewer and the address."""
        deadline = self._rates.deadline()

        def consume(scope: str, key: str, limit: int, whose: str) -> None:
            refusal = f"Too many reads of a history {whose}: at most {limit} in a minute"
            self._rates.consume(scope, key, limit, deadline=deadline, refusal=refusal)

        if not claims.principal.is_public:
            consume("history-user", claims.subject, self._policy.per_viewer, "of this user")
            return
        if claims.viewer_id is not None:
            consume("history-public-viewer", claims.viewer_id, self._policy.per_viewer, "of this viewer")
        consume("history-public-ip", address, self._policy.per_address, "from this address")


def _check_since(since: str) -> None:
    try:
        ms_of(since)
    except ValueError:
        raise InvalidInput("since: take the seq of a value as it is") from None
