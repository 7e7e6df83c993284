"""What the viewers of a board of ten datasources cost, with a token for each datasource and with one for the dashboard.

The API's and the gateway's handlers run over the emulator's tables, in as many processes as there are cores: a viewer
does one call after another, and most of the time goes into waiting for the emulator. Each viewer gets tokens,
subscribes, and does both again, as a page does every few minutes. Calls are exact. Units are computed from requests and
answers, without what indexes add: see `benchmarks.meter`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context

from benchmarks.figures import Cell, Figure, Table, circumstances
from benchmarks.handlers import Handlers, deployed
from benchmarks.meter import Asked, Meter, metered
from benchmarks.platform import platform
from benchmarks.progress import step
from benchmarks.tables import Tables, running_emulator
from functions.revalidate.wiring import schedule_services
from local_stack.config import Config, StackError
from local_stack.seed import mqtt

#: Viewers that a process is given at once.
_AT_ONCE = 5
#: Datasources of the board.
_SOURCES = tuple(f"t{number}" for number in range(10))


@dataclass(frozen=True, slots=True)
class Size:
    """How many viewers come, one table for each number."""

    viewers: Sequence[int]


FULL = Size(viewers=(1, 100, 1_000))
SMALL = Size(viewers=(2,))


@dataclass(frozen=True, slots=True)
class _Board:
    """A public dashboard of ten datasources."""

    handlers: Handlers
    id: str

    def tokens(self, address: str, before: Sequence[str]) -> Sequence[str]:
        """A token for each datasource, in their order. `before`: those that the viewer has."""
        found = list(before[:1])
        for source in _SOURCES:
            current = {"currentToken": found[-1]} if found else {}
            body = {"dashboardId": self.id, "datasourceId": source, **current}
            found.append(self.handlers.call("POST", "/api/datasource-sessions", body, address=address)["token"])
        return found[-len(_SOURCES) :]

    def token(self, address: str, before: Sequence[str]) -> Sequence[str]:
        """One token for all."""
        body = {"currentToken": before[0]} if before else {}
        path = f"/api/dashboards/{self.id}/session"
        return [self.handlers.call("POST", path, body, address=address)["token"]]

    def subscribe(self, connection_id: str, tokens: Sequence[str]) -> None:
        """With as many messages as there are tokens."""
        subscribe = {"type": "subscribe", "dashboardId": self.id}
        if len(tokens) == 1:
            self.handlers.say(connection_id, {**subscribe, "datasourceIds": _SOURCES, "sessionToken": tokens[0]})
            return
        for source, token in zip(_SOURCES, tokens, strict=True):
            self.handlers.say(connection_id, {**subscribe, "datasourceId": source, "sessionToken": token})


def run(config: Config, size: Size) -> list[Table]:
    """Viewers of a board of ten: a token and a subscribe for each datasource, and one for all."""
    with running_emulator(config), platform() as url:
        where = deployed(config, url, "session")
        handlers = Handlers(where.env)
        broker = handlers.broker()
        tables = []
        for viewers in size.viewers:
            # Boards of their own, so that no stream has had so many subscribes that it has a crowd.
            boards = {together: _board(handlers, broker, f"{viewers}-{together}") for together in (False, True)}
            costs = {together: _cost(board, viewers, together, where) for together, board in boards.items()}
            tables.append(_table(viewers, costs[False], costs[True]))
        return tables


def _board(handlers: Handlers, broker: str, name: str) -> str:
    return handlers.board(name, [mqtt(source, broker, f"demo/{name}/{source}") for source in _SOURCES])


@dataclass(slots=True)
class _Phase:
    """One phase of all viewers. `done`: tokens that were minted, or messages that were sent."""

    done: int = 0
    asked: Asked = Asked()


_PHASES = ("first tokens", "first subscribes", "refresh: tokens", "refresh: subscribes")


def _cost(board_id: str, viewers: int, together: bool, where: Tables) -> Mapping[str, _Phase]:
    """The phases of so many viewers."""
    # As while others watch already: otherwise each subscribe would start the schedule, which nobody runs here.
    schedule_services(where.env).queue_tasks(started=True)
    name = f"{viewers:,} viewers, {'together' if together else 'one by one'}"
    phases, processes = defaultdict[str, _Phase](_Phase), set[int]()
    visits = [range(first, min(first + _AT_ONCE, viewers)) for first in range(0, viewers, _AT_ONCE)]
    begin = (where.env, board_id, together)
    with (
        step(name, viewers) as progress,
        ProcessPoolExecutor(circumstances().cores, get_context("spawn"), _begin, begin) as pool,
    ):
        for numbers, (process, taken) in zip(visits, pool.map(_visited, visits), strict=True):
            processes.add(process)
            for phase, cost in taken.items():
                phases[phase].done += cost.done
                phases[phase].asked += cost.asked
            progress.advance(len(numbers))
    live = sum(1 for _ in where.container.subscriptions.of_dashboard(board_id))
    # A process that came too late for a visit had its first viewer all the same.
    if live % len(_SOURCES) or live < (viewers + len(processes)) * len(_SOURCES):
        raise StackError(f"{name}: {live} subscriptions are there.")
    return phases


@dataclass(frozen=True, slots=True)
class _Process:
    """What a process of viewers has."""

    board: _Board
    meter: Meter
    together: bool

    def visit(self, name: str, number: int, phases: Mapping[str, _Phase]) -> None:
        address = f"10.0.{number // 250}.{number % 250}"
        _visit(self.board, f"{self.board.id}-{name}", address, self.together, self.meter, phases)


_process: _Process | None = None
_counting = ExitStack()


def _begin(env: Mapping[str, str], board_id: str, together: bool) -> None:
    """In a new process. One viewer comes before all: what a process remembers is not what one more costs."""
    global _process
    _process = _Process(_Board(Handlers(env), board_id), _counting.enter_context(metered()), together)
    _process.visit(f"first-{os.getpid()}", 0, defaultdict(_Phase))


def _visited(numbers: range) -> tuple[int, dict[str, _Phase]]:
    """Viewers, one after another: the process, and their phases."""
    assert _process is not None
    phases = defaultdict[str, _Phase](_Phase)
    for number in numbers:
        _process.visit(str(number), number, phases)
    return os.getpid(), dict(phases)


def _visit(
    board: _Board, connection_id: str, address: str, together: bool, meter: Meter, phases: Mapping[str, _Phase]
) -> None:
    """One viewer, from the first token to a refresh of all."""
    get = board.token if together else board.tokens
    tokens: Sequence[str] = []
    board.handlers.open(connection_id, address)
    meter.taken()
    for visit in (_PHASES[:2], _PHASES[2:]):
        for name in visit:
            if name == visit[0]:
                tokens = get(address, tokens)
            else:
                board.subscribe(connection_id, tokens)
            phases[name].done += len(tokens)
            phases[name].asked += meter.taken()


def _table(viewers: int, before: Mapping[str, _Phase], after: Mapping[str, _Phase]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name in _PHASES:
        one_by_one, together = before[name], after[name]
        for what, this, that in (
            (name, one_by_one.done, together.done),
            ("  calls of DynamoDB", one_by_one.asked.calls, together.asked.calls),
            ("  read units", one_by_one.asked.reads, together.asked.reads),
            ("  write units", one_by_one.asked.writes, together.asked.writes),
        ):
            rows.append((what, Figure(this, ",.0f"), Figure(that, ",.0f"), Figure(this / that, ".1f")))
    whole = f"{viewers:,} viewer{'s' if viewers > 1 else ''} of a board of {len(_SOURCES)}"
    return Table((whole, "one by one", "together", "ratio"), rows)
