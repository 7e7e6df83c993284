"""The work that sending leaves: catch-ups for who missed something, and the releasing of who is gone.

Invariant of this file: a viewer who could not be sent a frame has a catch-up in the queue, or is named to the caller,
who has to ask again. No call begins after the deadline, however many viewers there are.

Of a viewer who is gone and could not be released nothing is remembered. The next message to this viewer is answered
with 410 again. If none comes, full revalidation finds the connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tidegate.domain.client_queues import Missed
from tidegate.domain.subscriptions import SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.delivery import CatchUpQueue
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.gateway.end_connection import EndConnection

#: How long the work may take, seconds. The bridge may run for 30 (`domain.time_limits`), and has sent before.
FOLLOW_UP_S = 8.0


class FailureHandler:
    """Does the work that sending leaves. What fails is counted."""

    def __init__(
        self, *, catch_ups: CatchUpQueue, end_connection: EndConnection, clock: Clock, observer: Observer
    ) -> None:
        self._catch_ups = catch_ups
        self._end_connection = end_connection
        self._clock = clock
        self._observer = observer

    def __call__(self, leftovers: Iterable[str | Missed], within_s: float = FOLLOW_UP_S) -> Sequence[Missed]:
        """Ask for catch-ups of what rows missed, and remove the connections that are gone (their ids are given).

        Args:
            within_s: seconds within which every call begins.

        Returns:
            What could not be queued. The caller has to see to it.
        """
        deadline = self._clock.monotonic() + within_s
        gone: dict[str, None] = {}
        missed: dict[SubscriptionKey, Missed] = {}
        for leftover in leftovers:
            if isinstance(leftover, str):
                gone[leftover] = None
            else:
                missed[leftover.row.key] = leftover.along_with(missed.get(leftover.row.key))
        # Catch-ups first, because somebody waits for them.
        left = self._request([each for each in missed.values() if each.row.key.connection_id not in gone], deadline)
        self._release(list(gone), deadline)
        return left

    def or_fail(self, leftovers: Iterable[str | Missed]) -> None:
        """The same, for an invocation that is called again when it fails. The repetition sends what was missed.

        Raises:
            Unavailable: a catch-up could not be queued.
        """
        if left := self(leftovers):
            raise Unavailable(f"{len(left)} catch-ups could not be queued", code="catch_ups_not_queued")

    def _request(self, missed: Sequence[Missed], deadline: float) -> Sequence[Missed]:
        if not missed:
            return []
        refused = {request.key for request in self._catch_ups.queue_many([each.request() for each in missed], deadline)}
        if refused:
            self._observer.count("catch_ups_not_queued", len(refused))
        return [each for each in missed if each.row.key in refused]

    def _release(self, connection_ids: Sequence[str], deadline: float) -> None:
        if not connection_ids:
            return
        from tidegate.usecases.parallel import in_parallel  # here, because it is rare and the import slows cold starts

        released = in_parallel(lambda connection_id: self._release_one(connection_id, deadline), connection_ids)
        if left := released.count(False):
            self._observer.count("viewers_not_released", left)

    def _release_one(self, connection_id: str, deadline: float) -> bool:
        if self._clock.monotonic() >= deadline:
            return False
        try:
            self._end_connection.gone(connection_id)
        except Unavailable:
            return False
        return True
