"""Take and free slots of caps: open connections of an address, connections of a dashboard.

A cap is counted in shards. Each counter shard is a set of holders, and a slot is one place in such a set. The slot's
name, `cap#shard`, is noted on the connection *before* the slot is taken. So whoever removes the connection frees the
slot, whatever crashed in between.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from tidegate.domain.limits import CAP_RETRY_MS, FailureMode, Outcome, counter_shards
from tidegate.domain.subscriptions import Connection
from tidegate.errors import LimiterUnavailable, LimitReached, Unavailable
from tidegate.ports.limits import CapStore
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.limits.deadline import LimiterDeadline


def slot_name(cap: str, shard: int) -> str:
    """The name under which a slot is noted on its connection."""
    return f"{cap}#{shard}"


def dashboard_cap(dashboard_id: str) -> str:
    """The cap of the connections that hold a subscription of a dashboard."""
    return f"dash#{dashboard_id}"


def unused_slots(connection: Connection) -> frozenset[str]:
    """Slots of dashboards of which the connection has no subscription. That of its address it needs while it lives."""
    used = {dashboard_cap(dashboard_id) for dashboard_id in connection.subscriptions.values()}
    caps = {slot: slot.rpartition("#")[0] for slot in connection.slots}
    return frozenset(slot for slot, cap in caps.items() if cap.startswith(dashboard_cap("")) and cap not in used)


def home_slot(cap: str, holder: str, limit: int) -> str:
    """The slot that this holder tries first."""
    return slot_name(cap, next(counter_shards(holder, limit)).index)


def cap_reached(refusal: str) -> LimitReached:
    """The refusal of a cap that is full. `refusal`: which cap, without a full stop."""
    return LimitReached(refusal, code="cap_reached", retry_after_ms=CAP_RETRY_MS)


class ConnectionQuota:
    """Caps, stored as sets of holders. A holder is a connection id."""

    def __init__(
        self, *, store: CapStore, failure_mode: FailureMode, timeout_ms: int, clock: Clock, observer: Observer
    ) -> None:
        self._store = store
        self._failure_mode = failure_mode
        self._timeout_s = timeout_ms / 1000
        self._clock = clock
        self._observer = observer

    def take(
        self,
        cap: str,
        holder: str,
        limit: int,
        *,
        refusal: str,
        noted: Collection[str] = (),
        note: Callable[[str], bool] = lambda _slot: True,
        deadline: LimiterDeadline | None = None,
    ) -> str | None:
        """Take a slot in the first counter shard that has room.

        Slots that are noted already are tried first, then the holder's home slot, then the others.

        Args:
            cap: what is capped, for example `dash#<id>`.
            limit: holders allowed in all shards together.
            refusal: what to tell the client when every shard is full: which cap, without a full stop.
            noted: slots that are noted on the connection. Taking one that it has already takes nothing more.
            note: called with the name of every other slot before that slot is tried. False when the connection that
                should own it is gone; then the search ends.
            deadline: shared by all limiter calls of one request; None when this is the only one.

        Returns:
            The slot's name; None when the store did not answer and the failure mode is fail-open.

        Raises:
            LimitReached: every shard is full, or the connection is gone.
            LimiterUnavailable: the store did not answer and the failure mode is fail-closed.
        """
        deadline = deadline or self._deadline()
        scope = cap.split("#", 1)[0]
        try:
            ring = list(counter_shards(holder, limit))
            ring.sort(key=lambda shard: slot_name(cap, shard.index) not in noted)
            for shard in ring:
                slot = slot_name(cap, shard.index)
                if slot not in noted and not note(slot):
                    break
                with deadline.running() as until_s:
                    taken = self._store.take(cap, shard.index, shard.limit, holder, until_s)
                if taken:
                    self._count(scope, Outcome.ALLOWED)
                    return slot
        except Unavailable as error:
            self._observer.count("limiter", scope=f"cap-{scope}", outcome=Outcome.BACKEND_ERROR.value, cause=error.code)
            if self._failure_mode is FailureMode.OPEN:
                self._count(scope, Outcome.FAIL_OPEN)
                return None
            self._count(scope, Outcome.FAIL_CLOSED)
            raise LimiterUnavailable("The connection limiter is temporarily unavailable") from error
        self._count(scope, Outcome.REJECTED)
        raise cap_reached(refusal)

    def free(self, slots: Iterable[str], holder: str, deadline: LimiterDeadline | None = None) -> None:
        """Free the named slots. Repeating is harmless.

        A slot that cannot be freed now is counted, and the next full revalidation frees it.

        Args:
            slots: names of slots.
            holder: who holds them.
            deadline: shared by all limiter calls of one request; None when nothing else was limited.
        """
        deadline = deadline or self._deadline()
        for slot in slots:
            cap, _, shard = slot.rpartition("#")
            try:
                with deadline.running() as until_s:
                    self._store.release(cap, int(shard), holder, until_s)
            except Unavailable:
                self._observer.count("slots_not_freed")

    def give_back(self, connection: Connection, slots: Iterable[str]) -> None:
        """Free slots that a connection needs no more, and lives on. Nothing happens when its keys changed meanwhile.

        A slot that cannot be freed now is counted, and is freed with the connection or by a later sweep.

        Args:
            connection: as it was read, without a key that needs one of the slots.
            slots: names of slots that are noted on it.
        """
        parts = [slot.rpartition("#") for slot in sorted(slots)]
        try:
            self._store.give_back(connection, [(cap, int(shard)) for cap, _, shard in parts])
        except Unavailable:
            self._observer.count("slots_not_freed")

    def _deadline(self) -> LimiterDeadline:
        return LimiterDeadline(self._clock, self._timeout_s)

    def _count(self, scope: str, outcome: Outcome) -> None:
        self._observer.count("limiter", scope=f"cap-{scope}", outcome=outcome.value)
