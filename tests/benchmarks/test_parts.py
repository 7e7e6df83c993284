"""Every part of `make bench` runs at its small size, from the command line, and says what it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import PARTS, RESULTS
from benchmarks.cold import HANDLERS

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.full


def measured(part: str) -> Mapping[str, Any]:
    """The JSON result of one part at its small size."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    env["PYTHONPATH"] = f"{ROOT / 'layers/tidegate/python'}:{ROOT}"
    command = [sys.executable, "-m", "benchmarks", "--small", "--json", part]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    (result,) = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def rows(result: Mapping[str, Any], table: int = 0) -> dict[str, list[Any]]:
    """First cell -> the others, of one table."""
    return {row[0]: row[1:] for row in result["tables"][table]["rows"]}


def test_every_part_has_a_test_here() -> None:
    tested = {name.removeprefix("test_part_") for name in globals() if name.startswith("test_part_")}
    assert tested == set(PARTS)


def test_part_cold() -> None:
    kept = sorted((file, file.stat().st_mtime) for file in RESULTS.iterdir())
    result = measured("cold")
    figures = rows(result)
    yardstick = figures.pop("boto3 with a DynamoDB client")
    assert set(figures) == {handler.module for handler in HANDLERS}
    for module, (alone_ms, ratio, built_ms, _, aim, modules) in figures.items():
        assert alone_ms > 0 and ratio == pytest.approx(alone_ms / yardstick[0]), module
        assert aim in ("", 0.40) and modules > 20, module
        if module.startswith("functions.gateway_connect"):
            # Every time is of one run beside other tests, so no more is asked of it than that.
            assert alone_ms < yardstick[0] and built_ms < yardstick[0], module
    assert figures["functions.gateway_connect.disconnect"][-1] < figures["functions.gateway_connect.messages"][-1]
    # Where, when and how it was measured; and a small run leaves no result.
    assert result["size"] == "small" and result["part"] == "cold"
    assert result["cores"] >= 1 and result["load_before"] >= 0 and result["load_after"] >= 0
    assert result["python"].split(".")[0] == "3" and result["date"].endswith("+00:00")
    assert kept == sorted((file, file.stat().st_mtime) for file in RESULTS.iterdir())


def test_part_sender() -> None:
    result = measured("sender")
    for table in range(3):
        figures = rows(result, table)
        assert set(figures) == {"bulk sender", "boto3, 32 threads", "ratio"}
        assert figures["bulk sender"][0] < figures["boto3, 32 threads"][0]


def test_part_relay() -> None:
    result = measured("relay")
    through, shared, conflated, quiet = result["tables"]
    assert {row[0] for row in through["rows"]} == {"sse", "mqtt"}
    assert all(row[4] > 0 and row[5] > 0 for row in through["rows"])  # deliveries, and CPU of each
    assert all(row[1:] == [1, 1] for row in shared["rows"])  # one upstream for all viewers
    assert all(rate <= 7 for rate in conflated["rows"][0][1:])  # of a hundred a second, with a cap of five
    assert conflated["notes"]
    assert [row[3] for row in quiet["rows"]] == [2, 5, 2, 5]


def test_part_revocation() -> None:
    result = measured("revocation")
    figures = rows(result)
    # The cost of a termination is that of the affected: who else is there does not matter.
    assert figures["ratio"][0] == 1
    assert figures["20 affected among 20"][0] == figures["20 affected among 300"][0] > 20
    assert rows(result, 1)["40 viewers, one worker"][0] > 40


def test_part_session() -> None:
    (table,) = measured("session")["tables"]
    phases = [table["rows"][start : start + 4] for start in range(0, len(table["rows"]), 4)]
    assert [rows[0][0] for rows in phases] == [
        "first tokens",
        "first subscribes",
        "refresh: tokens",
        "refresh: subscribes",
    ]
    for asked, *costs in phases:
        assert asked[1:] == [20, 2, 10.0]  # two viewers of ten datasources
        assert all(one_by_one > together > 0 for _, one_by_one, together, _ in costs)
    # Exact: what a process remembers, and the budget of messages, are the same in every run.
    assert phases[0][1][1:3] == [120, 8] and phases[1][1][1:3] == [320, 104]


def test_part_crowd() -> None:
    figures = rows(measured("crowd"))
    one, bridge, whole = (figures[name] for name in ("one sender for all", *_OF_PARTS))
    assert one[0] == whole[0] == 300 and bridge[0] == 0
    # A part holds what it sends to, and not the whole audience.
    assert figures["part of shard 0"][0] < 100 and figures["part of shard 0"][3] > 0
    assert bridge[7] == 1 and one[7] == 0  # calls of SQS


_OF_PARTS = ("bridge, which asks for the parts", "bridge and all parts")


def test_part_quota() -> None:
    result = measured("quota")
    delays, traffic = rows(result), rows(result, 1)
    for kind in ("device, by the bridge", "upstream, by the same relay"):
        for name in ("alone", "beside the crowd", "beside a device's crowd"):
            values, missing, median, p99, most = delays[f"{kind}: {name}"]
            # On a starved machine a value comes so late that the next one takes its place.
            assert 0 <= missing < values / 2 and 0 <= median <= p99 <= most
    for crowd, unpaced in (("the crowd", "it"), ("a device's crowd", "that")):
        wanted, got, gave_way, _, _, most, _, throttled = traffic[f"beside {crowd}"]
        assert wanted == 600 and 0 < got < wanted and gave_way > 0, "there was a shortage"
        # A second touches eleven windows of 20 sends, and has what was granted just before.
        assert throttled == 0 and most <= 12 * 20
        assert traffic[f"beside {unpaced}, no quota"][7] > 0, "the same without the quota is what the platform refuses"


def test_part_history() -> None:
    result = measured("history")
    devices, relay, reads, subscribes, catch_ups = (rows(result, table) for table in range(5))
    for name, figures in {**devices, **relay, **subscribes, **catch_ups}.items():
        if name.startswith("without"):
            assert figures[-3:] == [0, 0, 0], "who asks for no history pays nothing"
    assert devices["with one"][-3::2] == [1, 1], "a value is one write more"
    assert relay["with one"][-1] == 1, "a series of five seconds is one write"
    assert all(figures[0] == 1 and figures[-3] == 1 for figures in reads.values()), "one answer, one query"
    assert subscribes["with one, since, 6 values came"][-3] == catch_ups["with one, since, 6 values came"][-3] == 1


def test_part_push() -> None:
    ((_, first, median, p95, last),) = measured("push")["tables"][0]["rows"]
    assert 0 <= first <= median <= p95 <= last


def test_part_board() -> None:
    (row,) = rows(measured("board")).values()
    updates, core, task_ms, heap_mib = row
    assert 20 <= updates <= 60 and core > 0 and task_ms >= 0 and 1 < heap_mib < 50
