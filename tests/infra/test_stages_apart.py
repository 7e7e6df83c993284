"""Stages share nothing: two in one account and region, and one stage in two regions of an account."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from infra.rollout_table import STEPS
from tests.infra.test_alarms import graphs
from tests.infra.test_templates import properties, template
from tests.stage_files import PLAIN, write

Template = dict[str, Any]

#: Names inside of a resource that has a name of its own, or that AWS gives: they need not differ.
_INSIDE = {
    "AWS::DynamoDB::Table": {"AttributeName", "IndexName"},
    "AWS::Lambda::Alias": {"Name"},  # of its function
    "AWS::ApiGatewayV2::Stage": {"StageName"},  # of its API
    "AWS::CloudFront::Distribution": {"HeaderName"},
    "AWS::CodeDeploy::DeploymentGroup": {"DeploymentConfigName"},  # one that AWS has
    "AWS::CloudWatch::Alarm": {"MetricName"},  # of the stage's own resource
    "AWS::IAM::Policy": {"PolicyName"},  # inline, of its role
}
#: What is one for all regions of an account, so that its name has to hold the region.
_GLOBAL = ("AWS::CloudFront::", "AWS::CloudWatch::Dashboard")
#: A quota of the account is used by all of its stages, so all of them are looked at.
OF_THE_ACCOUNT = ("ConcurrentExecutions",)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Template, Template]]:
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("stages")
        for name in ("blue", "green"):
            settings = {**PLAIN["settings"], "REALTIME_MQTT_ALLOWED_TOPICS": f"{name}/#"}
            write(folder, patched, name, alarm_email="on-call@example.com", settings=settings)
        yield template("blue"), template("green")


def named(rendered: Template) -> Mapping[tuple[str, str, str], str]:
    """(logical id, type, where) -> each name that the template gives. A name that AWS makes is not in it."""
    found = {}
    for logical, resource in rendered["Resources"].items():
        kind = resource["Type"]
        for where, value in _leaves(resource.get("Properties", {})):
            last = re.sub(r"\[\d+\]$", "", where).rpartition(".")[2]
            own = last.endswith("Name") and "." not in where.replace("Config.Name", "Name")
            if own and last not in _INSIDE.get(kind, ()):
                found[logical, kind, where] = json.dumps(value)
    return found


def _leaves(value: object, where: str = "") -> Iterator[tuple[str, object]]:
    """Every value with the path to it. An intrinsic function is a value."""
    if isinstance(value, dict) and not any(key == "Ref" or key.startswith("Fn::") for key in value):
        for key, inner in value.items():
            yield from _leaves(inner, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{where}[{index}]")
    else:
        yield where, value


def test_no_name_is_in_two_stages(stages: tuple[Template, Template]) -> None:
    blue, green = (named(each) for each in stages)
    assert {kind for _, kind, _ in blue} >= {
        "AWS::ApiGatewayV2::Api",
        "AWS::IoT::TopicRule",
        "AWS::CloudFront::OriginAccessControl",
        "AWS::CloudFront::ResponseHeadersPolicy",
        "AWS::CloudFront::Function",
        "AWS::CloudWatch::Alarm",
        "AWS::CloudWatch::Dashboard",
    }
    # What refers to a resource of the template is as different as that is.
    texts = {key: text for key, text in blue.items() if '"Ref"' not in text or "AWS::Region" in text}
    shared = {key: text for key, text in texts.items() if text in green.values()}
    assert not shared, shared


def test_no_name_is_twice_in_a_stage(stages: tuple[Template, Template]) -> None:
    for rendered in stages:
        owned = [(kind, text) for (_, kind, _), text in named(rendered).items() if kind == "AWS::ApiGatewayV2::Api"]
        assert len(owned) == len(set(owned)) == 2


def test_what_all_regions_share_has_the_region_in_its_name(stages: tuple[Template, Template]) -> None:
    found = {(kind, text) for (_, kind, _), text in named(stages[0]).items() if kind.startswith(_GLOBAL)}
    assert len(found) >= 5
    assert not [each for each in found if "AWS::Region" not in each[1]]


def test_nothing_is_exported(stages: tuple[Template, Template]) -> None:
    assert not [each for each in stages[0]["Outputs"].values() if "Export" in each], "exports are one namespace"


def test_topics_and_what_devices_may_do_are_of_the_stage(stages: tuple[Template, Template]) -> None:
    for name, rendered in zip(("blue", "green"), stages, strict=True):
        rules = properties(rendered, "AWS::IoT::TopicRule")
        topics = [re.findall(r"FROM '([^']+)'", rule["TopicRulePayload"]["Sql"])[0] for rule in rules]
        assert topics and all(topic.startswith(f"{name}/") for topic in topics)
        (policy,) = properties(rendered, "AWS::IoT::Policy")
        text = json.dumps(policy["PolicyDocument"])
        resources = re.findall(r":topic(?:filter)?/([a-z]*)", text)
        assert resources and set(resources) == {name}


def test_every_metric_tells_the_stage_and_the_function(stages: tuple[Template, Template]) -> None:
    for name, rendered in zip(("blue", "green"), stages, strict=True):
        told = [each["Environment"]["Variables"] for each in properties(rendered, "AWS::Lambda::Function")]
        assert {each["TIDEGATE_STAGE"] for each in told} == {name}
        services = [each["TIDEGATE_SERVICE"] for each in told]
        assert sorted(services) == sorted(path.lower() for step in STEPS for path in step.functions)


def test_every_alarm_looks_at_its_stage_only(stages: tuple[Template, Template]) -> None:
    for name, rendered in zip(("blue", "green"), stages, strict=True):
        for alarm in properties(rendered, "AWS::CloudWatch::Alarm"):
            queries = [metric.get("Expression", "") for metric in alarm.get("Metrics", [])]
            assert all(f"stage = '{name}'" in query for query in queries if "SELECT" in query), alarm["AlarmName"]
            if any("SELECT" in query for query in queries):
                continue
            stats = [metric["MetricStat"]["Metric"] for metric in alarm.get("Metrics", []) if "MetricStat" in metric]
            for metric in stats or [alarm]:
                own = json.dumps(metric.get("Dimensions", []))
                assert "Ref" in own or "GetAtt" in own or metric["MetricName"] in OF_THE_ACCOUNT, alarm["AlarmName"]


def test_the_dashboard_looks_at_its_stage_only(stages: tuple[Template, Template]) -> None:
    for name, rendered in zip(("blue", "green"), stages, strict=True):
        for metrics in (graph["metrics"] for graph in graphs(rendered)):
            for *words, shown in metrics:
                if "expression" in shown:
                    assert f'stage="{name}"' in shown["expression"]
                else:
                    assert "<" in "".join(words[2:]) or words[1] in OF_THE_ACCOUNT, words
