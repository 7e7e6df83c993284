"""The drill: every call on real handlers while a table of the store fails in every way, and after it has recovered.

Each answer is compared with `expected.py`, and `make test` prints them all. What fails is "could not be checked", never
"denied", and nobody remembers it: the same processes answer as usual as soon as the store does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock

import pytest

from fixtures.faulty_aws import Fault
from tests.drill.expected import CAUSES, LIMITER, MINTS, NEEDED_BY, NORMAL, limiter_answer, store_answer
from tests.drill.printed import COLUMNS, LEGEND, Cells, aligned, rows
from tests.drill.scene import Made, Notes, Scene, make, noting
from tests.servers.management import ManagementServer
from tidegate import tables

MODES = ("fail-closed", "fail-open")
#: `GATEWAY_LIMITER_TIMEOUT_MS` by default, seconds.
LIMITER_S = 3.0
#: Attempts of one operation, see `json_client`. One on a kept-alive connection that was reset is made again.
MOST_ATTEMPTS = 2 * 4
#: How often a fault is played again that was judged wrongly on a machine that is slow. Nobody can tell a store that is
#: well from one that hangs if each keeps an operation longer than the product waits.
MOST_ROUNDS = 5
#: One fault of each kind, and two of the kind that has least in common.
EACH_KIND = (*(faults[0] for faults in COLUMNS.values()), Fault.OTHER_ITEM)
#: The tables whose failure is no business of the failure mode.
OTHERS = [table for table in tables.ALL_TABLES if table.name in NEEDED_BY]


@dataclass(frozen=True, slots=True)
class Column:
    """What is broken, which calls are made meanwhile, and what they are to answer."""

    mode: str
    failing: Sequence[tables.Table]
    calls: Sequence[str]
    expected: Callable[[str, Fault], str]
    faults: Sequence[Fault] = tuple(Fault)


@dataclass
class Drill:
    """Plays faults on one deployment."""

    made: Made
    platform: ManagementServer
    notes: Notes
    emulator: Lock = field(default_factory=Lock)

    def play(self, column: Column) -> tuple[Cells, list[str]]:
        """The answers to all faults, of the same processes, and what was wrong."""
        scene = Scene(self.made, self.platform, self.emulator, mode=column.mode)
        cells: dict[Fault, Mapping[str, str]] = {}
        wrong: list[str] = []
        try:
            for fault in column.faults:
                for _ in range(MOST_ROUNDS):
                    cells[fault], found, slow = self._play(scene, fault, column)
                    if not found or not slow:
                        break
                names = ", ".join(table.name for table in column.failing)
                wrong += [f"{names}, {fault}, {column.mode}: {each}" for each in found]
        finally:
            scene.close()
        return cells, wrong

    def _play(self, scene: Scene, fault: Fault, column: Column) -> tuple[Mapping[str, str], list[str], bool]:
        """Break the tables, make the calls, mend the tables, make the same calls again.

        Returns the answers, what was wrong, and whether the machine was so slow that this says nothing.
        """
        notes, name = self.notes, scene.name
        calls = scene.prepared(column.calls)
        notes.forget(name)
        for table in column.failing:
            scene.break_down(fault, table)
        answers = answers_of(calls, at_once=True)
        scene.proxy.heal()
        wrong = [f"{call}: {answer}" for call, answer in answers.items() if answer != column.expected(call, fault)]
        wrong += counted_wrongly(notes, name, fault, column)
        wrong += too_long(notes, name, self.made.env[tables.LIMITERS.variable])
        if (attempts := scene.proxy.failed.total()) > MOST_ATTEMPTS * len(notes.asked[name]):
            wrong.append(f"{attempts} attempts")
        scene.proxy.failed.clear()
        failing = {self.made.env[table.variable] for table in column.failing}
        slow = any(asked.late and failing.isdisjoint(asked.tables) for asked in notes.asked[name])
        notes.forget(name)
        again = answers_of(calls, at_once=False)
        slow |= any(asked.late for asked in notes.asked[name])
        wrong += [f"{call}, afterwards: {answer}" for call, answer in again.items() if answer != NORMAL[call]]
        wrong += [f"counted afterwards: {each}" for each in notes.limiter(name) if each.outcome != "allowed"]
        return answers, wrong, slow


def answers_of(calls: Mapping[str, Callable[[], str]], *, at_once: bool) -> dict[str, str]:
    """What the calls answer, one after the other, or all in the time that one of them waits."""
    with ThreadPoolExecutor(len(calls) if at_once else 1) as pool:
        return dict(zip(calls, pool.map(lambda call: call(), calls.values()), strict=True))


def counted_wrongly(notes: Notes, scene: str, fault: Fault, column: Column) -> Iterator[str]:
    """Where the metrics do not say what failed, and what the failure mode made of it."""
    if faults := notes.count(scene, "faults"):
        yield f"{faults} faults of ours: {notes.faults(scene)}"
    counted = {(each.scope, each.outcome, each.cause) for each in notes.limiter(scene) if each.outcome != "allowed"}
    expected = dict(to_be_counted(fault, column)) if tables.LIMITERS in column.failing else {}
    certain = {each for each, sure in expected.items() if sure}
    if wrong := (counted - set(expected)) | (certain - counted):
        yield f"counted wrongly: {sorted(wrong)}"


def to_be_counted(fault: Fault, column: Column) -> Iterator[tuple[tuple[str, str, str], bool]]:
    """Scope, outcome and cause of the decisions of all calls, and whether they are certain."""
    for scope in {scope for call in column.calls for scope in LIMITER[call].scopes if fault is Fault.HANG}:
        # A store that hangs may have taken all the time there is from whoever asks next.
        yield (scope, "backend_error", CAUSES[fault]), False
        yield (scope, "backend_error", "limiter_timeout"), False
    for scope in {scope for call in column.calls for scope in LIMITER[call].scopes if fault is not Fault.FLOODED}:
        # Tries that go on until time is over may be cut off in the midst of the last one.
        yield (scope, "backend_error", CAUSES[Fault.HANG]), False
    for call in column.calls:
        for number, scope in enumerate(LIMITER[call].scopes):
            if fault is Fault.FLOODED:
                yield (scope, "rejected", ""), True
            else:
                if fault is not Fault.HANG or not number:
                    yield (scope, "backend_error", CAUSES[fault]), True
                yield (scope, column.mode.replace("-", "_"), ""), True
            if fault is Fault.FLOODED or column.mode == "fail-closed":
                break  # a call that is refused asks for nothing more


def too_long(notes: Notes, scene: str, limiters: str) -> Iterator[str]:
    """Where an operation on the limiters table was given more time than the operations before it have left."""
    left_s: dict[str, float] = {}
    for asked in notes.asked[scene]:
        if limiters in asked.tables:
            left = left_s.get(asked.call, LIMITER_S)
            if asked.given_s is None or asked.given_s > left + 1e-6:
                yield f"{asked.call}: {asked.given_s} s were given, and {left} s were left"
            left_s[asked.call] = left - asked.took_s


@pytest.fixture(scope="module")
def drill(moto_url: str) -> Iterator[Drill]:
    from tests.deployment import PATIENT, as_patient_as_the_product, deployment

    platform = ManagementServer()
    env = {name: value for name, value in deployment(moto_url).items() if name not in PATIENT}
    try:
        with noting() as notes, as_patient_as_the_product():
            yield Drill(make(env), platform, notes)
    finally:
        platform.close()


def played(drill: Drill, columns: Mapping[str, Column], record: Callable[[str, object], None]) -> None:
    """Play all columns side by side, and have each printed under its head."""
    with ThreadPoolExecutor(len(columns)) as pool:
        results = list(pool.map(drill.play, columns.values()))
    record(
        "drill", aligned([row for head, (cells, _) in zip(columns, results, strict=True) for row in rows(head, cells)])
    )
    wrong = [each for _, found in results for each in found]
    assert not wrong, "\n".join(wrong)


def test_the_limiters_table_fails(drill: Drill, record_property: Callable[[str, object], None]) -> None:
    record_property("drill", LEGEND)

    def column(mode: str) -> Column:
        return Column(mode, [tables.LIMITERS], list(LIMITER), lambda call, fault: limiter_answer(call, fault, mode))

    played(drill, {f"limiters, {mode}": column(mode) for mode in MODES}, record_property)


def test_another_table_fails(drill: Drill, record_property: Callable[[str, object], None]) -> None:
    def column(table: tables.Table) -> Column:
        calls = NEEDED_BY[table.name]
        return Column(
            "fail-closed", [table], calls, lambda call, fault: store_answer(call, fault, table.name), EACH_KIND
        )

    columns = {table.name: column(table) for table in OTHERS}
    # What the limiter refuses is recorded there, and the refusal stands when it cannot be.
    columns["limiters, audit"] = Column(
        "fail-closed",
        [tables.LIMITERS, tables.AUDIT],
        MINTS,
        lambda call, fault: limiter_answer(call, fault, "fail-closed"),
        EACH_KIND,
    )
    played(drill, columns, record_property)
