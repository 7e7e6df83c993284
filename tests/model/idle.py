"""The schedule rests while nobody is connected. Viewers come and leave beside its runs: what the actors share, and what
must hold of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from tests.doubles.platform import MemoryObserver
from tests.model.explorer import Actor, Answer, Answers, Call, Scene, Script, State, Store, Violation
from tidegate.domain.activity import AHEAD_S, SCHEDULE_S, ScheduleState
from tidegate.domain.minutes import EXPIRED_S, tasks_between
from tidegate.domain.revocations import Task, TaskKind
from tidegate.usecases.gateway.wake_schedule import WakeSchedule
from tidegate.usecases.revocation.queue_tasks import QueueTasks

#: Seconds that pass at a time: in each there is one look at what has expired.
TICK_S = EXPIRED_S
#: How often the feed is polled, seconds.
POLL_S = 30
#: How late a viewer is told of an expiry, seconds: `docs/concepts/revocation.md`. And when the run that looks has died.
BOUND_S, BOUND_AFTER_DEATH_S = 15, 90
#: How long a function may take, seconds.
_FUNCTION_S = TICK_S
#: Epoch seconds of the beginning. The schedule comes at each minute from here, or as late as a run queues ahead.
BEGINS = 1_800_000_000
#: What a viewer and the gateway do, in this order: the connection's row, the look at the schedule, the subscription.
OPENS, WAKES, PUTS = "opens", "wakes", "puts"
USUAL = (OPENS, WAKES, PUTS)

#: What is looked at here.
_LOOKED_AT = (TaskKind.EXPIRED, TaskKind.POLL)
_TIME = "time"


class _Clock:
    """Looking at the clock is a step, so that time may pass before and after it."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def now(self) -> float:
        return BEGINS + float(self._answers.ask("clock", "read"))

    def monotonic(self) -> float:
        raise NotImplementedError


def passing(ticks: int) -> Script:
    """Time."""

    def script(answers: Answers) -> str:
        for _ in range(ticks):
            answers.ask("clock", "pass")
        return "over"

    return script


def viewer(connection: str, *, knows_s: int = 0, order: Sequence[str] = USUAL) -> Script:
    """A viewer, and the process of the gateway that handles the messages.

    Args:
        knows_s: until when the process knows the schedule to be active, seconds since the beginning.
        order: what happens. Without `PUTS` the process dies before, without `WAKES` after it has put the row.
    """

    def script(answers: Answers) -> str:
        wake = WakeSchedule(
            states=cast(Any, Store(answers, "state")),
            schedule=cast(Any, Store(answers, "schedule")),
            clock=_Clock(answers),
            observer=MemoryObserver(),
        )
        wake._active_until = BEGINS + knows_s
        for step in order:
            match step:
                case "opens":
                    answers.ask("connections", "open", connection)
                case "wakes":
                    wake()
                case "puts":
                    answers.ask("rows", "put", connection)
        if PUTS not in order:
            answers.ask("function", "end", ())
        return "handled"

    return script


def leave(connection: str) -> Script:
    """A viewer who was there in the beginning goes."""

    def script(answers: Answers) -> str:
        answers.ask("connections", "remove", connection)
        return "left"

    return script


def run(minute: int | None, *, dies: bool = False) -> Script:
    """A run of the schedule: that of a minute, or, with None, one that a viewer started. What it queues is one step.
    `dies`: after it has said what it is about to queue."""

    def script(answers: Answers) -> str:
        sent: list[tuple[TaskKind, int]] = []
        use_case = QueueTasks(
            states=cast(Any, Store(answers, "state")),
            connected=lambda: bool(answers.ask("connections", "has_any")),
            tasks=_Tasks(sent),
            poll_interval_s=POLL_S,
            clock=_Clock(answers),
        )
        use_case(started=minute is None)
        answers.ask("function", "end", () if dies else tuple(sent))
        return "ran"

    return script


class _Tasks:
    def __init__(self, sent: list[tuple[TaskKind, int]]) -> None:
        self._sent = sent

    def queue(self, task: Task, delay_s: int = 0) -> None:
        if task.kind in _LOOKED_AT:
            self._sent.append((task.kind, delay_s))


@dataclass(frozen=True, slots=True)
class Stage:
    """What the stores hold. Times are seconds since the beginning.

    Attributes:
        state: the item of the schedule.
        connections: the table's rows.
        since: connection -> when its subscription was put.
        queued: what is due later: when, and which kind of task.
        looked, polled: when somebody looked for what has expired, and when the feed was polled, last.
        began: actor -> when its function began, which is when it looks at the clock; None when it has ended.
        starts: how many runs viewers have started.
    """

    state: ScheduleState
    connections: frozenset[str]
    since: Mapping[str, int]
    now: int = 0
    queued: frozenset[tuple[int, TaskKind]] = frozenset()
    looked: int = 0
    polled: int = 0
    began: Mapping[str, int | None] = field(default_factory=dict)
    starts: int = 0


class Resting(Scene[Stage]):
    """Viewers, the schedule's runs of some minutes, and runs that viewers start."""

    #: The state is written whatever was written since it was read: a safeguard taken out.
    weak_state = False
    #: The look for connections finds none: a safeguard taken out.
    blind = False

    def __init__(
        self,
        actors: Sequence[Actor],
        *,
        minutes: int,
        seconds: int,
        there: Sequence[str] = (),
        starts: int = 0,
        active_s: int = 0,
        dying: bool = False,
        bound_s: int = BOUND_S,
    ) -> None:
        """
        Args:
            minutes: how often the schedule comes, at the end of each.
            seconds: how long the scene lasts.
            there: who watches in the beginning.
            starts: how many runs viewers may start.
            active_s: for how long the schedule is active, from the beginning. If it is, or somebody watches, the
                tasks of the first minute are queued.
            dying: whether the first run that a viewer starts dies.
            bound_s: how long a viewer may be there without a look at what has expired.
        """
        self._minutes = minutes
        self._there = there
        self._starts = starts
        self._active_s = active_s
        self._bound_s = bound_s
        runs = (run(None, dies=dying and number == 0) for number in range(starts))
        self.actors = (
            Actor(_TIME, passing(seconds // TICK_S)),
            *actors,
            *(Actor(f"minute {number}", run(number)) for number in range(1, minutes + 1)),
            *(Actor(f"start {number}", script, after=f"started {number}") for number, script in enumerate(runs)),
        )

    def start(self) -> Stage:
        queued_s = SCHEDULE_S + AHEAD_S if self._there or self._active_s else 0
        due = tasks_between(0, queued_s, 0, POLL_S)
        return Stage(
            ScheduleState(BEGINS + self._active_s, BEGINS + queued_s, BEGINS),
            frozenset(self._there),
            dict.fromkeys(self._there, 0),
            queued=frozenset((second, task.kind) for second, task in due if task.kind in _LOOKED_AT),
        )

    def key(self, stores: Stage) -> Hashable:
        return (
            stores.state,
            stores.connections,
            tuple(sorted(stores.since.items())),
            stores.now,
            stores.queued,
            stores.looked,
            stores.polled,
            tuple(sorted(stores.began.items())),
            stores.starts,
        )

    # --- time ---------------------------------------------------------------------------------------------------

    def waits(self, stores: Stage, actor: str, call: Call) -> bool:
        if actor == _TIME:
            return self._time_waits(stores)
        if actor.startswith("minute") and actor not in stores.began:
            return stores.now < SCHEDULE_S * int(actor.split()[1])
        return False

    def _time_waits(self, stores: Stage) -> bool:
        """Functions end in time, the schedule comes in time, and a run that a viewer started comes at once."""
        after, at_work = stores.now + TICK_S, {who: at for who, at in stores.began.items() if at is not None}
        started = {f"start {number}" for number in range(stores.starts)}
        if started & at_work.keys() or started - stores.began.keys():
            return True
        if any(at + _FUNCTION_S < after for at in at_work.values()):
            return True
        late = (n for n in range(1, self._minutes + 1) if after > n * SCHEDULE_S + AHEAD_S)
        return any(f"minute {number}" not in stores.began or f"minute {number}" in at_work for number in late)

    def _passed(self, stores: Stage) -> Stage:
        """A tick. Whoever was there was looked at, and the feed was polled not long ago."""
        now = stores.now + TICK_S
        over = {(moment, kind) for moment, kind in stores.queued if moment < now}
        polled = max([stores.polled, *(moment for moment, kind in over if kind is TaskKind.POLL)])
        looked = max([stores.looked, *(moment for moment, kind in over if kind is TaskKind.EXPIRED)])
        since = min(stores.since.values(), default=now)
        if now - max(looked, since) > self._bound_s:
            raise Violation("nobody looks for what has expired, and a viewer is there")
        if now - max(polled, since) > POLL_S + self._bound_s:
            raise Violation("the feed is not polled, and a viewer is there")
        return replace(stores, now=now, queued=stores.queued - over, polled=polled, looked=looked)

    # --- what calls do ------------------------------------------------------------------------------------------

    def perform(self, stores: Stage, actor: str, call: Call) -> tuple[Stage, Answer, str | None]:
        match call.store, call.method:
            case "clock", "read":
                return replace(stores, began={**stores.began, actor: stores.now}), ("got", stores.now), None
            case "clock", "pass":
                return self._passed(stores), ("got", None), None
            case "function", _:
                return self._ended(stores, actor, call.args[0]), ("got", None), None
            case "schedule", "start":
                assert stores.starts < self._starts, "the scene has too few starts"
                return replace(stores, starts=stores.starts + 1), ("got", None), f"started {stores.starts}"
            case "state", "read":
                return stores, ("got", stores.state), None
            case "state", "move":
                seen, to = call.args
                moved = seen == stores.state or self.weak_state
                return (replace(stores, state=to) if moved else stores), ("got", moved), None
            case "rows", _:
                stores = self._ended(stores, actor, ())
        return self._table(stores, call)

    def _table(self, stores: Stage, call: Call) -> tuple[Stage, Answer, str | None]:
        if call.method == "has_any":
            return stores, ("got", bool(stores.connections) and not self.blind), None
        (connection,) = call.args
        there, since = stores.connections - {connection}, dict(stores.since)
        since.pop(connection, None)
        if call.method != "remove":
            there |= {connection}
        if call.method == "put":
            since[connection] = stores.now
        return replace(stores, connections=there, since=since), ("got", None), None

    def _ended(self, stores: Stage, actor: str, sent: Sequence[tuple[TaskKind, int]]) -> Stage:
        """A function ends, and what it queued is in the queue."""
        due = [((stores.began.get(actor) or 0) + delay_s, kind) for kind, delay_s in sent]
        if len(stores.queued.union(due)) < len(stores.queued) + len(due):
            raise Violation("a task is queued twice")
        return replace(stores, began={**stores.began, actor: None}, queued=stores.queued.union(due))

    def check_end(self, state: State[Stage]) -> None:
        if _TIME not in state.outcomes:
            raise Violation("time stands still")
