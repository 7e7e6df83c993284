"""The last safety net: check every subscription again, whatever was lost before, and remove what crashes left behind.

Only one full revalidation goes on at a time; a lease sees to that. It takes one run or several. The tables are read in
parallel segments. A run reads each access item once, however many viewers need it. A row that seems inadmissible is
evaluated again by access items that are read just before it is terminated. So a row that is newer than what was read
first is never terminated for that. After every page the position of its segment is stored. So when a run is out of time
or dies, the next run continues and does not begin again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from threading import Lock

from tidegate.domain.access import DashboardAccess, UserAccess, owner_that_counts
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import Connection, Subscription, Termination
from tidegate.domain.switches import ALL_ON, Switches
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Sender
from tidegate.ports.gateway import AccessSnapshot, AccessStore, ConnectionStore, SubscriptionStore
from tidegate.ports.limits import CapStore
from tidegate.ports.revocation import FullRevalidationRuns, RevalidationQueue, RevalidationRun
from tidegate.ports.runtime import Clock, Ids, Observer
from tidegate.usecases.gateway.end_connection import EndConnection
from tidegate.usecases.limits.connection_quota import slot_name, unused_slots
from tidegate.usecases.parallel import in_parallel
from tidegate.usecases.remote_api.reintrospect import Reintrospect
from tidegate.usecases.revocation.evaluate import Evaluate
from tidegate.usecases.revocation.terminate_subscriptions import TerminateSubscriptions

#: Segments of a table that are read at the same time. The number is part of the steps' names. So after it was changed,
#: positions that were stored with the old number are not used.
SEGMENTS = 8
#: Connections that are swept before the position is stored again.
_SWEEP = 256
#: Longest life of a connection, seconds: the platform ends every connection after two hours. An older row belongs to a
#: connection whose end was never reported.
LONGEST_CONNECTION_S = 2 * 3600
#: A holder that has no row is checked again after this time, seconds, before its slot is freed: a slot is taken before
#: the connection's row is written.
SLOT_GRACE_S = 60
#: How long the lease outlives the run's deadline, seconds: more than any single step takes.
_LEASE_MARGIN_S = 30

_SWEPT = "connections"
_ENDED = ""


class OutOfTime(Exception):
    """The run has reached its deadline. A later run goes on."""


class Overtaken(Exception):
    """Another run has taken over, because this one was too slow and its lease ended."""


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
            new_dashboards = [key for key in dashboards if key not in self._dashboards]
            new_users = [key for key in users if key not in self._users]
            if new_dashboards or new_users:
                found = self._access.read(new_dashboards, new_users)
                self._dashboards |= {key: found.dashboards.get(key) for key in new_dashboards}
                owners = [owner for item in found.dashboards.values() if (owner := owner_that_counts(item)) is not None]
                self._users |= {key: found.users.get(key) for key in [*new_users, *owners]}
            known = [item for key in dashboards if (item := self._dashboards[key]) is not None]
            users += [owner for item in known if (owner := owner_that_counts(item)) is not None]
            return AccessSnapshot(
                {key: item for key in dashboards if (item := self._dashboards[key]) is not None},
                {key: user for key in users if (user := self._users[key]) is not None},
            )

    def intents_of(self, dashboard_id: str) -> Mapping[str, Mapping[str, object]]:
        return self._access.intents_of(dashboard_id)

    def intent(self, dashboard_id: str, datasource_id: str) -> None:
        raise NotImplementedError("a full revalidation evaluates by access items only")


class FullRevalidation:
    """Checks every subscription, and sweeps connections, orphaned rows and slots."""

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
        switches: Switches = ALL_ON,
    ) -> None:
        """
        Args:
            interval_s: least time between the beginnings of two full revalidations, seconds.
            idle_timeout_s: how old a connection that never subscribed may become, seconds.
            reintrospect: asks a remote API about rows, because its feed does not report every lost right. None without
                a remote API.
            switches: what the operator switched on. When they differ from those of the last run, a run is due at once.
        """
        self._connections = connections
        self._subscriptions = subscriptions
        self._caps = caps
        self._runs = runs
        self._access = access
        self._switches = switches
        self._evaluate = Evaluate(access=access, clock=clock, observer=observer, switches=switches)
        self._terminate = terminate
        self._terminating = Lock()
        self._end_connection = end_connection
        self._sender = sender
        self._tasks = tasks
        self._interval_s = interval_s
        # Without realtime no connection may wait for a subscribe.
        self._idle_timeout_s = idle_timeout_s if switches.realtime else 0
        self._clock = clock
        self._ids = ids
        self._observer = observer
        self._reintrospect = reintrospect

    def __call__(self, deadline: float) -> int:
        """Run if a full revalidation is due or unfinished, and no other run goes on. `deadline`: monotonic seconds.

        Returns how many subscriptions were terminated. When the time is not enough, a task to continue is queued.

        Raises:
            Unavailable: a table could not be read. The full revalidation stays unfinished and is continued later.
        """
        life_s = max(1, int(deadline - self._clock.monotonic())) + _LEASE_MARGIN_S
        now, switches = int(self._clock.now()), self._switches.digest
        run = self._runs.begin(self._ids.new_id(), now, self._interval_s, life_s, switches)
        if run is None:
            return 0
        terminated = [0] * SEGMENTS
        try:
            found = self._carry_out(run, deadline, terminated)
        except (OutOfTime, Unavailable) as reason:
            self._runs.pause(run)
            if isinstance(reason, Unavailable):
                raise
            self._observer.count("full_revalidations_continued")
            self._tasks.queue(Task(TaskKind.FULL))
        except Overtaken:
            self._observer.count("full_revalidations_overtaken")
        else:
            self._runs.end(run, int(self._clock.now()), found)
            seconds = int(self._clock.now()) - run.began
            self._observer.count("full_revalidations")
            self._observer.time("full_revalidation", seconds * 1000)
            self._observer.info("full revalidation", seconds=seconds, terminated=sum(terminated))
        return sum(terminated)

    def _carry_out(self, run: RevalidationRun, deadline: float, terminated: list[int]) -> int:
        """Returns how many connections there were."""
        # Connections are read before rows. So a row whose connection was not found is an orphan, or newer than that
        # reading; its connection is read once more.
        connections = self._all_connections(deadline)
        read_once = Evaluate(
            access=ReadOnceAccess(self._access),
            clock=self._clock,
            observer=self._observer,
            switches=self._switches,
        )

        def segment(number: int) -> None:
            self._check_segment(run, number, read_once, connections.keys(), deadline, terminated)

        in_parallel(segment, range(SEGMENTS), SEGMENTS)
        self._sweep_connections(run, connections, deadline)
        self._sweep_slots(connections.keys(), deadline)
        return len(connections)

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
                evaluated = {row.key for row in seems}
                refused = self._reintrospect([row for row in rows if row.key not in evaluated], deadline)
                done += self._terminate_one_by_one(lambda: refused, deadline) if refused else 0
        except Unavailable:
            return 0  # these rows are kept and counted; all others are still checked
        self._in_time(deadline)
        return done

    def _terminate_one_by_one(self, evaluate: Callable[[], list[Termination]], deadline: float) -> int:
        """Terminate for one segment at a time, because a termination works in parallel itself. Evaluates when its turn
        comes, so that the access items are read just before."""
        with self._terminating:
            return self._terminate(evaluate(), deadline)

    def _sweep_orphans(self, rows: Iterable[Subscription]) -> None:
        """Remove rows whose connection was removed without them, because a process died between the two writes."""
        for row in rows:
            if self._connections.get(row.key.connection_id) is None and self._subscriptions.remove(row):
                self._observer.count("rows_swept")

    # --- connections and slots ------------------------------------------------------------------------------

    def _all_connections(self, deadline: float) -> dict[str, Connection]:
        found: dict[str, Connection] = {}

        def segment(number: int) -> None:
            for page in self._connections.scan(number, SEGMENTS):
                self._in_time(deadline)
                found.update((connection.connection_id, connection) for connection in page.items)

        in_parallel(segment, range(SEGMENTS), SEGMENTS)
        return found

    def _sweep_connections(self, run: RevalidationRun, connections: dict[str, Connection], deadline: float) -> None:
        """Remove connections that never subscribed, are older than the platform allows, or are gone.

        Those that stay without a subscription give back the places of dashboards.
        """
        swept = run.progress.get(_SWEPT)
        if swept == _ENDED:
            return
        oldest = int(self._clock.now()) - self._idle_timeout_s
        old = (connection_id for connection_id, connection in connections.items() if connection.opened_at < oldest)
        waiting: Iterator[str] = iter(sorted(key for key in old if swept is None or key > swept))
        while group := list(islice(waiting, _SWEEP)):
            self._in_time(deadline)
            in_parallel(lambda connection_id: self._sweep(connections[connection_id]), group)
            self._note(run, _SWEPT, group[-1])
        self._note(run, _SWEPT, _ENDED)

    def _sweep(self, connection: Connection) -> None:
        connection_id = connection.connection_id
        # Without realtime nobody has a reason to stay.
        unused = not connection.begun if self._switches.realtime else not connection.subscriptions
        if unused and self._connections.close_if_empty(connection_id, never_subscribed=self._switches.realtime):
            self._end_connection.gone(connection_id)
            self._observer.count("connections_swept", reason="idle")
        elif int(self._clock.now()) - connection.opened_at > LONGEST_CONNECTION_S or self._is_gone(connection_id):
            self._end_connection.gone(connection_id)
            self._observer.count("connections_swept", reason="gone")
        elif unused_slots(connection):
            self._end_connection.free_unused(connection_id)

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
        """Free a slot if its holder still has no row. `target`: the slot's name, a space, the holder."""
        slot, _, holder = target.rpartition(" ")
        cap, _, shard = slot.rpartition("#")
        if self._connections.get(holder) is None:
            self._caps.release(cap, int(shard), holder)
            self._observer.count("slots_freed")

    # --- helpers ------------------------------------------------------------------------------------------------

    def _in_time(self, deadline: float) -> None:
        if self._clock.monotonic() >= deadline:
            raise OutOfTime

    def _note(self, run: RevalidationRun, step: str, position: str) -> None:
        if not self._runs.note(run, step, position):
            raise Overtaken
