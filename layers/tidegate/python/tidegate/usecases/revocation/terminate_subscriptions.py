"""End subscriptions that are no longer admissible: mark, tell, delete, and close the connection left empty.

The order is the point. Marking is conditional on the very row that was evaluated, so a viewer that has just subscribed
anew is never denounced; telling comes before deleting, so a crash in between tells again instead of never; and a row
that is marked takes no new attempt, so nobody comes back before they have heard. A mark is also the right to tell:
two runs over one row, or one that was slow, would otherwise tell a viewer who has come back meanwhile. Every step
repeats harmlessly; what a dead run marked is another's when the mark has run out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from tidegate.domain.access import Refusal
from tidegate.domain.subscriptions import NOTIFY_WITHIN_S, Subscription, Termination, TerminationClaim
from tidegate.ports.delivery import Delivery, OutboundMessage, Sender
from tidegate.ports.gateway import ConnectionStore, SubscriptionStore
from tidegate.ports.runtime import Clock, Ids, Observer
from tidegate.protocol import messages
from tidegate.protocol.messages import ErrorCode, Status
from tidegate.usecases.gateway.end_connection import EndConnection
from tidegate.usecases.parallel import in_parallel

#: Rows told together: enough to keep sockets busy, few enough that the first need not wait long.
_BATCH = 100
#: Rows deleted together, once all of them were told; few enough that a crash repeats little.
_GROUP = 1000

_TEXTS = {
    Refusal.REVOKED: "Stream authorization was revoked",
    Refusal.EXPIRED: "Datasource session token expired",
    Refusal.INTENT_CHANGED: "The datasource was changed",
}


class TerminateSubscriptions:
    """Cut many at once."""

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
    ) -> None:
        self._subscriptions = subscriptions
        self._connections = connections
        self._sender = sender
        self._end_connection = end_connection
        self._clock = clock
        self._ids = ids
        self._observer = observer

    def __call__(self, judged: Iterable[Termination], deadline: float) -> int:
        """Cut them. Returns how many were terminated before `deadline` (monotonic seconds); the rest is for the next
        run.

        Raises `Unavailable` when a store did not answer: what was marked is told and deleted by a repetition.
        """
        rest, count, by = iter(judged), 0, self._ids.new_id()
        while self._clock.monotonic() < deadline and (group := list(islice(rest, _GROUP))):
            # Everybody is told before anything is tidied up: a viewer waits for the marks, not for the deletions.
            ended: list[Termination] = []
            for start in range(0, len(group), _BATCH):
                ended += self._claim_and_notify(
                    group[start : start + _BATCH], TerminationClaim(by, int(self._clock.now()))
                )
            in_parallel(self._delete, [row for row, _ in ended])
            count += len(ended)
            for reason in Refusal:
                if terminated := sum(1 for _, why in ended if why is reason):
                    self._observer.count("subscriptions_terminated", terminated, reason=reason.value)
        return count

    def _claim_and_notify(self, batch: Sequence[Termination], claim: TerminationClaim) -> list[Termination]:
        def claiming(judged: Termination) -> bool:
            row, refusal = judged
            expired_at = claim.at if refusal is Refusal.EXPIRED and row.termination is None else None
            return self._subscriptions.claim_termination(row, claim, expired_at=expired_at)

        done = in_parallel(claiming, batch)
        claimed = [(replace(row, termination=claim), why) for (row, why), own in zip(batch, done, strict=True) if own]
        late = self._notify(claimed, claim)
        return [(row, why) for row, why in claimed if row.key.connection_id not in late]

    def _notify(self, claimed: Sequence[Termination], claim: TerminationClaim) -> set[str]:
        """Two rounds, so that every viewer hears the error before the status. Returns the connections for which the
        mark ran out before they were told: they are whoever's who marks them next."""
        now = self._clock.now()
        late: set[str] = set()

        def in_time(post: OutboundMessage) -> bool:
            if self._clock.now() - claim.at < NOTIFY_WITHIN_S:
                return True
            late.add(post.connection_id)
            return False

        errors, states = [], []
        for row, refusal in claimed:
            one, text = row.key.datasource_id, _TEXTS[refusal]
            error = messages.error(one, ErrorCode.AUTH_FAILED, text, now, refusal.retryable)
            state = messages.status(one, Status.ERROR, now, ErrorCode.AUTH_FAILED, text)
            errors.append(OutboundMessage(row.key.connection_id, messages.encode(error)))
            states.append(OutboundMessage(row.key.connection_id, messages.encode(state)))
        gone: set[str] = set()
        for posts in (errors, states):
            waiting = [post for post in posts if post.connection_id not in gone | late]
            notified = self._sender.post_many(waiting, before_each=in_time)
            gone |= {one.post.connection_id for one in notified if one.delivery is Delivery.GONE}
            for posted in notified:
                if posted.delivery not in (Delivery.DELIVERED, Delivery.GONE, Delivery.WITHHELD):
                    # The row still goes: a viewer that cannot be told must not stay subscribed for it.
                    self._observer.count("viewers_not_notified", delivery=posted.delivery.value)
        return late

    def _delete(self, row: Subscription) -> None:
        self._subscriptions.remove(row)
        if self._connections.close_if_empty(row.key.connection_id):
            self._end_connection.gone(row.key.connection_id)
