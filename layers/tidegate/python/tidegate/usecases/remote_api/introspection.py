"""Ask a remote API about session tokens: count the outcomes, and keep within a budget."""

from __future__ import annotations

from threading import Lock

from tidegate.domain.remote_api import Introspection
from tidegate.errors import TidegateError
from tidegate.ports.remote_api import Introspections
from tidegate.ports.runtime import Clock, Observer


def recheck_budget(per_minute: int) -> int:
    """Introspections that re-checks may spend in a minute: half of the `per_minute` that the API allows.

    Subscribes need the rest, and there a viewer waits for the answer.
    """
    return max(1, per_minute // 2)


def connect_budget(per_minute: int, workers: int) -> int:
    """Introspections that each of `workers` relay workers may spend in a minute on connecting upstreams.

    Together they may spend a quarter of the `per_minute` that the API allows. `recheck_budget` is half of it, so a
    quarter is left for subscribes.
    """
    return max(1, per_minute // 4 // workers)


class IntrospectionBudget:
    """Limits how many questions this process asks in a minute. Safe to use from several threads.

    The API's own limit is shared by all processes, and subscribes must find room in it.
    """

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = Lock()
        self._window = (0, 0)

    def take(self) -> bool:
        """Whether one more question may be asked now. If so, it is counted."""
        minute = int(self._clock.now() // 60)
        with self._lock:
            spent = self._window[1] if self._window[0] == minute else 0
            if spent >= self._per_minute:
                return False
            self._window = (minute, spent + 1)
            return True


def introspect(
    introspections: Introspections, observer: Observer, token: str, dashboard_id: str, datasource_id: str
) -> Introspection:
    """Ask, and count the outcome. Raises what `Introspections.introspect` raises."""
    try:
        answer = introspections.introspect(token, dashboard_id, datasource_id)
    except TidegateError as error:
        observer.count("introspections", outcome=error.code)
        raise
    observer.count("introspections", outcome="authorized")
    return answer
