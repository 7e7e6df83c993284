"""What `make preflight` says, decided from answers as AWS gives them. Their shapes are those of boto3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from infra.stage import Stage
from ops.answers import Answer, ask
from ops.preflight import shown
from ops.readiness import Line, State, covers, exit_code, lines, others_logging_role
from tests.stage_files import write

DOMAIN = "live.example.com"
CERTIFICATE = "arn:aws:acm:us-east-1:111122223333:certificate/00000000-0000-4000-8000-000000000000"
ROLE = "arn:aws:iam::111122223333:role/apigateway-logs"
ROOT = Path(__file__).resolve().parents[2]
PLACES = "lambda_concurrency of the stage file"
VPC = {"vpc": "vpc-01234567", "subnets": ["subnet-01234567"], "security_groups": ["sg-01234567"]}
NOT_THERE = Answer(code="ValidationError", message="Stack with id Tidegate-qa does not exist")
CERTIFIED = {"Status": "ISSUED", "DomainName": DOMAIN, "SubjectAlternativeNames": [DOMAIN]}
#: A new account as it should be: nothing is deployed yet.
GOOD: dict[str, Answer] = {
    "caller": Answer({"Account": "111122223333", "Arn": "arn:aws:iam::111122223333:user/me"}),
    "bootstrap": Answer("27"),
    "stack": NOT_THERE,
    "concurrency": Answer(1000),
    "api_gateway": Answer({"throttleSettings": {"burstLimit": 5000, "rateLimit": 10000.0}}),
    "distributions": Answer([]),
    "certificate": Answer(CERTIFIED),
    "hosted_zone": Answer({"Name": "example.com.", "Config": {"PrivateZone": False}}),
    "subnets": Answer([{"SubnetId": "subnet-01234567", "VpcId": "vpc-01234567"}]),
}
DENIED = Answer(code="AccessDeniedException", message="not authorized", denied="some:Action")
#: What is answered of a stage that is deployed and owns the logging role.
DEPLOYED = {
    "stack": Answer({"StackStatus": "UPDATE_COMPLETE"}),
    "resources": Answer(
        [
            {"ResourceType": "AWS::ApiGateway::Account", "LogicalResourceId": "A", "ResourceStatus": "CREATE_COMPLETE"},
            {
                "ResourceType": "AWS::CloudFront::Distribution",
                "LogicalResourceId": "D",
                "PhysicalResourceId": "E1",
                "ResourceStatus": "CREATE_COMPLETE",
            },
        ]
    ),
    "api_gateway": Answer({"cloudwatchRoleArn": ROLE, "throttleSettings": {"rateLimit": 10000.0}}),
    "role": Answer(ROLE),
    "distributions": Answer([{"Id": "E1", "Aliases": [DOMAIN]}]),
}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return write(tmp_path, monkeypatch, domain=DOMAIN, certificate=CERTIFICATE, hosted_zone="Z123", relay_vpc=VPC)


def of(stage: Stage, check: str, **other: Answer) -> Line:
    (line,) = [line for line in lines(stage, GOOD | other, "eu-west-1") if line.check == check]
    return line


def role_set(**other: Answer) -> dict[str, Answer]:
    return {"api_gateway": Answer({"cloudwatchRoleArn": ROLE, "throttleSettings": {"rateLimit": 10000.0}}), **other}


def test_an_account_that_is_ready(stage: Stage) -> None:
    found = lines(stage, GOOD, "eu-west-1")
    assert {line.check for line in found if line.state is not State.OK} == {"CloudFront"}, "it cannot be proved"
    assert not any(line.stops for line in found) and exit_code(found) == 3
    deployed = lines(stage, GOOD | DEPLOYED, "eu-west-1")
    assert {line.state for line in deployed} == {State.OK} and exit_code(deployed) == 0


def test_every_line_that_is_not_well_says_what_to_do(stage: Stage) -> None:
    everything_denied = dict.fromkeys(GOOD.keys() - {"caller"}, DENIED)
    found = lines(stage, GOOD | everything_denied, "eu-west-1")
    for line in found:
        assert (line.state is State.OK) or line.do, line
    unknown = [line for line in found if line.state is State.UNKNOWN]
    assert len(unknown) == len(found) - 2, "who and where are known, and nothing else"
    assert all("some:Action" in line.found + line.do for line in unknown)
    assert exit_code(found) == 3 and not any(line.stops for line in found), "what is not known stops nothing"
    assert "could not check  bootstrap: denied; needs some:Action." in shown(found)


@pytest.mark.parametrize(
    ("answer", "state", "told"),
    [
        (Answer(code="NoCredentialsError", message="Unable to locate credentials"), State.FAILED, "there are none"),
        (Answer(code="ExpiredToken", message="The security token is expired"), State.FAILED, "ExpiredToken"),
        (Answer(code="EndpointConnectionError", message="no way"), State.UNKNOWN, "no way"),
        (DENIED, State.UNKNOWN, "denied"),
    ],
)
def test_without_credentials_nothing_else_is_said(stage: Stage, answer: Answer, state: State, told: str) -> None:
    found = lines(stage, {"caller": answer}, "eu-west-1")
    assert [line.check for line in found] == ["credentials", "region"]
    assert found[0].state is state and told in found[0].found and found[0].do


def test_credentials_of_another_account_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = write(tmp_path, monkeypatch, account="999988887777")
    line = lines(elsewhere, GOOD, "eu-west-1")[0]
    assert line.stops and "111122223333" in line.found and "999988887777" in line.found


def test_a_region_is_needed(stage: Stage) -> None:
    line = lines(stage, GOOD, None)[1]
    assert line.stops and "AWS_REGION" in line.do and '"region" in infra/stages/qa.json' in line.do


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(code="ParameterNotFound"), "there is no /cdk-bootstrap/hnb659fds/version"),
        (Answer("5"), "version 5; the CDK needs 6"),
        (Answer("x"), "version x; the CDK needs 6"),
    ],
)
def test_an_account_is_bootstrapped_first(stage: Stage, answer: Answer, told: str) -> None:
    line = of(stage, "bootstrap", bootstrap=answer)
    assert line.stops and told in line.found and line.do == "run `make bootstrap STAGE=qa`"


@pytest.mark.parametrize(("limit", "state"), [(10, State.FAILED), (49, State.FAILED), (50, State.OK), (1000, State.OK)])
def test_new_accounts_run_few_functions_at_once(stage: Stage, limit: int, state: State) -> None:
    line = of(stage, "concurrency of Lambda", concurrency=Answer(limit))
    assert line.state is state and not line.stops, "it can be deployed, and tried"
    assert ("L-B99A9384" in line.do and "refused" in line.found) is (state is State.FAILED)


def test_a_share_is_of_what_the_account_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenth = write(tmp_path, monkeypatch, quota_share=10)
    line = of(tenth, "concurrency of Lambda", concurrency=Answer(400))
    assert line.state is State.FAILED and "400 functions at once, 40 of them this stage's" in line.found
    line = of(tenth, "requests of API Gateway")
    assert line.state is State.OK and "1000 of them this stage's, at most 500 for messages" in line.found


@pytest.mark.parametrize(
    ("limit", "keys", "state", "told"),
    [
        (1000, {}, State.OK, "1000, as the account has"),
        (10, {"lambda_concurrency": 10}, State.OK, "10, as the account has"),
        (10, {}, State.FAILED, "the file says 1000, and the account has 10. What works in the background may take 48"),
        (500, {}, State.WARN, "the file says 1000, and the account has 500"),
        (1000, {"lambda_concurrency": 10}, State.WARN, "Queues are worked off more slowly than they could be"),
        (3000, {}, State.OK, "the file says 1000, and the account has 3000"),
        (1000, {"connect_concurrency": 900}, State.OK, "1000, as the account has"),
        (500, {"connect_concurrency": 401}, State.FAILED, "401 places are to be kept for handshakes, of 500"),
        (10, {"connect_concurrency": 1}, State.FAILED, "1 places are to be kept for handshakes, of 10"),
    ],
)
def test_the_file_says_what_the_account_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, keys: dict[str, Any], state: State, told: str
) -> None:
    line = of(write(tmp_path, monkeypatch, **keys), PLACES, concurrency=Answer(limit))
    assert line.state is state and told in line.found
    assert (f'write "lambda_concurrency": {limit} into infra/stages/qa.json' in line.do) is (state is not State.OK)
    assert line.stops is ("connect_concurrency" in keys and state is State.FAILED), "Lambda refuses such a reservation"


def test_places_of_an_account_that_does_not_tell(stage: Stage) -> None:
    assert of(stage, PLACES, concurrency=DENIED).state is State.UNKNOWN


def test_messages_leave_half_of_the_requests_to_others(stage: Stage) -> None:
    few = Answer({"throttleSettings": {"rateLimit": 2500.0}})
    line = of(stage, "requests of API Gateway", api_gateway=few)
    assert line.state is State.FAILED and not line.stops
    assert "REALTIME_MAX_SENDS_PER_SECOND to 1250" in line.do and "L-8A5B8E43 --desired-value 10000" in line.do
    assert of(stage, "requests of API Gateway", api_gateway=Answer({})).state is State.UNKNOWN


@pytest.mark.parametrize(
    ("answers", "left_alone", "state", "told"),
    [
        ({}, False, State.OK, "this stage sets it"),
        (role_set(role=Answer(ROLE)), True, State.OK, "somebody else's; it is used and left alone"),
        (role_set(role=Answer(code="NoSuchEntity")), False, State.OK, "there is no such role; this stage sets its own"),
        (role_set(role=DENIED), True, State.UNKNOWN, "left alone"),
        ({"api_gateway": DENIED}, True, State.UNKNOWN, "left alone"),
        (DEPLOYED, False, State.OK, "this stage has set it"),
        ({**DEPLOYED, "api_gateway": DENIED}, False, State.OK, "this stage has set it"),
    ],
)
def test_the_logging_role_of_others_is_left_alone(
    stage: Stage, answers: Mapping[str, Answer], left_alone: bool, state: State, told: str
) -> None:
    line = of(stage, "logging role of API Gateway", **answers)
    assert line.state is state and told in line.found and not line.stops
    assert others_logging_role({**GOOD, **answers}) is left_alone


@pytest.mark.parametrize(
    ("status", "state", "told"),
    [
        ("CREATE_COMPLETE", State.OK, "CREATE_COMPLETE"),
        ("UPDATE_ROLLBACK_COMPLETE", State.OK, "UPDATE_ROLLBACK_COMPLETE"),
        ("ROLLBACK_COMPLETE", State.OK, "`make deploy` deletes it and creates it again"),
        ("ROLLBACK_FAILED", State.OK, "these are left: t-1. `make deploy` deletes it"),
        ("REVIEW_IN_PROGRESS", State.OK, "never created"),
        ("CREATE_IN_PROGRESS", State.FAILED, "wait until it is over"),
        ("UPDATE_ROLLBACK_IN_PROGRESS", State.FAILED, "wait until it is over"),
        ("DELETE_IN_PROGRESS", State.FAILED, "wait until it is over"),
        ("UPDATE_ROLLBACK_FAILED", State.FAILED, "continue-update-rollback --stack-name Tidegate-qa"),
        ("DELETE_FAILED", State.FAILED, "make destroy STAGE=qa"),
        ("CREATE_FAILED", State.FAILED, "make destroy STAGE=qa"),
        ("UPDATE_FAILED", State.FAILED, "rollback-stack --stack-name Tidegate-qa"),
    ],
)
def test_a_stack_that_cannot_be_changed_stops_the_deployment(
    stage: Stage, status: str, state: State, told: str
) -> None:
    failed = {"ResourceType": "T", "LogicalResourceId": "T", "PhysicalResourceId": "t-1"}
    left = [failed | {"ResourceStatus": "DELETE_FAILED" if status == "ROLLBACK_FAILED" else "CREATE_COMPLETE"}]
    line = of(stage, "stack", stack=Answer({"StackStatus": status}), resources=Answer(left))
    assert line.state is state and told in f"{line.found} {line.do}"
    assert line.stops is (state is State.FAILED)


@pytest.mark.parametrize(
    ("certificate", "told"),
    [
        (Answer(code="ResourceNotFoundException"), "no such certificate"),
        (Answer(CERTIFIED | {"Status": "PENDING_VALIDATION"}), "it is PENDING_VALIDATION, not ISSUED"),
        (Answer(CERTIFIED | {"Status": "EXPIRED"}), "it is EXPIRED"),
        (Answer({"Status": "ISSUED", "DomainName": "example.com"}), "it is for example.com, not for live.example.com"),
    ],
)
def test_a_certificate_has_to_be_issued_and_for_the_name(stage: Stage, certificate: Answer, told: str) -> None:
    line = of(stage, "certificate", certificate=certificate)
    assert line.stops and told in line.found and line.do


@pytest.mark.parametrize(
    ("name", "domain", "does"),
    [
        ("live.example.com", "live.example.com", True),
        ("LIVE.example.com", "live.example.com", True),
        ("*.example.com", "live.example.com", True),
        ("*.example.com", "a.live.example.com", False),
        ("*.example.com", "example.com", False),
        ("example.com", "live.example.com", False),
        ("*.ample.com", "live.example.com", False),
        ("live.example.com.evil.org", "live.example.com", False),
    ],
)
def test_which_names_a_certificate_covers(name: str, domain: str, does: bool) -> None:
    assert covers(name, domain) is does


def test_a_name_among_others_is_enough(stage: Stage) -> None:
    several = {"Status": "ISSUED", "DomainName": "example.com", "SubjectAlternativeNames": ["a.org", "*.example.com"]}
    assert of(stage, "certificate", certificate=Answer(several)).state is State.OK


@pytest.mark.parametrize(
    ("zone", "told"),
    [
        (Answer(code="NoSuchHostedZone"), "no such zone"),
        (Answer({"Name": "example.org."}), "it is the zone of example.org"),
        (Answer({"Name": "ample.com."}), "it is the zone of ample.com"),
        (Answer({"Name": "example.com.", "Config": {"PrivateZone": True}}), "private"),
    ],
)
def test_the_zone_is_that_of_the_domain(stage: Stage, zone: Answer, told: str) -> None:
    line = of(stage, "hosted zone", hosted_zone=zone)
    assert line.stops and told in line.found


def test_a_name_that_another_distribution_has(stage: Stage) -> None:
    line = of(stage, "CloudFront", distributions=Answer([{"Id": "E9", "Aliases": [DOMAIN]}]))
    assert line.stops and f"{DOMAIN} is a name of distribution E9 already" in line.found
    others = Answer([{"Id": "E9", "Aliases": ["other.example.com"]}])
    assert of(stage, "CloudFront", distributions=others).state is State.UNKNOWN, "new ones may be refused all the same"


def test_an_account_that_is_not_verified_is_not_one_without_rights(stage: Stage) -> None:
    message = "Your account must be verified before you can add new CloudFront resources."
    line = of(stage, "CloudFront", distributions=Answer(code="AccessDenied", message=message, denied="cloudfront:x"))
    assert line.state is State.FAILED and line.stops and "support" in line.do


def test_subnets_are_of_the_vpc(stage: Stage) -> None:
    elsewhere = Answer([{"SubnetId": "subnet-01234567", "VpcId": "vpc-99999999"}])
    line = of(stage, "network of the relay", subnets=elsewhere)
    assert line.stops and "subnet-01234567: not in vpc-01234567" in line.found
    gone = Answer(code="InvalidSubnetID.NotFound", message="The subnet ID 'subnet-01234567' does not exist")
    assert of(stage, "network of the relay", subnets=gone).stops


def test_what_a_stage_does_not_have_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = write(tmp_path, monkeypatch, edge=False)
    checks = {line.check for line in lines(bare, GOOD, "eu-west-1")}
    assert not checks & {"CloudFront", "certificate", "hosted zone", "domain", "network of the relay"}


def test_programming_errors_are_not_answers() -> None:
    def wrong() -> Any:
        raise KeyError("Parameter")

    with pytest.raises(KeyError):
        ask("ssm:GetParameter", wrong)


#: A new account with some of what such accounts have.
NEW = {
    "caller": Answer({"Account": "111122223333", "Arn": "arn:aws:iam::111122223333:user/ops"}),
    "bootstrap": Answer("27"),
    "concurrency": Answer(10),
    "certificate": Answer(CERTIFIED | {"Status": "PENDING_VALIDATION"}),
    "hosted_zone": Answer(code="AccessDenied", message="not authorized", denied="route53:GetHostedZone"),
}


def test_the_page_shows_what_a_new_account_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"domain": DOMAIN, "certificate": CERTIFICATE, "hosted_zone": "Z0123456789ABCDEFGHIJ"}
    new = write(tmp_path, monkeypatch, name="staging", region="eu-central-1", **names)
    printed = shown(lines(new, GOOD | NEW, "eu-central-1"))
    assert indent(printed, "  ") in (ROOT / "docs/start/deploy.md").read_text()
