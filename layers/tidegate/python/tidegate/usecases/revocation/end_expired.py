"""End the subscriptions whose token has expired, some seconds after that, at a cost that grows with their number.

An index holds every row by its expiry until the row is deleted. So a run needs to know nothing of the runs before it:
what one missed, left over, or left claimed when it died, the next one finds. The index may lag, and nothing depends on
it. A row that it shows too late is found by the next run. A row that it still shows is read again from the table.

The full revalidation ends the same rows in the same way, should no run of this come.
"""

from __future__ import annotations

from tidegate.domain.access import Refusal
from tidegate.domain.subscriptions import Subscription, TerminationClaim
from tidegate.ports.gateway import SubscriptionStore
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.revocation.evaluate import Evaluate
from tidegate.usecases.revocation.terminate_subscriptions import TerminateSubscriptions


class EndExpired:
    """Ends what has expired, each subscription as a full revalidation would."""

    def __init__(
        self,
        *,
        subscriptions: SubscriptionStore,
        evaluate: Evaluate,
        terminate: TerminateSubscriptions,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._subscriptions = subscriptions
        self._evaluate = evaluate
        self._terminate = terminate
        self._clock = clock
        self._observer = observer

    def __call__(self, deadline: float) -> int:
        """Returns how many subscriptions were terminated before `deadline` (monotonic seconds).

        What is left over is found by the next run. Repeating is harmless, also by several runs at the same time.

        Raises:
            Unavailable: a store did not answer. The next run goes on.
        """
        ended, now = 0, self._clock.now()
        for rows in self._subscriptions.expired(now):
            terminations = self._evaluate([row for row in rows if not self._claimed(row)])
            done = self._terminate(terminations, deadline)
            ended += done
            expiries = [row.claim.expires_at for row, refusal in terminations if refusal is Refusal.EXPIRED]
            if done and expiries:
                self._observer.time("expiry_to_termination", (self._clock.now() - min(expiries)) * 1000)
            if self._clock.monotonic() >= deadline:
                break
        return ended

    def _claimed(self, row: Subscription) -> bool:
        """Whether another run is at this row. Then a claim would only cost a write."""
        return row.termination is not None and row.termination.holds_against(
            TerminationClaim("", int(self._clock.now()))
        )
