"""End subscriptions that are no longer admissible: claim, notify, delete, and free the places that are left unused.

The order of the steps matters:

- The claim is conditional on the very row that was evaluated. So a viewer that has just subscribed again is not hit.
- The viewer is notified before the row is deleted. So after a crash in between, the viewer is notified again, and not
  never.
- A row with a claim accepts no new subscribe. So nobody comes back before being notified.
- Only the run that has the claim may notify. Otherwise a second run, or a slow one, could send the end to a viewer who
  has come back in the meantime.

The connection stays open, also when nothing is left on it. A page that is cut off comes back and asks for all it had,
again and again. What an empty connection costs is bounded: it holds one of its address's places, and none of a
dashboard's.

Every step may be repeated. What a dead run claimed, another run may claim when the claim has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from tidegate.domain.access import Refusal
from tidegate.domain.subscriptions import NOTIFY_WITHIN_S, Subscription, Termination, TerminationClaim
from tidegate.domain.switches import ALL_ON, Switches
from tidegate.ports.delivery import Delivery, OutboundMessage, Sender
from tidegate.ports.gateway import ConnectionStore, SubscriptionStore
from tidegate.ports.runtime import Clock, Ids, Observer
from tidegate.protocol import messages
from tidegate.protocol.messages import EndReason, ErrorCode, Status
from tidegate.usecases.gateway.end_connection import EndConnection
from tidegate.usecases.parallel import in_parallel

#: Rows whose viewers are notified together: enough to keep sockets busy, few enough that the first do not wait long.
_BATCH = 100
#: Rows that are deleted together, after all their viewers were notified. Few enough that little is repeated after a
#: crash.
_GROUP = 1000

_TEXTS = {
    Refusal.REVOKED: "Stream authorization was revoked",
    Refusal.EXPIRED: "Datasource session token expired",
    Refusal.INTENT_CHANGED: "The datasource was changed",
    Refusal.REMOVED: "The datasource was removed",
}
_REASONS = {
    Refusal.REVOKED: EndReason.REVOKED,
    Refusal.EXPIRED: EndReason.EXPIRED,
    Refusal.INTENT_CHANGED: EndReason.CHANGED,
    Refusal.REMOVED: EndReason.CHANGED,
    Refusal.SWITCHED_OFF: EndReason.DISABLED,
}


class TerminateSubscriptions:
    """Terminates many subscriptions together."""

    def __init__(
        self,
        *,
        subscriptions: SubscriptionStore,
        connections: ConnectionStore,
        sender: Sender,
        end_connection: EndConnection,
        clock: Clock,
        ids: Ids,
        observer: Observer,
        switches: Switches = ALL_ON,
    ) -> None:
        self._switches = switches
        self._subscriptions = subscriptions
        self._connections = connections
        self._sender = sender
        self._end_connection = end_connection
        self._clock = clock
        self._ids = ids
        self._observer = observer

    def __call__(self, terminations: Iterable[Termination], deadline: float) -> int:
        """Terminate these rows, each for its reason.

        Returns how many were terminated before `deadline` (monotonic seconds). The rest is left to a later run.

        Raises:
            Unavailable: a store did not answer. A repetition notifies and deletes what is claimed already.
        """
        rest, count, run_id = iter(terminations), 0, self._ids.new_id()
        while self._clock.monotonic() < deadline and (group := list(islice(rest, _GROUP))):
            # All viewers of a group are notified before its rows are deleted, so no viewer waits for deletions.
            ended: list[Termination] = []
            gone: set[str] = set()
            for start in range(0, len(group), _BATCH):
                claim = TerminationClaim(run_id, int(self._clock.now()))
                ended += self._claim_and_notify(group[start : start + _BATCH], claim, gone)
            in_parallel(self._subscriptions.remove, [row for row, _ in ended])
            left = {row.key.connection_id for row, _ in ended}
            in_parallel(self._end_connection.gone, sorted(left & gone))
            in_parallel(self._leave, sorted(left - gone))
            count += len(ended)
            for reason in Refusal:
                if terminated := sum(1 for _, why in ended if why is reason):
                    self._observer.count("subscriptions_terminated", terminated, reason=reason.value)
        return count

    def _claim_and_notify(
        self, batch: Sequence[Termination], claim: TerminationClaim, gone: set[str]
    ) -> list[Termination]:
        """Returns what was claimed and told. Connections that are not there any longer are added to `gone`."""

        def claim_row(termination: Termination) -> bool:
            row, refusal = termination
            expired_at = claim.at if refusal is Refusal.EXPIRED and row.termination is None else None
            return self._subscriptions.claim_termination(row, claim, expired_at=expired_at)

        done = in_parallel(claim_row, batch)
        claimed = [(replace(row, termination=claim), why) for (row, why), ours in zip(batch, done, strict=True) if ours]
        late = self._notify(claimed, claim, gone)
        return [(row, why) for row, why in claimed if row.key.connection_id not in late]

    def _notify(self, claimed: Sequence[Termination], claim: TerminationClaim, gone: set[str]) -> set[str]:
        """Send every viewer an error, then in a second round a status, so that the error comes first.

        Returns the connections that could not be notified within `NOTIFY_WITHIN_S` of the claim. Their rows are left to
        the next run that claims them.
        """
        now = self._clock.now()
        late: set[str] = set()

        def in_time(post: OutboundMessage) -> bool:
            if self._clock.now() - claim.at < NOTIFY_WITHIN_S:
                return True
            late.add(post.connection_id)
            return False

        errors, states = [], []
        for row, refusal in claimed:
            datasource_id = row.key.datasource_id
            (code, text), why = self._told(row, refusal), _REASONS[refusal]
            error = messages.error(datasource_id, code, text, now, refusal.retryable, reason=why)
            state = messages.status(datasource_id, Status.ERROR, now, code, text, why)
            errors.append(OutboundMessage(row.key.connection_id, messages.encode(error)))
            states.append(OutboundMessage(row.key.connection_id, messages.encode(state)))
        for posts in (errors, states):
            waiting = [post for post in posts if post.connection_id not in gone | late]
            results = self._sender.post_many(waiting, before_each=in_time)
            gone |= {result.post.connection_id for result in results if result.delivery is Delivery.GONE}
            for result in results:
                if result.delivery not in (Delivery.DELIVERED, Delivery.GONE, Delivery.WITHHELD):
                    # The row is deleted all the same: a viewer must not stay subscribed for not being reachable.
                    self._observer.count("viewers_not_notified", delivery=result.delivery.value)
        return late

    def _told(self, row: Subscription, refusal: Refusal) -> tuple[ErrorCode, str]:
        if refusal is Refusal.SWITCHED_OFF:
            return ErrorCode.POLICY_BLOCKED, self._switches.text(row.protocol)
        return ErrorCode.AUTH_FAILED, _TEXTS[refusal]

    def _leave(self, connection_id: str) -> None:
        """Leave a connection that is there open. Without realtime an empty one has no reason to stay."""
        if not self._switches.realtime and self._connections.close_if_empty(connection_id):
            self._end_connection.gone(connection_id)
        else:
            self._end_connection.free_unused(connection_id)
