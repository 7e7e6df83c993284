"""What a revocation costs its worker: terminating the affected among few and among many, very many of one dashboard,
and a full revalidation.

The tables are the emulator's, the platform a stand-in that answers at once: calls are exact, CPU is this process's own,
and seconds are this machine's. Nothing here is a figure of AWS.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.figures import Cell, Figure, Table
from benchmarks.platform import platform
from benchmarks.progress import step
from benchmarks.tables import Cost, Tables, running_emulator
from local_stack.config import Config
from tidegate.domain.revocations import Task, TaskKind

_COLUMNS = ("table calls", "CPU s", "s")


@dataclass(frozen=True, slots=True)
class Size:
    """How many are concerned.

    Attributes:
        affected: viewers of the dashboard that is gone.
        few, many: subscriptions in the tables; `few` includes nobody but the affected.
        dashboards: that the others are viewers of.
        rounds: whose median is shown.
        large: viewers of one dashboard, terminated at once and in slices.
        slice_s: how long a worker of a slice may take, seconds.
    """

    affected: int
    few: int
    many: int
    dashboards: int
    rounds: int
    large: int
    slice_s: float


FULL = Size(affected=1_000, few=1_000, many=100_000, dashboards=1_000, rounds=3, large=10_000, slice_s=2.0)
SMALL = Size(affected=20, few=20, many=300, dashboards=10, rounds=1, large=40, slice_s=2.0)


def run(config: Config, size: Size) -> list[Table]:
    """The worker's costs of terminating subscriptions, and of a full revalidation."""
    with running_emulator(config):
        return [_among_others(config, size), _of_one_dashboard(config, size)]


def _among_others(config: Config, size: Size) -> Table:
    """As many affected among few and among many, in turns; then a full revalidation of those that are left."""
    totals = (size.few, size.many)
    costs: dict[int, list[Cost]] = {total: [] for total in totals}
    left = size.many - size.affected
    with platform() as url:
        tables = {total: Tables(config, url, f"among{total}") for total in totals}
        tables[size.many].others(left, size.dashboards)
        for number in range(size.rounds):
            for total, where in tables.items():
                where.viewers(f"affected{number}", size.affected)
                with step(f"round {number + 1}: {size.affected:,} terminated among {total:,}"):
                    # No access item: the dashboard is gone, and all of its viewers with it.
                    cost = where.run(Task(TaskKind.DASHBOARD, f"affected{number}"))
                assert cost.terminated == size.affected, cost
                costs[total].append(cost)
        with step(f"full revalidation of {left:,} subscriptions on {size.dashboards:,} dashboards"):
            whole = tables[size.many].run(Task(TaskKind.FULL))
        assert whole.terminated == 0, whole
    few, many = (_median(costs[total]) for total in totals)
    ratios = (many.table_calls / few.table_calls, many.cpu_s / few.cpu_s, many.wall_s / few.wall_s)
    rows: list[tuple[Cell, ...]] = [
        _row(f"{size.affected:,} affected among {size.few:,}", few),
        _row(f"{size.affected:,} affected among {size.many:,}", many),
        ("ratio", *(Figure(ratio, ".2f") for ratio in ratios)),
        _row(f"full revalidation, {left:,} subscriptions on {size.dashboards:,} dashboards", whole),
        ("  of these: reads of access items, at most 90 dashboards each", Figure(whole.calls["BatchGetItem"]), "", ""),
        ("  of these: pages of tables", Figure(whole.calls["Scan"]), "", ""),
    ]
    return Table(("subscriptions terminated", *_COLUMNS), rows)


def _of_one_dashboard(config: Config, size: Size) -> Table:
    """Very many viewers of one dashboard: by one worker, and by workers that have little time each."""
    with platform() as url:
        where = Tables(config, url, "large")
        where.viewers("large", size.large)
        with step("terminated by one worker"):
            cost = where.run(Task(TaskKind.DASHBOARD, "large"))
        assert cost.terminated == size.large, cost
        where.viewers("slices", size.large)
        runs: list[Cost] = []
        with step(f"terminated by workers with {size.slice_s:g} s each", size.large) as progress:
            while sum(run.terminated for run in runs) < size.large:
                runs.append(where.run(Task(TaskKind.DASHBOARD, "slices"), seconds=size.slice_s))
                progress.advance(runs[-1].terminated)
    calls = sum((run.calls for run in runs), Counter[str]())
    together = Cost(size.large, calls, sum(run.cpu_s for run in runs), sum(run.wall_s for run in runs))
    slices = f"{size.large:,} viewers, {len(runs)} workers of {size.slice_s:g} s, one after another"
    rows = [_row(f"{size.large:,} viewers, one worker", cost), _row(slices, together)]
    return Table(("viewers of one dashboard terminated", *_COLUMNS), rows)


def _median(costs: Sequence[Cost]) -> Cost:
    middle = sorted(costs, key=lambda cost: cost.wall_s)[len(costs) // 2]
    return replace(middle, cpu_s=statistics.median(cost.cpu_s for cost in costs))


def _row(name: str, cost: Cost) -> tuple[Cell, ...]:
    return (name, Figure(cost.table_calls), Figure(cost.cpu_s, ".2f"), Figure(cost.wall_s, ".2f"))
