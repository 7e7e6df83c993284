"""How new code comes to the callers: by aliases, in order, by canaries that alarms take back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from infra.rollout_table import CANARY_MINUTES, CANARY_PERCENT, STEPS, WATCHED_MINUTES, Shift
from infra.stage import StageError
from tests.docs.pages import DOCS
from tests.infra.test_templates import POLICIES, of_type, properties, template

FUNCTIONS = {name: shift for step in STEPS for name, shift in step.functions.items()}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return template("production")


def aliases(rendered: dict[str, Any]) -> dict[str, str]:
    """Name in `rollout_table` -> logical id of the alias."""
    ids = [key for key, resource in rendered["Resources"].items() if resource["Type"] == "AWS::Lambda::Alias"]
    starts = {name: f"{name.replace('-', '')}Live".replace("HttpApiApi", "HttpApi") for name in FUNCTIONS}
    return {name: next(key for key in ids if key.startswith(start)) for name, start in starts.items()}


def texts(value: object) -> Iterator[dict[str, Any]]:
    """Every object within a value."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)


def test_every_function_has_an_alias_and_keeps_its_versions(made: dict[str, Any]) -> None:
    assert len(aliases(made)) == len(of_type(made, "AWS::Lambda::Alias")) == len(of_type(made, "AWS::Lambda::Function"))
    for alias in properties(made, "AWS::Lambda::Alias"):
        assert alias["Name"] == "live" and "RoutingConfig" not in alias and "ProvisionedConcurrencyConfig" not in alias
    for version in of_type(made, "AWS::Lambda::Version"):
        # Without the way back of a failed deployment the same code could not be published again.
        assert (version["DeletionPolicy"], version["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")


#: Whatever calls a function, or lets somebody call it.
CALLERS = (
    "AWS::ApiGatewayV2::Integration",
    "AWS::Lambda::EventSourceMapping",
    "AWS::Lambda::Permission",
    "AWS::IoT::TopicRule",
    "AWS::Scheduler::Schedule",
)


@pytest.mark.parametrize("kind", CALLERS)
def test_whatever_calls_a_function_calls_its_alias(made: dict[str, Any], kind: str) -> None:
    functions = {key for key, resource in made["Resources"].items() if resource["Type"] == "AWS::Lambda::Function"}
    found = properties(made, kind)
    assert found
    for caller in found:
        named = {each["Ref"] for each in texts(caller) if isinstance(each.get("Ref"), str)}
        named |= {each["Fn::GetAtt"][0] for each in texts(caller) if isinstance(each.get("Fn::GetAtt"), list)}
        assert named & set(aliases(made).values()), caller
        assert not named & functions, caller


def test_what_fails_asynchronously_is_tried_again_as_the_alias_says(made: dict[str, Any]) -> None:
    configs = properties(made, "AWS::Lambda::EventInvokeConfig")
    of = {json.dumps(each["Qualifier"]).split('"Ref": "')[1].split('"')[0] for each in configs}
    assert of == {aliases(made)[name] for name in ("Mqtt-Bridge", "Relay-Worker")}


def test_who_starts_relay_workers_starts_the_alias_and_may(made: dict[str, Any]) -> None:
    relay = aliases(made)["Relay-Worker"]
    for function in of_type(made, "AWS::Lambda::Function"):
        variables = function["Properties"]["Environment"]["Variables"]
        for name in {"RELAY_FUNCTION", "SCHEDULE_FUNCTION"} & variables.keys():
            assert variables[name]["Fn::Join"][1][1] == ":live"
        if function["Properties"]["Handler"] == "functions.relay.worker.handler":
            assert variables["RELAY_ALIAS"] == "live" and len(variables["RELAY_CODE"]) == 12
    grants = [
        statement["Resource"]
        for kind in POLICIES
        for policy in properties(made, kind)
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Action"] == "lambda:InvokeFunction"
    ]
    # A statement may be about several functions: who starts relay workers may also start the schedule.
    grants = [one for grant in grants for one in (grant if isinstance(grant, list) else [grant])]
    to_schedule = [grant for grant in grants if "RevalidationScheduleFunction" in json.dumps(grant)]
    assert [grant["Fn::Join"][1][1] for grant in to_schedule] == [":live"]
    to_relay = [grant for grant in grants if "RelayWorker" in json.dumps(grant)]
    assert len(to_relay) == 4 and all(grant["Fn::Join"][1][1] == ":live" for grant in to_relay)
    assert relay not in json.dumps(to_relay), "a grant waits for no deployment"


def test_steps_come_one_after_another(made: dict[str, Any]) -> None:
    ids = aliases(made)
    (distribution,) = [k for k, v in made["Resources"].items() if v["Type"] == "AWS::CloudFront::Distribution"]
    before = {distribution}
    for step in STEPS:
        for name in step.functions:
            assert before <= set(made["Resources"][ids[name]]["DependsOn"]), name
        before = {ids[name] for name in step.functions}
    assert [step.name for step in STEPS] == ["api", "gateway", "revalidation", "bridge", "relay"]


def test_canaries_go_back_on_a_failure_of_the_new_version_or_of_the_stage(made: dict[str, Any]) -> None:
    ids = aliases(made)
    groups = {
        k: v["Properties"] for k, v in made["Resources"].items() if v["Type"] == "AWS::CodeDeploy::DeploymentGroup"
    }
    alarms = {k: v["Properties"] for k, v in made["Resources"].items() if v["Type"] == "AWS::CloudWatch::Alarm"}
    assert len(groups) == sum(shift is Shift.CANARY for shift in FUNCTIONS.values())
    for name, shift in FUNCTIONS.items():
        alias = made["Resources"][ids[name]]
        if shift is Shift.AT_ONCE:
            assert "UpdatePolicy" not in alias, name
            continue
        group = groups[alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]["DeploymentGroupName"]["Ref"]]
        assert (
            group["DeploymentConfigName"]
            == f"CodeDeployDefault.LambdaCanary{CANARY_PERCENT}Percent{CANARY_MINUTES}Minutes"
        )
        events = {"DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_REQUEST", "DEPLOYMENT_STOP_ON_ALARM"}
        assert group["AutoRollbackConfiguration"] == {"Enabled": True, "Events": sorted(events)} or events == set(
            group["AutoRollbackConfiguration"]["Events"]
        )
        own, *of_stage = [alarms[each["Name"]["Ref"]] for each in group["AlarmConfiguration"]["Alarms"]]
        assert [each["AlarmName"] for each in of_stage] == [
            "Tidegate-production-faults",
            "Tidegate-production-limiter-store-down",
        ]
        version = alias["Properties"]["FunctionVersion"]
        dimensions = {each["Name"]: each["Value"] for each in own["Dimensions"]}
        assert (
            dimensions["ExecutedVersion"] == version
            and dimensions["FunctionName"] == alias["Properties"]["FunctionName"]
        )
        assert dimensions["Resource"]["Fn::Join"][1][1] == ":live"
        assert (own["Threshold"], own["EvaluationPeriods"], own["Period"]) == (0, 1, 60)


def test_a_stage_may_shift_at_once_and_says_what_is_allowed() -> None:
    rendered = template("production", shift="at-once")
    assert not [alias for alias in of_type(rendered, "AWS::Lambda::Alias") if "UpdatePolicy" in alias]
    assert of_type(rendered, "AWS::CodeDeploy::DeploymentGroup"), "the next deployment finds its groups"
    with pytest.raises(StageError, match="allowed: canary, at-once"):
        template("production", shift="slowly")


def test_the_local_stage_has_no_aliases() -> None:
    rendered = template("local")
    assert not [
        r for r in rendered["Resources"].values() if r["Type"].startswith(("AWS::CodeDeploy", "AWS::Lambda::A"))
    ]
    assert not of_type(rendered, "AWS::Lambda::Version")
    (relay,) = [
        function["Environment"]["Variables"]
        for function in properties(rendered, "AWS::Lambda::Function")
        if function["Handler"] == "functions.relay.worker.handler"
    ]
    assert "RELAY_ALIAS" not in relay and relay["RELAY_CODE"]


def test_the_page_says_how_long_it_takes_and_in_which_order() -> None:
    page = (DOCS / "operations/roll-out.md").read_text()
    assert f"{WATCHED_MINUTES} minutes" in page
    places = [page.index(f"| `{step.name}` |") for step in STEPS]
    assert places == sorted(places)
    for name, shift in FUNCTIONS.items():
        row = next(line for line in page.splitlines() if re.search(rf"`{name}`", line) and line.startswith("|"))
        assert shift.value in row, name
