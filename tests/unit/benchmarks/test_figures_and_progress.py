"""What the bench prints and keeps."""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.figures import Circumstances, Figure, Result, Table, circumstances
from benchmarks.progress import for_all, step

TABLE = Table(
    ("path", "calls", "ratio"),
    [("one", Figure(5009), Figure(1.0, ".2f")), ("none", "", "")],
    ("calls are exact",),
)


def test_a_table_shows_figures_in_their_format() -> None:
    lines = TABLE.text().splitlines()
    assert [line.split() for line in lines] == [
        ["path", "calls", "ratio"],
        ["one", "5,009", "1.00"],
        ["none"],
        ["calls", "are", "exact"],
    ]


def test_json_has_numbers() -> None:
    assert TABLE.json() == {
        "columns": ["path", "calls", "ratio"],
        "rows": [["one", 5009, 1.0], ["none", "", ""]],
        "notes": ["calls are exact"],
    }


def test_a_result_states_where_and_when() -> None:
    around = Circumstances(datetime(2026, 1, 2, 3, 4, tzinfo=UTC), 2, 0.5, 1.25)
    text = Result("cold", False, around, [TABLE]).text()
    head = text.splitlines()[0]
    assert "2026-01-02 03:04 UTC" in head and "2 cores" in head and "load 0.50 before and 1.25 after" in head
    assert "Python 3." in head and "small" not in text
    made = json.loads(json.dumps(Result("cold", True, around, [TABLE]).json()))
    assert (made["part"], made["size"], made["cores"], made["load_after"]) == ("cold", "small", 2, 1.25)


def test_a_small_result_says_that_its_figures_mean_nothing() -> None:
    assert "small size" in Result("cold", True, circumstances(), []).text()


def test_a_part_that_was_left_out_keeps_what_was_measured_before(tmp_path: Path) -> None:
    around = circumstances()
    Result("board", False, around, [Table(("left out: there is no browser",), ())]).keep(tmp_path / "results")
    assert not list(tmp_path.iterdir())
    measured = Result("board", False, around, [TABLE])
    measured.keep(tmp_path)
    Result("board", False, around, [Table(("left out: there is no browser",), ())]).keep(tmp_path)
    assert (tmp_path / "board.txt").read_text() == measured.text()
    assert json.loads((tmp_path / "board.json").read_text()) == measured.json()


def test_a_step_shows_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    printed, go_on = threading.Event(), threading.Event()

    def listen() -> None:
        text = ""
        while "3 of 9" not in text and not go_on.wait(0.01):
            text += capsys.readouterr().out
        printed.set()

    with step("loading", 9, every_s=0.02) as progress:
        progress.advance(3)
        listener = threading.Thread(target=listen)
        listener.start()
        assert printed.wait(10)
        progress.advance(6)
    listener.join()
    assert re.fullmatch(r" +ok +\d+\.\d s  loading: 9 of 9", capsys.readouterr().out.splitlines()[-1])


def test_a_failed_step_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="full"), step("loading"):
        raise ValueError("full")
    assert capsys.readouterr().out.split()[0] == "fail"


def test_work_for_all_is_counted_and_its_failure_raised(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[int] = []
    for_all("loading", done.append, range(20), 20)
    assert sorted(done) == list(range(20)) and "20 of 20" in capsys.readouterr().out

    def refuse(number: int) -> None:
        if number == 7:
            raise ValueError("seven")

    with pytest.raises(ValueError, match="seven"):
        for_all("loading", refuse, range(20), 20)
