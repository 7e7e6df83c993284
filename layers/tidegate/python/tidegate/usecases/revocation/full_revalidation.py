"""The last net: every subscription checked again, whatever happened to events, streams and schedules; and what
crashes left behind is swept.

One pass at a time, by lease. The tables are read in parallel segments and each access item once a pass, however many
viewers; whoever seems inadmissible is evaluated again by access items read just before the cut, so a row that is newer
than what the pass had read is never cut for it. How far each segment is, is written down after every page: a pass that
runs out of time, or dies, is continued by the next run and not begun again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from threading import Lock

from tidegate.domain.access import DashboardAccess, UserAccess
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import Connection, Subscription, Termination
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Sender
from tidegate.ports.gateway import AccessSnapshot, AccessStore, ConnectionStore, SubscriptionStore
from tidegate.ports.limits import CapStore
from tidegate.ports.revocation import FullRevalidationRuns, RevalidationQueue, RevalidationRun
from tidegate.ports.runtime import Clock, Ids, Observer
from tidegate.usecases.gateway.end_connection import EndConnection
from tidegate.usecases.limits.connection_quota import slot_name
from tidegate.usecases.parallel import in_parallel
from tidegate.usecases.remote_api.reintrospect import Reintrospect
from tidegate.usecases.revocation.evaluate import Evaluate
from tidegate.usecases.revocation.terminate_subscriptions import TerminateSubscriptions

#: Segments a table is read in at the same time. Written into the names of the steps, so that a pass begun with another
#: number is not continued with this one.
SEGMENTS = 8
#: Connections looked at between two notes of how far the sweep is.
_SWEEP = 256
#: The platform ends every connection after two hours; what is older is a row whose end was never told, seconds.
LONGEST_CONNECTION_S = 2 * 3600
#: A slot is taken before its connection's row is written: a holder without a row is looked at again after this, in
#: seconds.
SLOT_GRACE_S = 60
#: How long the lease outlives the run's deadline, seconds: more than any single step takes.
_LEASE_MARGIN_S = 30

_SWEPT = "connections"
_ENDED = ""


class OutOfTime(Exception):
    """The run's deadline came first; the pass goes on later."""


class Overtaken(Exception):
    """Another run holds the pass now: this one was too slow."""


class ReadOnceAccess:
    """`AccessStore` that reads each access item once."""

    def __init__(self, access: AccessStore) -> None:
        self._access = access
        self._lock = Lock()
        self._dashboards: dict[str, DashboardAccess | None] = {}
        self._users: dict[str, UserAccess | None] = {}

    def read(self, dashboard_ids: Iterable[str], user_ids: Iterable[str]) -> AccessSnapshot:
        dashboards, users = list(dashboard_ids), list(user_ids)
        with self._lock:
            unknown = [one for one in dashboards if one not in self._dashboards]
            strangers = [one for one in users if one not in self._users]
            if unknown or strangers:
                found = self._access.read(unknown, strangers)
                self._dashboards |= {one: found.dashboards.get(one) for one in unknown}
                self._users |= {one: found.users.get(one) for one in strangers}
            return AccessSnapshot(
                {one: item for one in dashboards if (item := self._dashboards[one]) is not None},
                {one: user for one in users if (user := self._users[one]) is not None},
            )

    def intent(self, dashboard_id: str, datasource_id: str) -> None:
        raise NotImplementedError("a pass judges by access items only")


class FullRevalidation:
    """Check and sweep everything."""

    def __init__(
        self,
        *,
        connections: ConnectionStore,
        subscriptions: SubscriptionStore,
        caps: CapStore,
        runs: FullRevalidationRuns,
        access: AccessStore,
        terminate: TerminateSubscriptions,
        end_connection: EndConnection,
        sender: Sender,
        tasks: RevalidationQueue,
        interval_s: int,
        idle_timeout_s: int,
        clock: Clock,
        ids: Ids,
        observer: Observer,
        reintrospect: Reintrospect | None = None,
    ) -> None:
        """`reintrospect`: asks a remote API about those that its feed does not tell of."""
        self._connections = connections
        self._subscriptions = subscriptions
        self._caps = caps
        self._runs = runs
        self._access = access
        self._evaluate = Evaluate(access=access, clock=clock, observer=observer)
        self._terminate = terminate
        self._terminating = Lock()
        self._end_connection = end_connection
        self._sender = sender
        self._tasks = tasks
        self._interval_s = interval_s
        self._idle_timeout_s = idle_timeout_s
        self._clock = clock
        self._ids = ids
        self._observer = observer
        self._reintrospect = reintrospect

    def __call__(self, deadline: float) -> int:
        """Run when it is due, or was left unfinished, and nobody else does. Returns how many viewers were terminated.

        Raises `Unavailable` when a table could not be read: the pass stays open and is continued.
        """
        life_s = max(1, int(deadline - self._clock.monotonic())) + _LEASE_MARGIN_S
        run = self._runs.begin(self._ids.new_id(), int(self._clock.now()), self._interval_s, life_s)
        if run is None:
            return 0
        terminated = [0] * SEGMENTS
        try:
            self._carry_out(run, deadline, terminated)
        except (OutOfTime, Unavailable) as reason:
            self._runs.pause(run)
            if isinstance(reason, Unavailable):
                raise
            self._observer.count("full_revalidations_continued")
            self._tasks.queue(Task(TaskKind.FULL))
        except Overtaken:
            self._observer.count("full_revalidations_overtaken")
        else:
            self._runs.end(run)
            seconds = int(self._clock.now()) - run.began
            self._observer.count("full_revalidations")
            self._observer.time("full_revalidation", seconds * 1000)
            self._observer.info("full revalidation", seconds=seconds, terminated=sum(terminated))
        return sum(terminated)

    def _carry_out(self, run: RevalidationRun, deadline: float, terminated: list[int]) -> None:
        # Which connections there are is asked before which rows: a row whose connection is not among them is an orphan,
        # or newer than the answer, and looked at once more.
        connections = self._all_connections(deadline)
        read_once = Evaluate(access=ReadOnceAccess(self._access), clock=self._clock, observer=self._observer)

        def segment(number: int) -> None:
            self._check_segment(run, number, read_once, connections.keys(), deadline, terminated)

        in_parallel(segment, range(SEGMENTS), SEGMENTS)
        self._sweep_connections(run, connections, deadline)
        self._sweep_slots(connections.keys(), deadline)

    # --- subscriptions --------------------------------------------------------------------------------------

    def _check_segment(
        self,
        run: RevalidationRun,
        number: int,
        read_once: Evaluate,
        known: Iterable[str],
        deadline: float,
        terminated: list[int],
    ) -> None:
        step = f"subscriptions {number}/{SEGMENTS}"
        position = run.progress.get(step)
        if position == _ENDED:
            return
        for page in self._subscriptions.scan(number, SEGMENTS, position):
            terminated[number] += self._check(page.items, read_once, deadline)
            self._sweep_orphans([row for row in page.items if row.key.connection_id not in known])
            self._in_time(deadline)
            self._note(run, step, page.position or _ENDED)

    def _check(self, rows: Sequence[Subscription], read_once: Evaluate, deadline: float) -> int:
        try:
            seems = [row for row, _ in read_once(rows)]
            done = self._terminate_one_by_one(lambda: self._evaluate(seems), deadline) if seems else 0
            if self._reintrospect is not None:
                judged = {row.key for row in seems}
                refused = self._reintrospect([row for row in rows if row.key not in judged], deadline)
                done += self._terminate_one_by_one(lambda: refused, deadline) if refused else 0
        except Unavailable:
            return 0  # kept and counted; the others are checked all the same
        self._in_time(deadline)
        return done

    def _terminate_one_by_one(self, evaluate: Callable[[], list[Termination]], deadline: float) -> int:
        """One segment after the other: a cut is parallel in itself. Evaluated when it is this one's turn."""
        with self._terminating:
            return self._terminate(evaluate(), deadline)

    def _sweep_orphans(self, rows: Iterable[Subscription]) -> None:
        """Rows whose connection ended without them: a process died between the two writes."""
        for row in rows:
            if self._connections.get(row.key.connection_id) is None and self._subscriptions.remove(row):
                self._observer.count("rows_swept")

    # --- connections and slots ------------------------------------------------------------------------------

    def _all_connections(self, deadline: float) -> dict[str, Connection]:
        found: dict[str, Connection] = {}

        def segment(number: int) -> None:
            for page in self._connections.scan(number, SEGMENTS):
                self._in_time(deadline)
                found.update((one.connection_id, one) for one in page.items)

        in_parallel(segment, range(SEGMENTS), SEGMENTS)
        return found

    def _sweep_connections(self, run: RevalidationRun, connections: dict[str, Connection], deadline: float) -> None:
        """Connections that never subscribed, outlived the platform's two hours, or are gone."""
        swept = run.progress.get(_SWEPT)
        if swept == _ENDED:
            return
        oldest = int(self._clock.now()) - self._idle_timeout_s
        waiting: Iterator[str] = iter(
            sorted(one for one, row in connections.items() if row.opened_at < oldest and (swept is None or one > swept))
        )
        while some := list(islice(waiting, _SWEEP)):
            self._in_time(deadline)
            in_parallel(lambda one: self._sweep(connections[one]), some)
            self._note(run, _SWEPT, some[-1])
        self._note(run, _SWEPT, _ENDED)

    def _sweep(self, connection: Connection) -> None:
        one = connection.connection_id
        if not connection.subscriptions and self._connections.close_if_empty(one):
            self._end_connection.gone(one)
            self._observer.count("connections_swept", reason="idle")
        elif int(self._clock.now()) - connection.opened_at > LONGEST_CONNECTION_S or self._is_gone(one):
            self._end_connection.gone(one)
            self._observer.count("connections_swept", reason="gone")

    def _is_gone(self, connection_id: str) -> bool:
        try:
            return not self._sender.exists(connection_id)
        except Unavailable:
            self._observer.count("indeterminate")
            return False

    def _sweep_slots(self, known: Iterable[str], deadline: float) -> None:
        def segment(number: int) -> None:
            for page in self._caps.scan(number, SEGMENTS):
                self._in_time(deadline)
                for cap, shard, holder in page.items:
                    if holder not in known:
                        self._tasks.queue(Task(TaskKind.SLOT, f"{slot_name(cap, shard)} {holder}"), SLOT_GRACE_S)

        in_parallel(segment, range(SEGMENTS), SEGMENTS)

    def free_slot(self, target: str) -> None:
        """Free one slot if its holder still has no row."""
        slot, _, holder = target.rpartition(" ")
        cap, _, shard = slot.rpartition("#")
        if self._connections.get(holder) is None:
            self._caps.release(cap, int(shard), holder)
            self._observer.count("slots_freed")

    # --- how ------------------------------------------------------------------------------------------------

    def _in_time(self, deadline: float) -> None:
        if self._clock.monotonic() >= deadline:
            raise OutOfTime

    def _note(self, run: RevalidationRun, step: str, position: str) -> None:
        if not self._runs.note(run, step, position):
            raise Overtaken
