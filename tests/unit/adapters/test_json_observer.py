"""What CloudWatch is given to read: one JSON object a line, within the limits of the embedded metric format."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidegate.adapters.json_observer import JsonObserver


class Lines:
    """The lines an observer wrote, parsed."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.observer = JsonObserver("bridge", "qa", write=self.written.append)

    def parsed(self) -> list[dict[str, Any]]:
        assert all(line.endswith("\n") and line.count("\n") == 1 for line in self.written)
        return [json.loads(line) for line in self.written]


@pytest.fixture
def lines() -> Lines:
    return Lines()


def test_a_log_line_has_its_level_caller_and_fields(lines: Lines) -> None:
    lines.observer.info("device message", received=3, body=b"\xff")
    (line,) = lines.parsed()
    assert line["level"] == "INFO" and line["message"] == "device message" and line["service"] == "bridge"
    assert line["received"] == 3 and line["body"] == "b'\\xff'"
    assert line["location"].startswith("test_a_log_line_has_its_level_caller_and_fields:")
    assert line["timestamp"].endswith("Z") and len(line["timestamp"]) == len("2026-01-01T00:00:00.000Z")


def test_a_fault_carries_its_traceback_on_one_line(lines: Lines) -> None:
    try:
        raise ValueError("line one\nline two")
    except ValueError as error:
        lines.observer.fault("it broke", error, shard=1)
    (line,) = lines.parsed()
    assert line["level"] == "ERROR" and line["exception_name"] == "ValueError" and line["shard"] == 1
    assert "Traceback" in line["exception"] and "line two" in line["exception"]


def test_counts_leave_once_summed_one_line_per_set_of_dimensions(lines: Lines) -> None:
    lines.observer.count("limiter", scope="ip", outcome="allowed")
    lines.observer.count("limiter", 2, outcome="allowed", scope="ip")
    lines.observer.count("device_messages")
    assert lines.written == []
    lines.observer.flush()
    lines.observer.flush()
    limiter, plain = lines.parsed()
    assert limiter["limiter"] == 3 and limiter["scope"] == "ip" and limiter["service"] == "bridge"
    assert limiter["stage"] == "qa"
    about = limiter["_aws"]["CloudWatchMetrics"][0]
    assert about["Namespace"] == "Tidegate" and about["Metrics"] == [{"Name": "limiter", "Unit": "Count"}]
    assert sorted(about["Dimensions"][0]) == ["outcome", "scope", "service", "stage"]
    assert plain["device_messages"] == 1 and plain["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [
        ["service", "stage"]
    ]
    assert isinstance(plain["_aws"]["Timestamp"], int)


def test_a_line_holds_at_most_a_hundred_metrics_or_samples(lines: Lines) -> None:
    for number in range(150):
        lines.observer.count(f"metric_{number}")
        lines.observer.time("commit_to_termination", float(number))
    lines.observer.flush()
    counts = [line for line in lines.parsed() if line["_aws"]["CloudWatchMetrics"][0]["Metrics"][0]["Unit"] == "Count"]
    assert [len(line["_aws"]["CloudWatchMetrics"][0]["Metrics"]) for line in counts] == [100, 50]
    samples = [line["commit_to_termination"] for line in lines.parsed() if line not in counts]
    assert [len(some) for some in samples] == [100, 50] and samples[1][-1] == 149.0


def test_standard_output_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    JsonObserver("api", "qa").warning("careful")
    assert json.loads(capsys.readouterr().out)["message"] == "careful"


def test_every_line_says_what_it_is_about_until_something_else_begins(lines: Lines) -> None:
    lines.observer.begin(request_id="one", connection_id="c")
    lines.observer.about(dashboard="d")
    lines.observer.info("message", connection_id="of the line")
    lines.observer.count("messages_in")
    lines.observer.flush()
    lines.observer.warning("after a flush")
    lines.observer.begin(request_id="two")
    lines.observer.fault("it broke", ValueError())
    message, metric, after, other = lines.parsed()
    assert (message["request_id"], message["dashboard"], message["connection_id"]) == ("one", "d", "of the line")
    assert "request_id" not in metric, "it would be no dimension, and is in no log that is looked through for it"
    assert (after["request_id"], after["connection_id"]) == ("one", "c"), "a relay worker flushes while it works"
    assert other["request_id"] == "two" and not {"connection_id", "dashboard"} & other.keys()
