"""Asking a remote API about session tokens: counted, and how often."""

from __future__ import annotations

from threading import Lock

from tidegate.domain.remote_api import Introspection
from tidegate.errors import TidegateError
from tidegate.ports.remote_api import Introspections
from tidegate.ports.runtime import Clock, Observer


def recheck_budget(per_minute: int) -> int:
    """How many of the introspections that the API allows in a minute re-checks may spend: half. Subscribes need the
    rest, and somebody waits for them."""
    return max(1, per_minute // 2)


def connect_budget(per_minute: int, workers: int) -> int:
    """How many introspections one of `workers` relay workers may spend a minute on connecting: together a quarter
    of what the API allows, which leaves a quarter for subscribes beside `recheck_budget`."""
    return max(1, per_minute // 4 // workers)


class IntrospectionBudget:
    """So many questions in a minute of this process: the API's limit is for all of us together, and subscribes need
    most of it. Safe to use from several threads."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = Lock()
        self._window = (0, 0)

    def take(self) -> bool:
        """Whether one more may be asked now; if so it is counted."""
        minute = int(self._clock.now() // 60)
        with self._lock:
            asked = self._window[1] if self._window[0] == minute else 0
            if asked >= self._per_minute:
                return False
            self._window = (minute, asked + 1)
            return True


def introspect(
    introspections: Introspections, observer: Observer, token: str, dashboard_id: str, datasource_id: str
) -> Introspection:
    """Ask, and count what came of it. Raises as `Introspections.introspect`."""
    try:
        answer = introspections.introspect(token, dashboard_id, datasource_id)
    except TidegateError as error:
        observer.count("introspections", outcome=error.code)
        raise
    observer.count("introspections", outcome="granted")
    return answer
