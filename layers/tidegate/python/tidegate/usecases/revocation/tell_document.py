"""Tell who watches a dashboard that its document was saved: one `document` frame for each connection.

It is here because it is a task of the same queue.

Invariants of this file: a frame leaves only on access items whose read started less than `FRESH_S` before. They say
that the viewer has a subscription of this dashboard that is allowed, and that the revision is still the stored one. So
who lost the right by the very save, or since, is not told. And a run that is overtaken by another save stops: the task
of that save tells the newer revision.

What is promised: each save has a task, and the task of the last one is carried out at least once. Who subscribed before
the save, by the time of the `ack`, is told the last revision. A run that dies, or runs twice, tells again what was
told. A frame that is under way when the next save is told may come after the newer one. So clients keep the highest
revision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice

from tidegate.domain.access import FRESH_S, DashboardAccess, UserAccess, allowed, owner_that_counts
from tidegate.domain.revocations import Task
from tidegate.domain.subscriptions import Subscription, SubscriptionKey
from tidegate.domain.switches import ALL_ON, Switches
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery, OutboundMessage, Sender
from tidegate.ports.gateway import AccessStore, ConnectionStore, SubscriptionStore
from tidegate.ports.revocation import RevalidationQueue
from tidegate.ports.runtime import Clock, Observer
from tidegate.protocol import messages
from tidegate.usecases.gateway.end_connection import EndConnection
from tidegate.usecases.parallel import in_parallel

#: Viewers that are told together: enough to keep sockets busy, and few enough that one read has the access items of all
#: of them and of the dashboard. DynamoDB reads 100 items at once.
_GROUP = 90
#: How long it takes until who could not be told is tried again, and for how long that is done, seconds. After this
#: every viewer has asked for a new session token, or is gone.
_AGAIN_S, _GIVE_UP_S = 5, 300
#: How often access items are read for one frame, when each answer is too old once it is here.
_READS = 3


class TellDocument:
    """Tells the viewers of one dashboard."""

    def __init__(
        self,
        *,
        subscriptions: SubscriptionStore,
        connections: ConnectionStore,
        access: AccessStore,
        sender: Sender,
        end_connection: EndConnection,
        tasks: RevalidationQueue,
        clock: Clock,
        observer: Observer,
        switches: Switches = ALL_ON,
    ) -> None:
        self._subscriptions = subscriptions
        self._connections = connections
        self._access = access
        self._sender = sender
        self._end_connection = end_connection
        self._tasks = tasks
        self._clock = clock
        self._observer = observer
        self._switches = switches

    def __call__(self, task: Task, deadline: float) -> int:
        """Tell the viewers of the task. Returns how many connections were told.

        What is left over at `deadline` (monotonic seconds) is queued, and so is whom a fault kept from being told. Who
        was told already is not told again by that.

        Raises:
            Unavailable: what was left over could not be queued. The queue delivers the whole task again.
        """
        told, rest = 0, task
        viewers = self._named(task) if task.viewers else self._watching(task)
        try:
            while group := list(islice(viewers, _GROUP)):
                if self._clock.monotonic() >= deadline:
                    self._tasks.queue(rest)
                    break
                rights = _FreshRights(task, group, self._access, self._switches, self._clock)
                if rights.overtaken:
                    break
                told += self._tell(rights, group)
                if not task.viewers:  # those are one group
                    rest = replace(task, after=group[-1][0].key.connection_id)
        except Unavailable as error:
            self._observer.fault("not everybody was told of a saved document", error)
            self._later(rest)
        self._observer.count("documents_told", told)
        return told

    def _watching(self, task: Task) -> Iterator[Sequence[Subscription]]:
        """The live rows of each connection that watches the dashboard."""
        rows = self._subscriptions.of_dashboard(task.target, task.after)
        for _, of_one in groupby(rows, lambda row: row.key.connection_id):
            if live := [row for row in of_one if row.live]:
                yield live

    def _named(self, task: Task) -> Iterator[Sequence[Subscription]]:
        """The same, for the connections that the task names."""
        for connection_id in task.viewers:
            connection = self._connections.get(connection_id)
            held = connection.subscriptions.items() if connection else ()
            keys = [SubscriptionKey(task.target, connection_id, name) for name, of in held if of == task.target]
            rows = self._subscriptions.get_all(keys) if keys else {}
            if live := [row for row in rows.values() if row.live]:
                yield live

    def _tell(self, rights: _FreshRights, group: Sequence[Sequence[Subscription]]) -> int:
        """Returns how many were told. Whom a fault kept from it is queued."""
        task = rights.task
        body = messages.encode(messages.document(task.target, task.revision, self._clock.now()))
        rows = {of_one[0].key.connection_id: of_one for of_one in group}
        unsure: set[str] = set()

        def still(post: OutboundMessage) -> bool:
            try:
                return rights.allows(rows[post.connection_id])
            except Unavailable:
                unsure.add(post.connection_id)
                return False

        posts = [OutboundMessage(connection_id, body) for connection_id in rows]
        results = self._sender.post_many(posts, before_each=still)
        by = {result.post.connection_id: result.delivery for result in results}
        failed = [name for name, delivery in by.items() if delivery in (Delivery.FAILED, Delivery.THROTTLED)]
        if missed := [*failed, *sorted(unsure)]:
            self._later(replace(task, after="", viewers=tuple(missed)))
        self._release([name for name, delivery in by.items() if delivery is Delivery.GONE])
        return sum(delivery is Delivery.DELIVERED for delivery in by.values())

    def _later(self, task: Task) -> None:
        if self._clock.now() * 1000 - task.since_ms < _GIVE_UP_S * 1000:
            self._tasks.queue(task, _AGAIN_S)
        else:
            self._observer.count("documents_not_told", max(1, len(task.viewers)))

    def _release(self, connection_ids: Sequence[str]) -> None:
        """Remove connections that are gone. One that cannot be removed now is found by the full revalidation."""

        def released(connection_id: str) -> bool:
            try:
                self._end_connection.gone(connection_id)
            except Unavailable:
                return False
            return True

        if left := in_parallel(released, connection_ids).count(False):
            self._observer.count("viewers_not_released", left)


class _FreshRights:
    """The access items of a group of viewers, none used for longer than `FRESH_S` from the start of its read."""

    def __init__(
        self,
        task: Task,
        group: Sequence[Sequence[Subscription]],
        access: AccessStore,
        switches: Switches,
        clock: Clock,
    ) -> None:
        self.task = task
        self._users_asked = sorted(
            {row.claim.principal.subject for rows in group for row in rows if not row.claim.principal.is_public}
        )
        self._access = access
        self._switches = switches
        self._clock = clock
        self._read()

    def _read(self) -> None:
        began = self._clock.monotonic()
        found = self._access.read([self.task.target], self._users_asked)
        self._read_at = began
        self._dashboard: DashboardAccess | None = found.dashboards.get(self.task.target)
        self._users: Mapping[str, UserAccess] = found.users

    @property
    def overtaken(self) -> bool:
        """Whether a later save has been stored. Its own task tells it."""
        return self._dashboard is not None and self._dashboard.revision > self.task.revision

    def allows(self, rows: Sequence[Subscription]) -> bool:
        """Whether the viewer with these rows may be told now.

        Raises:
            Unavailable: the store did not answer, or each time so late that its answer was too old.
        """
        for _ in range(_READS):
            said = not self.overtaken and any(self._allowed(row) for row in rows)
            # The age is checked last, so that nothing but the sending comes after it.
            if self._clock.monotonic() - self._read_at < FRESH_S:
                return said
            self._read()
        raise Unavailable("What is checked before a send was not read in time", code="access_too_old")

    def _allowed(self, row: Subscription) -> bool:
        owner_id = owner_that_counts(self._dashboard) if self._dashboard else None
        user = self._users.get(row.claim.principal.subject)
        owner = self._users.get(owner_id) if owner_id else None
        refusal = allowed(row.claim, self._dashboard, user, owner, self._clock.now())
        return refusal is None and not self._switches.refuse(row.protocol)
