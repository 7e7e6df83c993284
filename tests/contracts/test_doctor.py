"""`make doctor` asks a deployed stage: here on moto, with an API that counts as ours does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID

from infra.stage import Stage
from ops import doctor, doctor_facts, doctor_probe
from ops.account_answers import resources_of
from ops.answers import Answer
from ops.doctor_checks import Probed, Protection, Receiver, Used, findings
from ops.doctor_facts import Target, collect
from ops.doctor_probe import Probe
from ops.readiness import State
from ops.stack_policy import POLICY
from tests.contracts.test_destroy import Protected
from tests.deployment import REGION, aws
from tests.stage_files import write
from tidegate.domain.client_ip import client_ip, ip_key
from tidegate.domain.limits import REALTIME_ASKED_SCOPE, FailureMode
from tidegate.providers.limits import LimitProviders
from tidegate.tables import ACCESS, ALL_TABLES

OURS = "127.0.0.1"
#: How many proxies the server below stands behind: one, which appends our address, as the edge does.
HOPS = 1
EVERY_MINUTE = {
    "ScheduleExpression": "rate(1 minutes)",
    "FlexibleTimeWindow": {"Mode": "OFF"},
    "Target": {"Arn": "arn:aws:lambda:us-east-1:1:function:f", "RoleArn": "arn:aws:iam::1:role/r"},
}


@contextmanager
def api(environment: Mapping[str, str], hops: int, status: int = 200) -> Iterator[str]:
    """Answers as an edge with the API behind it, which trusts so many hops."""
    rates = LimitProviders(environment).rates(FailureMode.CLOSED)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if status == 200:
                chain = [value for value in [self.headers.get("X-Forwarded-For"), self.client_address[0]] if value]
                found = client_ip("198.51.100.1", [", ".join(chain)], hops)
                rates.consume(REALTIME_ASKED_SCOPE, ip_key(found.address), 120, refusal="too many")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer((OURS, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{OURS}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return write(tmp_path, monkeypatch, name="doctored", alarm_email="on-call@example.com")


# --- a request ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hops", "own", "forged"),
    [(HOPS, 1, 0), (HOPS + 1, 0, 1), (HOPS + 15, 0, 1), (0, 0, 0)],
    ids=["right", "one too many", "as many as there may be", "too few"],
)
def test_whom_a_request_is_counted_for(
    deployed: Mapping[str, str], stage: Stage, hops: int, own: int, forged: int
) -> None:
    with api(deployed, hops) as url:
        assert Probe(stage, OURS, lambda: deployed).counted(url) == Answer(Probed(OURS, own, forged))
        again = Probe(stage, OURS, lambda: deployed).counted(url)
    assert again.value.own == own, "what was counted before is not taken for this request"


def test_our_address_is_asked_for(deployed: Mapping[str, str], stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def known(url: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        return (200, OURS) if url == doctor_probe.WHO_AM_I else get(url, headers)

    get = doctor_probe.get
    monkeypatch.setattr(doctor_probe, "get", known)
    with api(deployed, HOPS) as url:
        assert Probe(stage, None, lambda: deployed).counted(url).value.own == 1
    monkeypatch.setattr(doctor_probe, "get", lambda url, headers=None: (200, "<html>"))
    answer = Probe(stage, None, lambda: deployed).counted("http://unused")
    assert not answer.there and "--address" in answer.message


def test_a_request_that_is_not_answered_says_nothing(deployed: Mapping[str, str], stage: Stage) -> None:
    probe = Probe(stage, OURS, lambda: deployed)
    with api(deployed, HOPS, status=503) as url:
        assert "answers with 503, and not with 200" in probe.counted(url).message
        assert probe.status(url) == Answer(503)
    assert probe.counted("http://127.0.0.1:9").code == "ConnectionRefusedError"
    assert not probe.status("http://127.0.0.1:9").there


def test_a_salt_that_cannot_be_read_says_nothing(deployed: Mapping[str, str], stage: Stage) -> None:
    environment = {**deployed, "LIMITER_HASH_SALT_ARN": "arn:aws:secretsmanager:us-east-1:1:secret:gone"}
    answer = Probe(stage, OURS, lambda: environment).counted("http://127.0.0.1:9")
    assert not answer.there and answer.code.startswith("secret")


def test_what_is_counted_in_memory_is_not_seen(
    deployed: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"SECURITY_LIMITER_BACKEND": "memory", "TIDEGATE_ENV": "test"}
    memory = write(tmp_path, monkeypatch, disposable=True, settings=settings)
    assert "in memory" in Probe(memory, OURS, lambda: deployed).counted("http://unused").message


# --- what is deployed ---------------------------------------------------------------------------------------


@pytest.fixture
def schedule(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the stack's schedule. moto's CloudFormation makes none, so it is added to what the stack has."""
    name = "Tidegate-doctored-Schedule-ABC"
    made = {"ResourceType": doctor_facts.SCHEDULE, "PhysicalResourceId": name}
    monkeypatch.setattr(doctor_facts, "resources_of", lambda client, stack: [*resources_of(client, stack), made])
    scheduler = aws(moto_url, "scheduler")
    for each in (name, f"{name}-of-somebody-else"):
        scheduler.create_schedule(Name=each, **EVERY_MINUTE)
    yield name
    for found in scheduler.list_schedules(NamePrefix=name)["Schedules"]:
        scheduler.delete_schedule(Name=found["Name"])


@pytest.fixture
def target(moto_url: str, deployed: Mapping[str, str], stage: Stage, schedule: str) -> Iterator[Target]:
    """The stage, deployed: its stack has the functions and the topic, and names tables and secrets that are there."""
    role = aws(moto_url, "iam").create_role(RoleName="doctored", AssumeRolePolicyDocument="{}")["Role"]
    function = {
        "Handler": "x.y",
        "Runtime": "python3.13",
        "Role": role["Arn"],
        "Code": {"ZipFile": "x"},
        "Environment": {"Variables": {**stage.variables, "TIDEGATE_SERVICE": "httpapi-api"}},
    }
    others = {key: value for key, value in function.items() if key != "Environment"}
    outputs = {
        **{_name(table.variable): deployed[table.variable] for table in ALL_TABLES},
        **{
            _name(variable): deployed[variable]
            for variable in deployed
            if variable.endswith(("SECRET_ARN", "SALT_ARN"))
        },
        _name("GATEWAY_SERVICE_TOKEN_ARN"): deployed["GATEWAY_SERVICE_TOKEN_ARN"],
        "RevalidationQueueUrl": deployed["REVALIDATION_QUEUE_URL"],
        "CredentialKeys": json.dumps({"1": deployed["CREDENTIAL_KEY_ID"]}),
    }
    template = {
        "Resources": {
            "Api": {"Type": "AWS::Lambda::Function", "Properties": function},
            "Helper": {"Type": "AWS::Lambda::Function", "Properties": others},
            "Alarms": {"Type": "AWS::SNS::Topic"},
            "Kept": {
                "Type": "AWS::DynamoDB::Table",
                "Properties": {
                    "BillingMode": "PAY_PER_REQUEST",
                    "AttributeDefinitions": [{"AttributeName": "key", "AttributeType": "S"}],
                    "KeySchema": [{"AttributeName": "key", "KeyType": "HASH"}],
                },
            },
        }
    }
    with api(deployed, HOPS) as url:
        outputs |= {"EdgeUrl": url, "HttpApiUrl": url}
        template["Outputs"] = {name: {"Value": value} for name, value in outputs.items()}
        cloudformation = aws(moto_url, "cloudformation")
        cloudformation.create_stack(StackName="Tidegate-doctored", TemplateBody=json.dumps(template))
        for each in cloudformation.list_stack_resources(StackName="Tidegate-doctored")["StackResourceSummaries"]:
            if each["ResourceType"] == doctor_facts.FUNCTION:
                name = each["PhysicalResourceId"]
                version = aws(moto_url, "lambda").publish_version(FunctionName=name)["Version"]
                aws(moto_url, "lambda").create_alias(FunctionName=name, Name="live", FunctionVersion=version)
        protected = Protected(cloudformation)
        credentials = {name: value for name, value in deployed.items() if name.startswith("AWS_")}
        yield Target(
            lambda service: protected if service == "cloudformation" else aws(moto_url, service),
            REGION,
            lambda: credentials,
            address=OURS,
        )
        cloudformation.delete_stack(StackName="Tidegate-doctored")
        aws(moto_url, "iam").delete_role(RoleName="doctored")


def _name(variable: str) -> str:
    return variable.title().replace("_", "")


def test_a_deployed_stage_is_asked(stage: Stage, target: Target, deployed: Mapping[str, str]) -> None:
    answers = collect(stage, target)
    assert answers["caller"].value["Account"] == DEFAULT_ACCOUNT_ID
    assert answers["stack"].value["StackStatus"] == "CREATE_COMPLETE"
    assert answers["environments"].value.keys() == {"httpapi-api"}, "a function that is not ours is left out"
    table = kept_table(target)
    assert answers["protection"].value == Protection(stack=False, policy=None, tables=(table,))
    backed_up = [table.name for table in ALL_TABLES if table.backed_up]
    assert answers["recovery"].value == backed_up
    assert {name: round(age.days) for name, age in answers["secrets"].value.items()} == dict.fromkeys(
        ("jwt", "jwt-gateway", "service-token", "limiter-salt"), 0
    )
    assert answers["schedule"].value == "ENABLED"
    assert answers["keys"].value == {"1": False} and answers["topic"].value == Receiver(0, 0)
    assert answers["used"].value == Used(set()) and answers["around"].value == 200
    assert answers["probed"].value == Probed(OURS, own=1, forged=0)
    failed = {line.check for line in findings(stage, answers, REGION) if line.state is State.FAILED}
    assert failed == {
        "deletion protection",
        "point-in-time recovery",
        "rotation of credential keys",
        "subscribers of alarms",
        "way around the edge",
    }


def test_what_was_mended_is_ok(stage: Stage, target: Target, deployed: Mapping[str, str]) -> None:
    table = kept_table(target)
    dynamodb, cloudformation = target.client("dynamodb"), target.client("cloudformation")
    dynamodb.update_table(TableName=table, DeletionProtectionEnabled=True)
    cloudformation.update_termination_protection(StackName="Tidegate-doctored", EnableTerminationProtection=True)
    cloudformation.set_stack_policy(StackName="Tidegate-doctored", StackPolicyBody=POLICY)
    on = {"PointInTimeRecoveryEnabled": True}
    for each in ALL_TABLES:
        if each.backed_up:
            dynamodb.update_continuous_backups(TableName=deployed[each.variable], PointInTimeRecoverySpecification=on)
    answers = collect(stage, target)
    assert answers["protection"].value == Protection(stack=True, policy=POLICY)
    assert answers["recovery"].value == []
    dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False)


def test_a_schedule_is_off_or_gone(stage: Stage, target: Target, schedule: str) -> None:
    scheduler = target.client("scheduler")
    scheduler.update_schedule(Name=schedule, State="DISABLED", **EVERY_MINUTE)
    assert collect(stage, target)["schedule"].value == "DISABLED"
    scheduler.delete_schedule(Name=schedule)
    answer = collect(stage, target)["schedule"]
    assert answer.there and answer.value is None, "that of another name is not taken for it"


def test_protocols_are_read_from_intents(stage: Stage, target: Target, deployed: Mapping[str, str]) -> None:
    intents = {"M": {"d1": {"S": '{"protocol":"mqtt"}'}, "d2": {"S": '{"protocol":"sse"}'}}}
    dash = {"key": {"S": "dash#1"}, "intents": {"M": {"d1": {"S": "a hash"}}}}
    for item in ({"key": {"S": "intents#1"}, "intents": intents}, {"key": {"S": "intents#2"}}, dash):
        target.client("dynamodb").put_item(TableName=deployed[ACCESS.variable], Item=item)
    assert collect(stage, target)["used"].value == Used({"mqtt", "sse"})


def test_a_secret_is_as_old_as_its_current_value(stage: Stage, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC) + timedelta(days=100)
    monkeypatch.setattr(doctor_facts, "now", lambda: now)
    found = collect(stage, target)["secrets"].value["jwt"]
    assert round(found.days) == 100 and not found.beside


def kept_table(target: Target) -> str:
    """The name of the table that the stack has."""
    found = target.client("cloudformation").describe_stack_resource(
        StackName="Tidegate-doctored", LogicalResourceId="Kept"
    )
    return str(found["StackResourceDetail"]["PhysicalResourceId"])


# --- the command --------------------------------------------------------------------------------------------


def test_a_stage_that_is_not_deployed(
    moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    write(tmp_path, monkeypatch, name="absent", alarm_email="on-call@example.com")
    code = doctor.main(["--stage", "absent"])
    told = capsys.readouterr().out
    assert "  could not check  stack: Tidegate-absent is not deployed here.\n" in told
    assert "-> run `make deploy STAGE=absent`." in told
    assert doctor.main(["--stage", "absent", "--json"]) == code
    given = json.loads(capsys.readouterr().out)
    assert given["stage"] == "absent" and all(line["why"] for line in given["lines"])
    for line in given["lines"]:
        assert f"  {line['state']:<15}  {line['check']}: {line['found']}." in told


def test_without_credentials_the_file_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    write(tmp_path, monkeypatch, name="alone", alarm_email="on-call@example.com")
    assert doctor.main(["--stage", "alone"]) == 3, "nothing is wrong that can be seen"
    told = capsys.readouterr().out
    assert "could not check  credentials: there are none." in told and "failed" not in told
    write(tmp_path, monkeypatch, name="alone")
    assert doctor.main(["--stage", "alone"]) == 1, "nobody is told of alarms"


@pytest.mark.parametrize(
    ("options", "told"),
    [([], "STAGE is missing; use STAGE=<one of: "), (["--stage", "nowhere"], "Stage 'nowhere' does not exist")],
)
def test_a_stage_that_is_none(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(options) == 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("address", ["2001:db8::1", "here", ""])
def test_an_address_is_one(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        doctor.main(["--stage", "staging", "--address", address])
    assert "is no IPv4 address; allowed: one such as" in capsys.readouterr().err
