from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from benchmarks import ceiling
from benchmarks.ceiling import Cost
from benchmarks.sender import taking_turns


def turns_of(*costs: tuple[float, float]) -> Callable[[], Cost]:
    found: Iterator[tuple[float, float]] = iter(costs)
    return lambda: Cost(*next(found))


def test_a_ratio_is_that_of_each_turn_and_the_first_is_not_counted() -> None:
    # The machine is three times slower in the second of the turns that count, for both.
    ours = turns_of((1000, 1), (10, 900), (30, 300), (10, 900))
    theirs = turns_of((1, 1000), (400, 90), (1200, 30), (500, 100))
    found = taking_turns(ours, theirs, 3)
    assert (found.ours, found.theirs) == (Cost(10, 900), Cost(500, 90))
    assert (found.cpu_ratio, found.rate_ratio) == (40, 10)


def test_what_is_missing_is_named_and_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == "wrk" else f"/usr/bin/{name}")
    assert ceiling.missing().startswith("Not installed: wrk. On Debian and Ubuntu")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert ceiling.missing() == ""
