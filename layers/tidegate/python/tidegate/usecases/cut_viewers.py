"""End subscriptions that are no longer admissible: mark, tell, delete, and close the connection left empty.

The order is the point. Marking is conditional on the very row that was judged, so a viewer that has just subscribed
anew is never denounced; telling comes before deleting, so a crash in between tells again instead of never; and a row
that is marked takes no new attempt, so nobody comes back before they have heard. Every step repeats harmlessly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from tidegate.domain import messages
from tidegate.domain.access import Refusal
from tidegate.domain.messages import ErrorCode, Status
from tidegate.domain.subscriptions import Subscription
from tidegate.ports import Clock, ConnectionStore, Delivery, Observer, Post, Sender, SubscriptionStore
from tidegate.usecases.end_connection import EndConnection
from tidegate.usecases.parallel import in_parallel

#: Rows worked on together: enough to keep sockets busy, few enough that a crash repeats little.
_BATCH = 500

_TEXTS = {
    Refusal.REVOKED: "Stream authorization was revoked",
    Refusal.EXPIRED: "Datasource session token expired",
    Refusal.INTENT_CHANGED: "The datasource was changed",
}

Judged = tuple[Subscription, Refusal]


class CutViewers:
    """Cut many at once."""

    def __init__(
        self,
        *,
        subscriptions: SubscriptionStore,
        connections: ConnectionStore,
        sender: Sender,
        end_connection: EndConnection,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._subscriptions = subscriptions
        self._connections = connections
        self._sender = sender
        self._end_connection = end_connection
        self._clock = clock
        self._observer = observer

    def __call__(self, judged: Iterable[Judged], deadline: float) -> int:
        """Cut them. Returns how many were cut before `deadline` (monotonic seconds); the rest is for the next run.

        Raises `CouldNotCheck` when a store did not answer: what was marked is told and deleted by a repetition.
        """
        rest, count = iter(judged), 0
        while self._clock.monotonic() < deadline and (batch := list(islice(rest, _BATCH))):
            marked = [one for one, done in zip(batch, in_parallel(self._mark, batch), strict=True) if done]
            self._tell(marked)
            in_parallel(self._delete, [row for row, _ in marked])
            count += len(marked)
            for reason in Refusal:
                cut = sum(1 for _, refusal in marked if refusal is reason)
                if cut:
                    self._observer.count("viewers_cut", cut, reason=reason.value)
        return count

    def _mark(self, judged: Judged) -> bool:
        row, refusal = judged
        expired_at = int(self._clock.now()) if refusal is Refusal.EXPIRED and not row.cut else None
        return self._subscriptions.mark_cut(row, expired_at=expired_at)

    def _tell(self, marked: Sequence[Judged]) -> None:
        """Two rounds, so that every viewer hears the error before the status."""
        now = self._clock.now()
        errors, states = [], []
        for row, refusal in marked:
            one, text = row.key.datasource_id, _TEXTS[refusal]
            error = messages.error(one, ErrorCode.AUTH_FAILED, text, now, refusal.retryable)
            state = messages.status(one, Status.ERROR, now, ErrorCode.AUTH_FAILED, text)
            errors.append(Post(row.key.connection_id, messages.encode(error)))
            states.append(Post(row.key.connection_id, messages.encode(state)))
        gone = set()
        for posts in (errors, states):
            told = self._sender.post_many([post for post in posts if post.connection_id not in gone])
            gone |= {one.post.connection_id for one in told if one.delivery is Delivery.GONE}
            for posted in told:
                if posted.delivery not in (Delivery.DELIVERED, Delivery.GONE):
                    # The row still goes: a viewer that cannot be told must not stay subscribed for it.
                    self._observer.count("viewers_not_told", delivery=posted.delivery.value)

    def _delete(self, row: Subscription) -> None:
        self._subscriptions.remove(row)
        if self._connections.close_if_empty(row.key.connection_id):
            self._end_connection.gone(row.key.connection_id)
