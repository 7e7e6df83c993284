"""What a stage file says of where the stage is: what of it is refused, and what becomes of it in the template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.gateway import BURST, RATE
from infra.http_api import RATE as HTTP_RATE
from infra.stage import StageError
from infra.stage_place import KEYS, RelayVpc
from tests.infra.test_first_creation import assembly
from tests.infra.test_templates import of_type, properties, template
from tests.stage_files import write

DOMAIN = "live.example.com"
CERTIFICATE = "arn:aws:acm:us-east-1:111122223333:certificate/00000000-0000-4000-8000-000000000000"
ACL = "arn:aws:wafv2:us-east-1:111122223333:global/webacl/front/00000000-0000-4000-8000-000000000000"
VPC = {"vpc": "vpc-01234567", "subnets": ["subnet-01234567", "subnet-89abcdef"], "security_groups": ["sg-01234567"]}
NAMED = {"domain": DOMAIN, "certificate": CERTIFICATE}

Made = Callable[..., dict[str, Any]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """The template of a stage with these keys."""

    def of(**keys: Any) -> dict[str, Any]:
        write(tmp_path, monkeypatch, **keys)
        return template("qa")

    return of


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"account": 111122223333}, ["'account' must be a text"]),
    ({"account": "1111"}, ["'account' is '1111'", "the 12 digits"]),
    ({"region": "Frankfurt"}, ["'region' is 'Frankfurt'", "eu-central-1"]),
    ({"domain": DOMAIN}, ["'domain' and 'certificate': allowed: both, or neither"]),
    ({"certificate": CERTIFICATE}, ["'domain' and 'certificate': allowed: both, or neither"]),
    ({**NAMED, "domain": f"https://{DOMAIN}"}, ["'domain' is 'https://", "without https://"]),
    ({**NAMED, "domain": f"{DOMAIN}."}, ["'domain' is", "without a dot at the end"]),
    ({**NAMED, "domain": "Live.example.com"}, ["in small letters"]),
    ({**NAMED, "domain": "localhost"}, ["'domain' is 'localhost'"]),
    ({**NAMED, "domain": "a" * 64 + ".example.com"}, ["'domain' is"]),
    (
        {**NAMED, "certificate": CERTIFICATE.replace("us-east-1", "eu-west-1")},
        ["'certificate' is", "an ACM certificate of us-east-1"],
    ),
    ({"hosted_zone": "Z123"}, ["'hosted_zone': allowed: only with 'domain'"]),
    ({**NAMED, "hosted_zone": "/hostedzone/Z123"}, ["'hosted_zone' is", "the id of a hosted zone"]),
    ({"web_acl": ACL.replace("global", "regional")}, ["'web_acl' is", "scope CLOUDFRONT"]),
    ({"web_acl": ACL, "edge": False}, ["'web_acl': allowed: only with 'edge': true"]),
    ({**NAMED, "edge": False}, ["'domain': allowed: only with 'edge': true"]),
    ({"alarm_email": "on call"}, ["'alarm_email' is 'on call'", "one e-mail address"]),
    ({"alarm_email": "a@example.com, b@example.com"}, ["one e-mail address"]),
    (
        {"alarm_email": "a@example.com", "alarm_topic_arn": "arn:aws:sns:eu-west-1:111122223333:on-call"},
        ["'alarm_email' and 'alarm_topic_arn': allowed: one of them"],
    ),
    ({"quota_share": 0}, ["'quota_share' is '0'", "from 1 to 100"]),
    ({"quota_share": 101}, ["'quota_share' is '101'"]),
    ({"quota_share": True}, ["'quota_share' must be a whole number"]),
    ({"quota_share": "50"}, ["'quota_share' must be a whole number"]),
    ({"quota_share": 0.5}, ["'quota_share' must be a whole number"]),
    ({"tags": ["team"]}, ["'tags' must be an object"]),
    ({"tags": {"aws:team": "a"}}, ["'tags' is 'aws:team'", "not beginning with aws: or tidegate:"]),
    ({"tags": {"Tidegate:stage": "a"}}, ["not beginning with aws: or tidegate:"]),
    ({"tags": {"": "a"}}, ["'tags' is ''", "up to 128 letters"]),
    ({"tags": {"team": 5}}, ["'tags.team' is '5'", "a text of up to 256"]),
    ({"tags": {"team": "<b>"}}, ["'tags.team' is '<b>'"]),
    ({"tags": {f"t{number}": "" for number in range(41)}}, ["'tags' is '41 tags'", "at most 40"]),
    ({"relay_vpc": "vpc-01234567"}, ["'relay_vpc' must be an object"]),
    ({"relay_vpc": {"vpc": "vpc-01234567"}}, ["'relay_vpc' is", "an object of vpc, subnets, security_groups"]),
    ({"relay_vpc": {**VPC, "azs": []}}, ["an object of vpc, subnets, security_groups"]),
    ({"relay_vpc": {**VPC, "vpc": "default"}}, ["'relay_vpc.vpc' is 'default'", "vpc-…"]),
    ({"relay_vpc": {**VPC, "subnets": []}}, ["'relay_vpc.subnets' is '[]'", "1 to 16 different ids"]),
    ({"relay_vpc": {**VPC, "subnets": ["sg-01234567"]}}, ["'relay_vpc.subnets' is 'sg-", "subnet-"]),
    ({"relay_vpc": {**VPC, "security_groups": [7]}}, ["'relay_vpc.security_groups' is '7'", "sg-"]),
    ({"relay_vpc": {**VPC, "subnets": ["subnet-01234567"] * 2}}, ["different ids"]),
    ({"relay": True}, ["'relay' must be an object"]),
    ({"relay": {}}, ["'relay.service' is 'None'", "true or false"]),
    ({"relay": {"service": 1}}, ["'relay.service' is '1'", "true or false"]),
    ({"relay": {"service": True, "workers": 1}}, ["'relay' is", "an object of service, tasks, cpu, memory_mb"]),
    ({"relay": {"service": True, "tasks": 0}}, ["'relay.tasks' is '0'", "1 to 2"]),
    ({"relay": {"service": True, "tasks": "1"}}, ["'relay.tasks' is '1'", "a whole number"]),
    ({"relay": {"service": True, "tasks": True}}, ["'relay.tasks' is 'True'", "a whole number"]),
    ({"relay": {"service": True, "cpu": 300}}, ["'relay.cpu' is '300'", "one of 256, 512, 1024"]),
    ({"relay": {"service": True, "cpu": 512}}, ["'relay.memory_mb' is '512'", "with 512 CPU units one of 1024, 2048"]),
    ({"relay": {"service": False, "tasks": 9}}, ["'relay.tasks' is '9'"]),
]


@pytest.mark.parametrize(("keys", "named"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_named_with_what_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], named: list[str]
) -> None:
    with pytest.raises(StageError) as caught:
        write(tmp_path, monkeypatch, **keys)
    told = str(caught.value)
    assert told.startswith("qa.json: ") and "\n" not in told
    for name in named:
        assert name in told


@pytest.mark.parametrize("key", KEYS)
def test_the_local_stage_has_nothing_of_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    good: dict[str, Any] = {
        **NAMED,
        "account": "111122223333",
        "region": "eu-west-1",
        "hosted_zone": "Z1",
        "web_acl": ACL,
    }
    good |= {
        "alarm_email": "a@example.com",
        "quota_share": 50,
        "tags": {},
        "relay_vpc": VPC,
        "relay": {"service": True},
    }
    with pytest.raises(StageError, match=f"'{key}': allowed: only in a stage of a cloud account"):
        write(tmp_path, monkeypatch, edge=False, architecture="host", **{key: good[key]})


def test_a_domain_of_ones_own(made: Made) -> None:
    (distribution,) = properties(made(**NAMED), "AWS::CloudFront::Distribution")
    config = distribution["DistributionConfig"]
    assert config["Aliases"] == [DOMAIN]
    assert config["ViewerCertificate"]["AcmCertificateArn"] == CERTIFICATE
    assert config["ViewerCertificate"]["MinimumProtocolVersion"] == "TLSv1.2_2021"
    assert made(**NAMED)["Outputs"]["EdgeUrl"]["Value"] == f"https://{DOMAIN}"


def test_with_a_zone_it_gets_records_of_both_kinds(made: Made) -> None:
    rendered = made(**NAMED, hosted_zone="Z0123")
    records = properties(rendered, "AWS::Route53::RecordSet")
    assert {record["Type"] for record in records} == {"A", "AAAA"}
    (name,) = [name for name, each in rendered["Resources"].items() if each["Type"] == "AWS::CloudFront::Distribution"]
    for record in records:
        assert (record["Name"], record["HostedZoneId"]) == (f"{DOMAIN}.", "Z0123")
        assert record["AliasTarget"]["DNSName"] == {"Fn::GetAtt": [name, "DomainName"]}
    assert not of_type(made(**NAMED), "AWS::Route53::RecordSet")


def test_a_web_acl_is_in_front(made: Made) -> None:
    (distribution,) = properties(made(web_acl=ACL), "AWS::CloudFront::Distribution")
    assert distribution["DistributionConfig"]["WebACLId"] == ACL


def test_who_is_told_of_alarms_by_email(made: Made) -> None:
    rendered = made(alarm_email="on-call@example.com")
    (subscription,) = properties(rendered, "AWS::SNS::Subscription")
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "on-call@example.com")
    # Alarms of a roll-out take a deployment back, and tell nobody: see tests/infra/test_rollout.py.
    alarms = [
        alarm
        for alarm in properties(rendered, "AWS::CloudWatch::Alarm")
        if "-new-version-fails-" not in json.dumps(alarm["AlarmName"])
    ]
    assert alarms and all(alarm["AlarmActions"] == [subscription["TopicArn"]] for alarm in alarms)
    (policy,) = properties(rendered, "AWS::SNS::TopicPolicy")
    allowed = [each for each in policy["PolicyDocument"]["Statement"] if each["Effect"] == "Allow"]
    (statement,) = allowed
    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_a_share_of_the_quotas(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {
        (each["DefaultRouteSettings"]["ThrottlingRateLimit"], each["DefaultRouteSettings"]["ThrottlingBurstLimit"])
        for each in properties(made(quota_share=10), "AWS::ApiGatewayV2::Stage")
    }
    assert limits == {(RATE // 10, BURST // 10), (HTTP_RATE // 10, 50)}
    assert write(tmp_path, monkeypatch, quota_share=10).settings.max_sends_per_second == 500
    assert write(tmp_path, monkeypatch).settings.max_sends_per_second == 5000
    own = {"REALTIME_SSE_ENABLED": False, "REALTIME_WS_ENABLED": False, "REALTIME_MAX_SENDS_PER_SECOND": 70}
    given = write(tmp_path, monkeypatch, quota_share=10, settings=own)
    assert given.settings.max_sends_per_second == 70, "what the file says itself"


def test_tags_are_on_the_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, monkeypatch, tags={"team": "boards"})
    assert dict(assembly("qa").tags) == {"tidegate:stage": "qa", "team": "boards"}


def test_the_relay_is_in_a_network_and_nothing_else_is(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = made(relay_vpc=VPC)
    inside = [each for each in properties(rendered, "AWS::Lambda::Function") if "VpcConfig" in each]
    assert [each["Handler"] for each in inside] == ["functions.relay.worker.handler"]
    assert inside[0]["VpcConfig"] == {"SubnetIds": VPC["subnets"], "SecurityGroupIds": VPC["security_groups"]}
    may = [name for name, each in rendered["Resources"].items() if "AWSLambdaENIManagementAccess" in json.dumps(each)]
    assert len(may) == 1 and may[0].startswith("RelayWorkerRole")
    place = write(tmp_path, monkeypatch, relay_vpc=VPC).place
    assert place.relay_vpc == RelayVpc("vpc-01234567", tuple(VPC["subnets"]), ("sg-01234567",))
