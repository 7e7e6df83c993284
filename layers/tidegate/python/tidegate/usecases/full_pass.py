"""The last net: every subscription checked again, whatever happened to events, streams and schedules; and what
crashes left behind is swept.

One run at a time, by lease. A run reads each table once and each access item once per batch of rows; whoever seems
inadmissible is judged again by access items read just before the cut, so a row that is newer than what the pass had
read is never cut for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

from tidegate.domain.errors import CouldNotCheck
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import Connection, Subscription
from tidegate.ports import CapStore, Clock, ConnectionStore, Leases, Observer, Revalidations, Sender, SubscriptionStore
from tidegate.usecases.cut_viewers import CutViewers
from tidegate.usecases.end_connection import EndConnection
from tidegate.usecases.hold_slots import slot_name
from tidegate.usecases.judge import Judge

T = TypeVar("T")

_BATCH = 5000
#: The platform ends every connection after two hours; what is older is a row whose end was never told, seconds.
LONGEST_CONNECTION_S = 2 * 3600
#: A slot is taken before its connection's row is written: a holder without a row is looked at again after this, in
#: seconds.
SLOT_GRACE_S = 60


class FullPass:
    """Check and sweep everything."""

    def __init__(
        self,
        *,
        connections: ConnectionStore,
        subscriptions: SubscriptionStore,
        caps: CapStore,
        leases: Leases,
        judge: Judge,
        cut: CutViewers,
        end_connection: EndConnection,
        sender: Sender,
        tasks: Revalidations,
        interval_s: int,
        idle_timeout_s: int,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._connections = connections
        self._subscriptions = subscriptions
        self._caps = caps
        self._leases = leases
        self._judge = judge
        self._cut = cut
        self._end_connection = end_connection
        self._sender = sender
        self._tasks = tasks
        self._interval_s = interval_s
        self._idle_timeout_s = idle_timeout_s
        self._clock = clock
        self._observer = observer

    def __call__(self, deadline: float) -> int:
        """Run when it is due and nobody else does. Returns how many viewers were cut."""
        began = int(self._clock.now())
        life_s = max(1, int(deadline - self._clock.monotonic()) + 60)
        if not self._leases.take(began, self._interval_s, life_s):
            return 0
        # Subscriptions first: they are what a pass is for, and it may not get to the rest.
        cut = self._check_subscriptions(deadline)
        known = self._sweep_connections(deadline)
        self._sweep_slots(known, deadline)
        self._leases.give_back(began)
        self._observer.count("full_passes")
        self._observer.info("full pass", seconds=int(self._clock.now()) - began, cut=cut, connections=len(known))
        return cut

    def _check_subscriptions(self, deadline: float) -> int:
        rows, cut = self._subscriptions.every(), 0
        while self._in_time(deadline) and (batch := list(islice(rows, _BATCH))):
            seems = [row for row, _ in self._judge(batch)]
            cut += self._cut(self._judge(seems), deadline) if seems else 0
            self._sweep_orphans(batch)
        return cut

    def _sweep_orphans(self, rows: list[Subscription]) -> None:
        """Rows whose connection ended without them: a process died between the two writes."""
        known: dict[str, Connection | None] = {}
        for row in rows:
            one = row.key.connection_id
            if one not in known:
                known[one] = self._connections.get(one)
            if known[one] is None and self._subscriptions.remove(row):
                self._observer.count("rows_swept")

    def _sweep_connections(self, deadline: float) -> set[str]:
        """Connections that never subscribed, outlived the platform's two hours, or are gone. Returns all ids seen."""
        seen: set[str] = set()
        now = int(self._clock.now())
        for connection in self._until(self._connections.every(), deadline):
            one = connection.connection_id
            seen.add(one)
            age_s = now - connection.opened_at
            if age_s <= self._idle_timeout_s:
                continue
            if not connection.subscriptions and self._connections.close_if_empty(one):
                self._end_connection.gone(one)
                self._observer.count("connections_swept", reason="idle")
            elif age_s > LONGEST_CONNECTION_S or self._is_gone(one):
                self._end_connection.gone(one)
                self._observer.count("connections_swept", reason="gone")
        return seen

    def _is_gone(self, connection_id: str) -> bool:
        try:
            return not self._sender.exists(connection_id)
        except CouldNotCheck:
            self._observer.count("indeterminate")
            return False

    def _sweep_slots(self, known: set[str], deadline: float) -> None:
        for cap, shard, holder in self._until(self._caps.every(), deadline):
            if holder not in known:
                self._tasks.queue(Task(TaskKind.SLOT, f"{slot_name(cap, shard)} {holder}"), SLOT_GRACE_S)

    def free_slot(self, target: str) -> None:
        """Free one slot if its holder still has no row."""
        slot, _, holder = target.rpartition(" ")
        cap, _, shard = slot.rpartition("#")
        if self._connections.get(holder) is None:
            self._caps.release(cap, int(shard), holder)
            self._observer.count("slots_freed")

    def _until(self, items: Iterator[T], deadline: float) -> Iterator[T]:
        for item in items:
            if not self._in_time(deadline):
                return
            yield item

    def _in_time(self, deadline: float) -> bool:
        return self._clock.monotonic() < deadline
