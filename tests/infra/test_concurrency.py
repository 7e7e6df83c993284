"""Every event source has a bound, and every queue waits long enough: of all that a template has, not of a list."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from infra import concurrency
from infra import stage as stage_module
from tests.infra.test_stage_files import problem, stage, stages
from tests.infra.test_templates import of_type, properties, template
from tidegate.domain.time_limits import FUNCTION_S

__all__ = ["stages"]

#: A new account's places, and some that others may have.
PLACES = (10, 50, 100, 199, 200, 1000, 5000)
BATCHED = {"REALTIME_MQTT_BATCHED_TOPICS": "staging/#"}


@pytest.fixture(scope="module", params=["production", "staging", "local"])
def made(request: pytest.FixtureRequest) -> dict[str, Any]:
    return template(request.param, **({"settings": BATCHED} if request.param == "staging" else {}))


def sources(rendered: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]]:
    """Every event source: itself, its queue (None for a stream) and its function."""
    found = []
    for source in properties(rendered, "AWS::Lambda::EventSourceMapping"):
        of = rendered["Resources"][source["EventSourceArn"]["Fn::GetAtt"][0]]
        assert of["Type"] in ("AWS::SQS::Queue", "AWS::DynamoDB::Table"), "a new kind needs a bound of its own"
        function = _function(rendered, source["FunctionName"])
        found.append((source, of["Properties"] if of["Type"] == "AWS::SQS::Queue" else None, function["Properties"]))
    assert len(found) >= 6
    return found


def _function(rendered: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """The function that a reference is of, whether to it or to its alias."""
    named = [name for name in re.findall(r'"(\w+)"', json.dumps(reference)) if name in rendered["Resources"]]
    found: dict[str, Any] = rendered["Resources"][named[0]]
    if found["Type"] == "AWS::Lambda::Alias":
        return _function(rendered, found["Properties"]["FunctionName"])
    assert found["Type"] == "AWS::Lambda::Function"
    return found


def test_every_event_source_has_a_bound(made: dict[str, Any]) -> None:
    for source, queue, _ in sources(made):
        if queue is None:
            assert source["ParallelizationFactor"] == 1, "a shard has one invocation"
        else:
            bound = source["ScalingConfig"]["MaximumConcurrency"]
            assert concurrency.LEAST <= bound <= concurrency.MOST


def test_every_queue_waits_six_times_as_long_as_its_function_may_run(made: dict[str, Any]) -> None:
    for source, queue, function in sources(made):
        if queue is None:
            continue
        run_s = function["Timeout"] + source.get("MaximumBatchingWindowInSeconds", 0)
        assert queue["VisibilityTimeout"] >= 6 * run_s, function["Handler"]
        assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_throttling_makes_no_message_dead_that_is_still_of_use(made: dict[str, Any]) -> None:
    """A receive is used up by an invocation that was throttled for a whole visibility timeout, without a try. Messages
    that live for minutes are as good as dead by then; others survive an hour in which nothing runs."""
    for _, queue, function in sources(made):
        if queue is None:
            continue
        survived_s = queue["RedrivePolicy"]["maxReceiveCount"] * queue["VisibilityTimeout"]
        lives_s = queue.get("MessageRetentionPeriod", 4 * 86400)
        assert survived_s >= min(3600, lives_s / 2), function["Handler"]


def test_every_queue_has_a_consumer_or_takes_dead_letters(made: dict[str, Any]) -> None:
    consumed = {
        source["EventSourceArn"]["Fn::GetAtt"][0] for source in properties(made, "AWS::Lambda::EventSourceMapping")
    }
    dead = {
        queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
        for queue in properties(made, "AWS::SQS::Queue")
        if "RedrivePolicy" in queue
    }
    all_of_them = {name for name, each in made["Resources"].items() if each["Type"] == "AWS::SQS::Queue"}
    assert all_of_them == (consumed & all_of_them) | dead


@pytest.mark.parametrize("places", PLACES)
def test_the_background_leaves_half_to_those_who_wait(
    places: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an account of ten the least bounds that SQS allows are too many: see `docs/start/deploy.md`."""
    busy = concurrency.in_background(places)
    assert busy <= places / 2 or places < 50
    assert all(concurrency.at_once(handler, places) >= concurrency.LEAST for handler in concurrency.AT_ONCE)
    assert concurrency.AT_ONCE.keys() <= FUNCTION_S.keys()


def test_a_small_account_has_the_least_bounds(stages: Any) -> None:
    small = stage(stages, lambda_concurrency=10)
    assert {concurrency.at_once(handler, small.lambda_concurrency) for handler in concurrency.AT_ONCE} == {2}
    assert stage(stages).lambda_concurrency == 1000


def test_places_are_kept_for_handshakes_where_a_stage_says_so(monkeypatch: pytest.MonkeyPatch, stages: Any) -> None:
    monkeypatch.setattr(stage_module, "STAGES", stages)
    kept = stage(stages, connect_concurrency=200)
    assert kept.connect_concurrency == 200
    (connect,) = _reserved(template("qa"))
    assert connect == ("functions.gateway_connect.connect.handler", 200)
    assert stage(stages).connect_concurrency is None and not _reserved(template("qa"))


def _reserved(rendered: dict[str, Any]) -> list[tuple[str, int]]:
    return [
        (each["Properties"]["Handler"], each["Properties"]["ReservedConcurrentExecutions"])
        for each in of_type(rendered, "AWS::Lambda::Function")
        if "ReservedConcurrentExecutions" in each["Properties"]
    ]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"lambda_concurrency": 9}, "'lambda_concurrency' is 9; allowed: 10 to 1000000"),
        ({"lambda_concurrency": True}, "'lambda_concurrency' must be a whole number"),
        ({"lambda_concurrency": "10"}, "'lambda_concurrency' must be a whole number"),
        ({"connect_concurrency": 901}, "allowed: 1 to 900, because AWS keeps 100 of the 1000 places"),
        ({"connect_concurrency": 0}, "allowed: 1 to 900"),
        ({"lambda_concurrency": 10, "connect_concurrency": 1}, "allowed: none at all, because AWS keeps 100 of the 10"),
    ],
)
def test_other_numbers_are_refused_with_what_is_allowed(stages: Any, keys: dict[str, Any], told: str) -> None:
    assert told in problem(stages, **keys)
