"""Alarms and the dashboard name what the code writes, and look at all there is of a kind. Each alarm has a runbook."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from infra import stage as stage_module
from infra.alarm_table import (
    ASYNCHRONOUS,
    DEAD_LETTER_QUEUES,
    NAMESPACE,
    RUNBOOKS,
    WAITED_FOR,
    Alarm,
    Each,
    alarms,
)
from infra.concurrency import USUAL_PLACES
from infra.dashboard_table import ROWS, Line
from infra.rollout_table import STEPS
from tests.docs import observed
from tests.docs.pages import REFERENCE, ROOT, anchor, code_files, code_words, headings, rows, section
from tests.infra.test_templates import of_type, properties, template
from tidegate.adapters.json_observer import JsonObserver
from tidegate.domain.limits import Outcome
from tidegate.domain.revocations import AGAIN_AFTER_S
from tidegate.domain.time_limits import FUNCTION_S
from tidegate.settings import Settings

ALL = alarms(Settings(), USUAL_PLACES)
OURS = [alarm for alarm in ALL if alarm.each is None]
RUNBOOKS_TEXT = (ROOT / RUNBOOKS).read_text()
LINES = [line for row in ROWS for graph in row.graphs for line in graph.lines]
SHOWN = [line for line in LINES if line.each is None]
TOPIC = "arn:aws:sns:eu-west-1:111122223333:on-call"


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return template("production")


def alarms_of(rendered: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those that tell somebody. An alarm of a new version stops its deployment, which tells whoever deploys."""
    found = properties(dict(rendered), "AWS::CloudWatch::Alarm")
    return [alarm for alarm in found if "-new-version-fails-" not in alarm["AlarmName"]]


@pytest.mark.parametrize("alarm", OURS, ids=lambda alarm: alarm.name)
def test_an_alarm_names_a_metric_that_the_code_writes_with_its_dimensions(alarm: Alarm) -> None:
    written = observed.metrics()
    assert alarm.metric in written, "no code counts it"
    assert set(alarm.where) <= written[alarm.metric].fields, "no code gives it such a dimension"
    assert alarm.most is (written[alarm.metric].method == "time"), "counts are summed, durations are not"


def test_values_of_dimensions_are_those_of_the_code() -> None:
    limiter = [alarm for alarm in OURS if alarm.where]
    assert {alarm.metric for alarm in limiter} == {"limiter"}
    assert [alarm.where for alarm in limiter] == [{"outcome": Outcome.BACKEND_ERROR}, {"outcome": Outcome.FAIL_OPEN}]


def test_the_namespace_is_that_of_the_observer() -> None:
    lines: list[str] = []
    observer = JsonObserver("s", "qa", write=lines.append)
    observer.count("faults")
    observer.flush()
    assert json.loads(lines[0])["_aws"]["CloudWatchMetrics"][0]["Namespace"] == NAMESPACE


def test_each_alarm_is_where_the_runbooks_begin() -> None:
    listed = {code_words(row[0])[0]: row for row in rows(section(RUNBOOKS_TEXT, "An alarm went off"))}
    assert set(listed) == {alarm.name for alarm in ALL}
    for alarm in ALL:
        assert f"](#{alarm.runbook})" in listed[alarm.name][2], alarm.name
        assert alarm.metric in code_words(listed[alarm.name][1]), alarm.name


def test_every_alarm_of_the_stack_says_where_its_runbook_is(made: dict[str, Any]) -> None:
    found = properties(made, "AWS::CloudWatch::Alarm")
    assert len(found) > len(alarms_of(made))
    for alarm in found:
        page, _, heading = alarm["AlarmDescription"].rpartition("Runbook: ")[2].partition("#")
        assert heading in {anchor(each) for each in headings((ROOT / page).read_text())}, alarm["AlarmName"]


def test_an_alarm_that_is_new_here_says_when_it_is_over() -> None:
    older = ("a-function-fails", "viewers-see-old-values-or-few-of-them", "subscriptions-are-not-ended")
    for heading in headings(RUNBOOKS_TEXT):
        if anchor(heading) in {alarm.runbook for alarm in ALL} - set(older):
            assert "It is over when" in " ".join(section(RUNBOOKS_TEXT, heading).split()), heading


def test_every_metric_of_ours_with_an_alarm_says_so_in_the_reference() -> None:
    page = (REFERENCE / "metrics-and-logs.md").read_text()
    described = {code_words(row[0])[0]: row[3] for row in rows(section(page, "Metrics"))}
    for alarm in OURS:
        assert f"alarm `{alarm.name}`" in described[alarm.metric], alarm.name


def metrics_of(alarm: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The metrics of the platform that an alarm looks at: name, and dimension -> value."""
    stats = [each["MetricStat"]["Metric"] for each in alarm.get("Metrics", []) if "MetricStat" in each]
    single = [alarm] if "MetricName" in alarm else []
    return [
        {"name": each["MetricName"], **{one["Name"]: one["Value"] for one in each.get("Dimensions", [])}}
        for each in (*stats, *single)
    ]


def ids_of(made: Mapping[str, Any], metric: str, dimension: str) -> list[str]:
    """Logical ids of what a metric is watched of."""
    found = [each[dimension] for alarm in alarms_of(made) for each in metrics_of(alarm) if each["name"] == metric]
    return [value.get("Ref") or value["Fn::GetAtt"][0] for value in found]


def functions_of(made: Mapping[str, Any]) -> dict[str, str]:
    """Name in `rollout_table` -> logical id."""
    found = {key: each for key, each in made["Resources"].items() if each["Type"] == "AWS::Lambda::Function"}
    named = {each["Properties"]["Environment"]["Variables"]["TIDEGATE_SERVICE"]: key for key, each in found.items()}
    return {name: named[name.lower()] for step in STEPS for name in step.functions}


def test_every_function_and_every_dead_letter_queue_is_watched(made: dict[str, Any]) -> None:
    functions = functions_of(made)
    assert sorted(ids_of(made, "Errors", "FunctionName")) == sorted(functions.values())
    assert ids_of(made, "Throttles", "FunctionName") == [functions[name] for name in WAITED_FOR]
    dead = {
        queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
        for queue in properties(made, "AWS::SQS::Queue")
        if "RedrivePolicy" in queue
    }
    assert set(ids_of(made, "ApproximateNumberOfMessagesVisible", "QueueName")) == dead


def test_events_are_dropped_of_what_is_called_asynchronously(made: dict[str, Any]) -> None:
    """Lambda drops them as the function's configuration says. So whatever has one is watched."""
    functions, configured = functions_of(made), properties(made, "AWS::Lambda::EventInvokeConfig")
    assert sorted(each["FunctionName"]["Ref"] for each in configured) == sorted(
        functions[name] for name in ASYNCHRONOUS
    )
    assert ids_of(made, "AsyncEventsDropped", "FunctionName") == [functions[name] for name in ASYNCHRONOUS]


def test_an_alarm_of_several_functions_adds_them_up(made: dict[str, Any]) -> None:
    for alarm in alarms_of(made):
        if len(looked_at := metrics_of(alarm)) > 1:
            (summed,) = [each for each in alarm["Metrics"] if each["ReturnData"] is not False]
            ids = [each["Id"] for each in alarm["Metrics"] if "MetricStat" in each]
            assert summed["Expression"] == f"SUM([{', '.join(f'FILL({each}, 0)' for each in ids)}])"
            assert len(looked_at) <= 10, "CloudWatch takes no more in one alarm"


def test_no_task_that_may_still_wait_is_told_of() -> None:
    """One that failed is queued again with a delay, and is then worked at."""
    (waits,) = [alarm for alarm in ALL if alarm.name == "revalidation-tasks-wait"]
    assert waits.above >= AGAIN_AFTER_S[-1] + FUNCTION_S["revalidate.worker"] > max(AGAIN_AFTER_S)
    assert f"older than {waits.above / 60:g} minutes" in waits.tells


def test_a_schedule_that_stops_is_told_of(made: dict[str, Any]) -> None:
    """Nothing is written then, so that missing values are the alarm. Of all others they are none."""
    missing = {alarm["AlarmName"]: alarm["TreatMissingData"] for alarm in alarms_of(made)}
    assert [name for name, treated in missing.items() if treated != "notBreaching"] == [
        "Tidegate-production-schedule-stopped"
    ]
    (alarm,) = [each for each in alarms_of(made) if each["TreatMissingData"] == "breaching"]
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("LessThanOrEqualToThreshold", 0)
    assert (alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"], alarm["Period"]) == (5, 5, 60)
    (schedule,) = properties(made, "AWS::Scheduler::Schedule")
    (function,) = ids_of(made, "Invocations", "FunctionName")
    alias = made["Resources"][schedule["Target"]["Arn"]["Ref"]]["Properties"]
    assert (alias["FunctionName"]["Ref"], schedule["ScheduleExpression"]) == (function, "rate(1 minutes)")


def test_a_query_is_one_that_cloudwatch_takes(made: dict[str, Any]) -> None:
    queries = {
        alarm["AlarmName"].removeprefix("Tidegate-production-"): alarm["Metrics"]
        for alarm in alarms_of(made)
        if "Metrics" in alarm and not metrics_of(alarm)
    }
    assert set(queries) == {alarm.name for alarm in OURS}
    for alarm in OURS:
        (query,) = queries[alarm.name]
        assert (query["Expression"], query["Period"], query["ReturnData"]) == (alarm.query("production"), 60, True)
    assert [alarm.query("qa") for alarm in OURS if alarm.name in ("limiter-store-down", "terminations-late")] == [
        "SELECT SUM(limiter) FROM \"Tidegate\" WHERE outcome = 'backend_error' AND stage = 'qa'",
        "SELECT MAX(commit_to_termination) FROM \"Tidegate\" WHERE stage = 'qa'",
    ]


def test_the_settings_of_the_stage_decide() -> None:
    def above(settings: Settings, places: int) -> Mapping[str, float]:
        return {alarm.name: alarm.above for alarm in alarms(settings, places)}

    given = above(Settings(max_sends_per_second=100, connect_rate_limit_ip_per_min=7), 50)
    assert given["send-quota-nearly-used"] == 0.8 * 100 * 60
    assert (given["handshakes-refused"], given["concurrency-nearly-used"]) == (7, 0.8 * 50)
    assert not [name for name in above(Settings(max_sends_per_second=0), 50) if "quota" in name or "give-way" in name]


def test_without_a_topic_nobody_is_told_and_with_one_of_the_end_too(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not [alarm for alarm in alarms_of(made) if "AlarmActions" in alarm]
    given = json.loads((stage_module.STAGES / "production.json").read_text())
    (tmp_path / "production.json").write_text(json.dumps({**given, "alarm_topic_arn": TOPIC}))
    monkeypatch.setattr(stage_module, "STAGES", tmp_path)
    told = alarms_of(template("production"))
    assert len(told) == len(alarms_of(made))
    assert all(alarm["AlarmActions"] == alarm["OKActions"] == [TOPIC] for alarm in told)


def test_the_emulator_has_none() -> None:
    local = template("local")
    assert not of_type(local, "AWS::CloudWatch::Alarm") and not of_type(local, "AWS::CloudWatch::Dashboard")


def test_one_row_makes_one_alarm_or_one_for_each(made: dict[str, Any]) -> None:
    names = [alarm["AlarmName"].removeprefix("Tidegate-production-") for alarm in alarms_of(made)]
    assert len(names) == len(set(names)) == sum(alarm.alarms for alarm in ALL)
    for alarm in ALL:
        made_of_row = [name for name in names if name == alarm.name or name.startswith(f"{alarm.name}-")]
        assert len(made_of_row) == alarm.alarms, alarm.name
    assert {f"function-fails-{step.name}" for step in STEPS} <= set(names)


def test_the_table_knows_how_many_metrics_are_looked_at(made: dict[str, Any]) -> None:
    """CloudWatch charges these, not alarms. Of a query the table says itself how many it reads."""
    assert len(set(ids_of(made, "ApproximateNumberOfMessagesVisible", "QueueName"))) == DEAD_LETTER_QUEUES
    for alarm in ALL:
        if alarm.each is None:
            assert alarm.reads >= 1
            continue
        of_row = [each for each in alarms_of(made) if each["AlarmDescription"] == alarm.description]
        assert sum(len(metrics_of(each)) for each in of_row) == alarm.metrics, alarm.name


def test_only_what_all_stages_share_has_no_dimension(made: dict[str, Any]) -> None:
    """The concurrency is the account's: a stage beside this one uses it up as well."""
    without = [each["name"] for alarm in alarms_of(made) for each in metrics_of(alarm) if each.keys() == {"name"}]
    assert without == ["ConcurrentExecutions"]
    (row,) = [alarm for alarm in ALL if alarm.metric in without]
    assert row.each is Each.ACCOUNT


# --- the dashboard ---------------------------------------------------------------------------------------------------


def body(rendered: Mapping[str, Any]) -> dict[str, Any]:
    """The dashboard, with `<logical id>` for what the deployment puts in."""
    (dashboard,) = properties(dict(rendered), "AWS::CloudWatch::Dashboard")
    parts = dashboard["DashboardBody"]["Fn::Join"][1]
    found: dict[str, Any] = json.loads("".join(part if isinstance(part, str) else _named(part) for part in parts))
    return found


def _named(reference: Mapping[str, Any]) -> str:
    return f"<{reference['Ref'] if 'Ref' in reference else reference['Fn::GetAtt'][0]}>"


def graphs(rendered: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What is known of each graph."""
    return (each["properties"] for each in body(rendered)["widgets"] if each["type"] == "metric")


@pytest.mark.parametrize("line", SHOWN, ids=lambda line: line.label)
def test_a_line_names_a_metric_that_the_code_writes_with_its_dimensions(line: Line) -> None:
    written = observed.metrics()
    assert line.metric in written, "no code counts it"
    assert set(line.where) <= written[line.metric].fields, "no code gives it such a dimension"
    assert line.most is (written[line.metric].method == "time"), "counts are summed, durations are not"


def test_values_of_dimensions_of_lines_are_those_of_the_code() -> None:
    code = "".join(file.read_text() for file in code_files())
    assert not [value for line in SHOWN for value in line.where.values() if f'"{value}"' not in code]


def test_the_dashboard_has_a_graph_for_each_of_the_table(made: dict[str, Any]) -> None:
    shown = [graph["title"] for graph in graphs(made)]
    assert shown == [graph.title for row in ROWS for graph in row.graphs] and len(shown) == len(set(shown))
    for graph, listed in zip(graphs(made), (graph for row in ROWS for graph in row.graphs), strict=True):
        ours = [each[0]["expression"] for each in graph["metrics"] if "expression" in each[0]]
        assert ours == [line.search("production") for line in listed.lines if line.each is None], graph["title"]
        platform = {each[1] for each in graph["metrics"] if "expression" not in each[0]}
        assert platform == {line.metric for line in listed.lines if line.each is not None}, graph["title"]
    assert Line("limiter", {"outcome": "rejected"}).search("qa") == (
        'SUM(SEARCH(\'Namespace="Tidegate" MetricName="limiter" outcome="rejected" stage="qa"\', \'Sum\'))'
    )


def test_the_dashboard_shows_every_function_and_every_queue(made: dict[str, Any]) -> None:
    text = json.dumps(body(made))
    for kind in ("AWS::Lambda::Function", "AWS::SQS::Queue"):
        for logical, resource in made["Resources"].items():
            assert resource["Type"] != kind or f"<{logical}>" in text, logical


def test_the_dashboard_begins_with_the_alarms_and_shows_what_each_looks_at(made: dict[str, Any]) -> None:
    first = body(made)["widgets"][0]
    count = sum(alarm.alarms for alarm in alarms(Settings(), USUAL_PLACES))
    assert first["type"] == "alarm" and len(first["properties"]["alarms"]) == count
    shown = {line.metric for line in LINES}
    assert not [alarm.name for alarm in alarms(Settings(), USUAL_PLACES) if alarm.metric not in shown]


def test_there_is_one_dashboard_and_an_output_names_it(made: dict[str, Any]) -> None:
    assert len(of_type(made, "AWS::CloudWatch::Dashboard")) == 1
    assert (
        made["Outputs"]["DashboardName"]["Value"] == properties(made, "AWS::CloudWatch::Dashboard")[0]["DashboardName"]
    )


def test_the_page_says_what_the_dashboards_rows_show() -> None:
    text = section(RUNBOOKS_TEXT, "The dashboard in CloudWatch")
    assert [row[0] for row in rows(text)] == [row.title for row in ROWS]
