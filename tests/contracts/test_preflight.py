"""`make preflight` asks an account: here moto, which has all of it but Lambda's quota."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID

from ops import preflight
from ops.account_answers import BOOTSTRAP_PARAMETER, collect
from ops.answers import Answer
from ops.preflight import main, session_of
from ops.readiness import State, lines
from tests.deployment import REGION, aws
from tests.stage_files import write

TEMPLATE = json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}})


@pytest.fixture(autouse=True)
def account(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    return moto_url


def states(answers: Any, stage: Any) -> dict[str, State]:
    return {line.check: line.state for line in lines(stage, answers, REGION)}


def test_an_account_is_asked(account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = aws(account, "acm").request_certificate(DomainName="*.example.com")["CertificateArn"]
    zone = aws(account, "route53").create_hosted_zone(Name="example.com", CallerReference="preflight")["HostedZone"]
    network = aws(account, "ec2")
    vpc = network.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = network.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    aws(account, "ssm").put_parameter(Name=BOOTSTRAP_PARAMETER, Value="27", Type="String", Overwrite=True)
    aws(account, "cloudformation").create_stack(StackName="Tidegate-asked", TemplateBody=TEMPLATE)
    stage = write(
        tmp_path,
        monkeypatch,
        name="asked",
        account=DEFAULT_ACCOUNT_ID,
        domain="live.example.com",
        certificate=certificate,
        hosted_zone=zone["Id"].rsplit("/", 1)[-1],
        relay_vpc={"vpc": vpc, "subnets": [subnet], "security_groups": ["sg-01234567"]},
    )
    answers = collect(stage, session_of(stage))
    assert answers["caller"].value["Account"] == DEFAULT_ACCOUNT_ID and answers["bootstrap"].value == "27"
    assert answers["stack"].value["StackStatus"] == "CREATE_COMPLETE"
    assert [each["ResourceType"] for each in answers["resources"].value] == ["AWS::SQS::Queue"]
    assert answers["subnets"].value[0]["SubnetId"] == subnet
    found = states({**answers, "concurrency": Answer(1000)}, stage)
    assert {check for check, state in found.items() if state is State.OK} >= {
        "credentials",
        "region",
        "bootstrap",
        "stack",
        "requests of API Gateway",
        "logging role of API Gateway",
        "hosted zone",
        "network of the relay",
    }
    assert found["certificate"] is (State.OK if answers["certificate"].value["Status"] == "ISSUED" else State.FAILED)


def test_what_is_not_there_is_told_apart_from_what_is_denied(
    account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = f"arn:aws:acm:us-east-1:{DEFAULT_ACCOUNT_ID}:certificate/00000000-0000-4000-8000-000000000000"
    stage = write(tmp_path, monkeypatch, name="absent", domain="a.example.com", certificate=arn, hosted_zone="ZNONE")
    answers = collect(stage, session_of(stage))
    assert "does not exist" in answers["stack"].message and "resources" not in answers
    found = states({**answers, "concurrency": Answer(1000)}, stage)
    assert found["certificate"] is found["hosted zone"] is State.FAILED and found["stack"] is State.OK


def test_a_role_that_is_set_is_looked_for(account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = write(tmp_path, monkeypatch, name="role")
    gateway, role = aws(account, "apigateway"), f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/logs-of-others"

    def set_role(arn: str) -> None:
        change = {"op": "replace", "path": "/cloudwatchRoleArn", "value": arn}
        gateway.update_account(patchOperations=[change])

    set_role(role)
    try:
        assert collect(stage, session_of(stage))["role"].code == "NoSuchEntity"
        aws(account, "iam").create_role(RoleName="logs-of-others", AssumeRolePolicyDocument="{}")
        assert collect(stage, session_of(stage))["role"].value == role
    finally:
        set_role("")
    assert "role" not in collect(stage, session_of(stage))


def test_the_command_prints_lines_or_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, monkeypatch, name="printed", edge=False)
    code = main(["--stage", "printed"])
    told = capsys.readouterr().out
    assert "ok               region: us-east-1." in told and code in (1, 3)
    assert main(["--stage", "printed", "--json"]) == code
    given = json.loads(capsys.readouterr().out)
    assert given["stage"] == "printed"
    for line in given["lines"]:
        assert f"  {line['state']:<15}  {line['check']}: " in told
    assert given["lines"][1] == {"check": "region", "state": "ok", "found": "us-east-1", "do": "", "stops": False}


def test_a_stage_that_is_not_there_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stage", "nowhere"]) == 1 and main([]) == 1
    told = capsys.readouterr().err
    assert "Stage 'nowhere' does not exist" in told and "STAGE is missing" in told


def test_a_profile_that_is_not_there_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert main(["--stage", "staging"]) == 1
    assert capsys.readouterr().err == "error: The config profile (nobody) could not be found\n"


def test_an_address_that_nobody_answers_at_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    looked = preflight.look(write(tmp_path, monkeypatch, name="unreached"))
    assert [line.state for line in looked.lines] == [State.UNKNOWN, State.OK] and not looked.stops
