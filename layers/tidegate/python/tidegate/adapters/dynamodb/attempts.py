"""Attempts, in the limiters table: one item for each key, with the ids of the attempts in the current window.

Invariant of this file: each decision is one conditional write on one item. An id is added and removed as a member of a
set, so a write whose answer was lost may be repeated.
"""

from __future__ import annotations

from tidegate.adapters.dynamodb.client import ConditionFailed, DynamoDb, Item, KeyFlooded
from tidegate.adapters.dynamodb.limits import in_time, number
from tidegate.domain.attempts import (
    FLOODED_ATTEMPT,
    AttemptDecision,
    AttemptPolicy,
    decide_attempt,
    refuse_attempt,
)
from tidegate.errors import Unavailable
from tidegate.ports.limits import AttemptStore

#: A window that ends while it is looked at begins anew. Another request may have begun it first.
_TRIES = 4
#: How long an item is kept after it says nothing any longer, seconds.
_KEPT_S = 60


class DynamoAttempts(AttemptStore):
    """Attempts, with the end of their window in `until`."""

    def __init__(self, db: DynamoDb, table: str) -> None:
        self._db = db
        self._table = table

    def begin(self, key: str, attempt_id: str, policy: AttemptPolicy, now_ms: int, deadline: float) -> AttemptDecision:
        try:
            for _ in range(_TRIES):
                in_time(deadline)
                try:
                    return _decision(self._join(key, attempt_id, policy, now_ms, deadline), policy, now_ms)
                except ConditionFailed as failed:
                    item = failed.item or {}
                until_ms = number(item.get("until", 0))
                if until_ms > now_ms:
                    return refuse_attempt(until_ms, now_ms)
                in_time(deadline)
                try:
                    return _decision(self._start(key, attempt_id, policy, now_ms, item, deadline), policy, now_ms)
                except ConditionFailed:
                    continue
        except KeyFlooded:
            return FLOODED_ATTEMPT
        raise Unavailable("The attempts of this key change too often", code="store_busy")

    def _join(self, key: str, attempt_id: str, policy: AttemptPolicy, now_ms: int, deadline: float) -> Item:
        return self._db.update(
            self._table,
            _key(key),
            "ADD #attempts :attempts",
            "#until > :now AND "
            "(attribute_not_exists(#attempts) OR contains(#attempts, :attempt) OR size(#attempts) < :limit)",
            {"attempts": {attempt_id}, "attempt": attempt_id, "now": now_ms, "limit": policy.limit},
            returning=True,
            deadline=deadline,
        )

    def _start(
        self, key: str, attempt_id: str, policy: AttemptPolicy, now_ms: int, ended: Item, deadline: float
    ) -> Item:
        kept_ms = max(policy.kept_until_ms(now_ms), number(ended.get("known_until", 0)))
        return self._db.update(
            self._table,
            _key(key),
            "SET #attempts = :attempts, #until = :until, #ttl = :ttl",
            "attribute_not_exists(#until) OR #until <= :now",
            {
                "attempts": {attempt_id},
                "until": now_ms + policy.window_s * 1000,
                "now": now_ms,
                "ttl": kept_ms // 1000 + _KEPT_S,
            },
            returning=True,
            deadline=deadline,
        )

    def wrong(self, key: str, attempt_id: str, policy: AttemptPolicy, now_ms: int, deadline: float) -> bool:
        in_time(deadline)
        until_ms = now_ms + policy.lock_s * 1000
        try:
            self._db.update(
                self._table,
                _key(key),
                "SET #until = :until",
                "contains(#attempts, :attempt) AND size(#attempts) >= :limit AND #until < :until",
                {"attempt": attempt_id, "limit": policy.limit, "until": until_ms},
                deadline=deadline,
            )
        except ConditionFailed as failed:
            attempts = (failed.item or {}).get("attempts", ())
            return attempt_id in attempts and len(attempts) >= policy.limit
        except KeyFlooded:
            return False
        return True

    def right(self, key: str, attempt_id: str, deadline: float, *, known_until_ms: int = 0) -> None:
        in_time(deadline)
        update, values = "DELETE #attempts :attempts", {"attempts": {attempt_id}}
        if known_until_ms:
            known = {"known": known_until_ms, "ttl": known_until_ms // 1000 + _KEPT_S}
            self._db.update(
                self._table,
                _key(key),
                f"{update} SET #known_until = :known, #ttl = :ttl",
                values={**values, **known},
                deadline=deadline,
            )
            return
        try:
            self._db.update(self._table, _key(key), update, "attribute_exists(#attempts)", values, deadline=deadline)
        except ConditionFailed:
            return  # the window is over, and its item gone


def _key(key: str) -> dict[str, str]:
    return {"key": f"attempts#{key}"}


def _decision(item: Item, policy: AttemptPolicy, now_ms: int) -> AttemptDecision:
    attempts = item.get("attempts")
    if not isinstance(attempts, frozenset):
        raise Unavailable("The limiter's answer cannot be read", code="store_malformed")
    return decide_attempt(len(attempts), policy, number(item.get("known_until", 0)), now_ms)
