"""Attempts in this process's memory, for `SECURITY_LIMITER_BACKEND=memory` and for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import RLock

from tidegate.domain.attempts import AttemptDecision, AttemptPolicy, decide_attempt, refuse_attempt
from tidegate.ports.limits import AttemptStore


@dataclass(slots=True)
class _Window:
    attempts: set[str] = field(default_factory=set)
    until_ms: int = 0
    known_until_ms: int = 0


class MemoryAttempts(AttemptStore):
    """Attempts in a dict, for one process only."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._windows: dict[str, _Window] = {}

    def begin(self, key: str, attempt_id: str, policy: AttemptPolicy, now_ms: int, deadline: float) -> AttemptDecision:
        with self._lock:
            window = self._windows.setdefault(key, _Window())
            if window.until_ms <= now_ms:
                window.attempts, window.until_ms = set(), now_ms + policy.window_s * 1000
            if attempt_id not in window.attempts and len(window.attempts) >= policy.limit:
                return refuse_attempt(window.until_ms, now_ms)
            window.attempts.add(attempt_id)
            return decide_attempt(len(window.attempts), policy, window.known_until_ms, now_ms)

    def wrong(self, key: str, attempt_id: str, policy: AttemptPolicy, now_ms: int, deadline: float) -> bool:
        with self._lock:
            window = self._windows.get(key)
            if window is None or attempt_id not in window.attempts or len(window.attempts) < policy.limit:
                return False
            window.until_ms = max(window.until_ms, now_ms + policy.lock_s * 1000)
            return True

    def right(self, key: str, attempt_id: str, deadline: float, *, known_until_ms: int = 0) -> None:
        with self._lock:
            window = self._windows.setdefault(key, _Window())
            window.attempts.discard(attempt_id)
            window.known_until_ms = max(window.known_until_ms, known_until_ms)
