"""The smoke run as people and scripts see it: a line a row as it ends, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pytest

from local_stack import show
from local_stack.config import StackError
from local_stack.smoke.stack import read_stack

FOLDER = Path(__file__).parent
#: Characters of what a row that failed says; the rest is in the log.
_DETAIL = 300


@dataclass(slots=True)
class Row:
    """One row. `seconds`: of the check itself, without what is made ready before and cleaned up after it."""

    name: str
    passed: bool = True
    seconds: float = 0.0
    detail: str = ""
    log: list[str] = field(default_factory=list)


class Table:
    """A pytest plug-in that prints a line a row in place of pytest's own report.

    Attributes:
        rows: those that ended.
        latencies_ms: milliseconds from publish to receive, of the row that measures them.
        problems: what kept rows from running at all, such as a module that cannot be imported.
    """

    def __init__(self, out: TextIO, *, only: str | None = None, quick: bool = False) -> None:
        """`only`: the name of the one row to run, or a part of it. `quick` leaves slow rows out."""
        self._out, self._only, self._quick = out, only, quick
        self._names: dict[str, str] = {}
        self._current: Row | None = None
        self.rows: list[Row] = []
        self.latencies_ms: list[float] = []
        self.problems: list[str] = []
        self.known: list[str] = []

    # --- which rows ---------------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        marks = {item: mark for item in items if (mark := item.get_closest_marker("row")) is not None}
        self._names = {item.nodeid: str(mark.args[0]) for item, mark in marks.items()}
        self.known = list(self._names.values())
        exact = self._only in self.known
        chosen = []
        for item, mark in marks.items():
            name = str(mark.args[0])
            if self._only is not None:
                wanted = name == self._only if exact else self._only.lower() in name.lower()
            else:
                wanted = not (self._quick and mark.kwargs["slow"])
            if wanted:
                chosen.append(item)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen

    # --- how they end -------------------------------------------------------------------------------------

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.problems.append(report.longreprtext)

    def pytest_internalerror(self, excrepr: object) -> None:
        self.problems.append(str(excrepr))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._current = Row(self._names[nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = self._current
        assert row is not None
        said = dict(report.user_properties)
        if report.when == "call":
            row.seconds = report.duration
            row.detail = str(said.get("detail", ""))
            self.latencies_ms += [float(str(each)) for each in _listed(said.get("latencies_ms"))]
        if report.failed:
            row.passed = False
            row.detail = str(said.get("failure", report.longreprtext))[:_DETAIL]
            row.log.append(report.longreprtext)
        elif report.skipped:
            row.passed, row.detail = False, "skipped, which no row may be"

    def pytest_runtest_logfinish(self) -> None:
        row = self._current
        assert row is not None
        self.rows.append(row)
        mark = show.green("  ok") if row.passed else show.red("fail")
        detail = f"  ({row.detail})" if row.detail else ""
        print(f"  {mark} {row.seconds:6.2f} s  {row.name}{detail}", file=self._out, flush=True)


def run_smoke(
    stack_file: Path, log: Path, *, only: str | None = None, quick: bool = False, as_json: bool = False
) -> int:
    """Run rows against a stack and show them as they end; 0 when all passed.

    Args:
        stack_file: the stack's `stack.json`.
        log: folder for `smoke.log`, which has the tracebacks of rows that failed.
        only: the name of the one row to run, or a part of it.
        quick: leave slow rows out.
        as_json: print one line of JSON on standard output; the table goes to standard error.

    Raises `StackError` when there is no such stack or row.
    """
    read_stack(stack_file)
    table = Table(sys.stderr if as_json else sys.stdout, only=only, quick=quick)
    code = _run([f"--stack={stack_file}"], table)
    if not table.rows and not table.problems:
        if not table.known:
            raise StackError(f"The smoke run did not begin: pytest ended with {code}.")
        raise StackError(f"No row is called {only!r}. Rows: {'; '.join(table.known)}.")
    failed = [row for row in table.rows if not row.passed]
    for problem in table.problems:
        print(problem, file=sys.stderr)
    ok = not failed and not table.problems
    if as_json:
        print(json.dumps({"ok": ok, "rows": [_as_json(row) for row in table.rows], "latencies_ms": table.latencies_ms}))
    else:
        print(f"  {len(table.rows) - len(failed)} of {len(table.rows)} checks passed")
    if failed:
        log.mkdir(parents=True, exist_ok=True)
        (log / "smoke.log").write_text("\n\n".join(f"{row.name}\n{text}" for row in failed for text in row.log) + "\n")
        print(f"  tracebacks: {log / 'smoke.log'}", file=sys.stderr)
    return 0 if ok else 1


def _run(arguments: Sequence[str], table: Table) -> int:
    """pytest without its own report, and without this project's options for tests. Returns its exit code."""
    plain = ["-o", "addopts=", "--import-mode=importlib", "--strict-markers", "--capture=no"]
    plain += ["-p", "no:terminal", "-p", "no:cacheprovider"]
    # `integration` has imported libraries by now that bring plug-ins: their assertions are of no interest here.
    plain += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return pytest.main([*plain, *arguments, str(FOLDER)], plugins=[table])


def _as_json(row: Row) -> dict[str, Any]:
    return {"name": row.name, "ok": row.passed, "seconds": row.seconds, "detail": row.detail}


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()
