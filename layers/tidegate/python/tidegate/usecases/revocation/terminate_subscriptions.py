"""End subscriptions that are no longer admissible: mark, tell, delete, and close the connection left empty.

The order is the point. Marking is conditional on the very row that was judged, so a viewer that has just subscribed
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
from tidegate.domain.subscriptions import CUT_TELL_S, CutMark, Judged, Subscription
from tidegate.ports.delivery import Delivery, Post, Sender
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

    def __call__(self, judged: Iterable[Judged], deadline: float) -> int:
        """Cut them. Returns how many were cut before `deadline` (monotonic seconds); the rest is for the next run.

        Raises `CouldNotCheck` when a store did not answer: what was marked is told and deleted by a repetition.
        """
        rest, count, by = iter(judged), 0, self._ids.new_id()
        while self._clock.monotonic() < deadline and (group := list(islice(rest, _GROUP))):
            # Everybody is told before anything is tidied up: a viewer waits for the marks, not for the deletions.
            ended: list[Judged] = []
            for start in range(0, len(group), _BATCH):
                ended += self._mark_and_tell(group[start : start + _BATCH], CutMark(by, int(self._clock.now())))
            in_parallel(self._delete, [row for row, _ in ended])
            count += len(ended)
            for reason in Refusal:
                if cut := sum(1 for _, why in ended if why is reason):
                    self._observer.count("viewers_cut", cut, reason=reason.value)
        return count

    def _mark_and_tell(self, batch: Sequence[Judged], mark: CutMark) -> list[Judged]:
        def marking(judged: Judged) -> bool:
            row, refusal = judged
            expired_at = mark.at if refusal is Refusal.EXPIRED and row.cut is None else None
            return self._subscriptions.mark_cut(row, mark, expired_at=expired_at)

        done = in_parallel(marking, batch)
        marked = [(replace(row, cut=mark), why) for (row, why), own in zip(batch, done, strict=True) if own]
        late = self._tell(marked, mark)
        return [(row, why) for row, why in marked if row.key.connection_id not in late]

    def _tell(self, marked: Sequence[Judged], mark: CutMark) -> set[str]:
        """Two rounds, so that every viewer hears the error before the status. Returns the connections for which the
        mark ran out before they were told: they are whoever's who marks them next."""
        now = self._clock.now()
        late: set[str] = set()

        def in_time(post: Post) -> bool:
            if self._clock.now() - mark.at < CUT_TELL_S:
                return True
            late.add(post.connection_id)
            return False

        errors, states = [], []
        for row, refusal in marked:
            one, text = row.key.datasource_id, _TEXTS[refusal]
            error = messages.error(one, ErrorCode.AUTH_FAILED, text, now, refusal.retryable)
            state = messages.status(one, Status.ERROR, now, ErrorCode.AUTH_FAILED, text)
            errors.append(Post(row.key.connection_id, messages.encode(error)))
            states.append(Post(row.key.connection_id, messages.encode(state)))
        gone: set[str] = set()
        for posts in (errors, states):
            waiting = [post for post in posts if post.connection_id not in gone | late]
            told = self._sender.post_many(waiting, before_each=in_time)
            gone |= {one.post.connection_id for one in told if one.delivery is Delivery.GONE}
            for posted in told:
                if posted.delivery not in (Delivery.DELIVERED, Delivery.GONE, Delivery.WITHHELD):
                    # The row still goes: a viewer that cannot be told must not stay subscribed for it.
                    self._observer.count("viewers_not_told", delivery=posted.delivery.value)
        return late

    def _delete(self, row: Subscription) -> None:
        self._subscriptions.remove(row)
        if self._connections.close_if_empty(row.key.connection_id):
            self._end_connection.gone(row.key.connection_id)
