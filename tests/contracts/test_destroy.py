"""`make destroy` on moto's CloudFormation, with a stage of one resource of each kind that holds data."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from ops import destroy as command
from ops import releases
from ops.account_answers import resources_of
from ops.answers import Answer
from ops.deploy_errors import DeployError
from ops.destroy import destroy, look, main
from ops.kept_data import BUCKET, KEY, KINDS, LOGS, SECRET, Kept, delete, kept_of, left_before, skipped_of
from ops.protection import TABLE, allow_repetition, protect, was_created
from ops.releases import Record, Release
from tests.deployment import aws
from tests.stage_files import write

_NUMBERS = count(1)
#: moto knows this word only, of the two that keep something.
KEPT = {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
TABLE_KEYS = {
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}
Client = Callable[[str], Any]


def template(policy: dict[str, str]) -> str:
    """Of a stage whose data is under a deletion policy."""
    document = {"Version": "2012-10-17", "Statement": []}
    resources: dict[str, Any] = {
        "Users": {"Type": TABLE, "Properties": TABLE_KEYS, **policy},
        "Console": {"Type": BUCKET, **policy},
        "Logs": {"Type": LOGS, **policy},
        "Key": {"Type": KEY, "Properties": {"KeyPolicy": document}, **policy},
        "Queue": {"Type": "AWS::SQS::Queue"},
    }
    return json.dumps({"Resources": resources})


class Protected:
    """moto's CloudFormation, and the protection of stacks, which moto lacks."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.protected: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def update_termination_protection(self, **given: Any) -> None:
        name = self._real.describe_stacks(StackName=given["StackName"])["Stacks"][0]["StackName"]
        (self.protected.add if given["EnableTerminationProtection"] else self.protected.discard)(name)

    def describe_stacks(self, **given: Any) -> dict[str, Any]:
        (described,) = self._real.describe_stacks(**given)["Stacks"]
        return {"Stacks": [{**described, "EnableTerminationProtection": described["StackName"] in self.protected}]}

    def delete_stack(self, **given: Any) -> None:
        assert not self.describe_stacks(**given)["Stacks"][0]["EnableTerminationProtection"], "AWS would refuse"
        self._real.delete_stack(**given)


@pytest.fixture
def client(moto_url: str) -> Client:
    cloudformation = Protected(aws(moto_url, "cloudformation"))
    return lambda service: cloudformation if service == "cloudformation" else aws(moto_url, service)


@pytest.fixture
def stage(client: Client) -> str:
    name = f"d{next(_NUMBERS)}"
    client("cloudformation").create_stack(StackName=f"Tidegate-{name}", TemplateBody=template(KEPT))
    return name


def is_there(client: Client, stage: str) -> bool:
    try:
        client("cloudformation").describe_stacks(StackName=f"Tidegate-{stage}")
    except botocore.exceptions.ClientError:
        return False
    return True


def physical(client: Client, stage: str) -> dict[str, str]:
    given = client("cloudformation").list_stack_resources(StackName=f"Tidegate-{stage}")["StackResourceSummaries"]
    return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in given}


def tables_of(client: Client) -> list[str]:
    """All of them: the account is shared with other tests, and one answer has a hundred."""
    pages = client("dynamodb").get_paginator("list_tables").paginate()
    return [name for page in pages for name in page["TableNames"]]


# --- the whole ----------------------------------------------------------------------------------------------


def test_the_stack_goes_and_its_data_stays(client: Client, stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = physical(client, stage)
    destroy(stage, client, stage, data=False, detach=False)
    assert not is_there(client, stage)
    told = capsys.readouterr().out
    for name, kind in (("Users", "table"), ("Console", "bucket"), ("Key", "key"), ("Logs", "log group")):
        assert f"{kind} {names[name]}: is kept" in told
    assert f"aws dynamodb describe-table --table-name {names['Users']}" in told
    assert names["Users"] in tables_of(client)
    assert f"get-resources --tag-filters Key=tidegate:stage,Values={stage}" in told


def test_all_of_it_goes_when_that_is_said(client: Client, stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = physical(client, stage)
    client("s3").put_bucket_versioning(Bucket=names["Console"], VersioningConfiguration={"Status": "Enabled"})
    for body in (b"one", b"two"):
        client("s3").put_object(Bucket=names["Console"], Key="index.html", Body=body)
    assert protect(client("cloudformation"), client("dynamodb"), f"Tidegate-{stage}")
    releases.write(client("ssm"), stage, Record(Release({"Api": "7"})))
    destroy(stage, client, stage, data=True, detach=False)
    assert not is_there(client, stage)
    assert releases.read(client("ssm"), stage) is None, "the stage made again could go back to what is gone"
    told = capsys.readouterr().out
    assert f"table {names['Users']}: is DELETED, with all that is in it" in told
    assert names["Users"] not in tables_of(client)
    assert names["Console"] not in {each["Name"] for each in client("s3").list_buckets()["Buckets"]}


@pytest.mark.parametrize("given", ["other", "", "Tidegate"])
def test_it_asks_by_name(client: Client, stage: str, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setattr("ops.confirm.sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: "no")
    with pytest.raises(DeployError, match="nothing was changed"):
        destroy(stage, client, given, data=False, detach=False)
    assert is_there(client, stage)
    monkeypatch.setattr("builtins.input", lambda prompt: f" {stage} ")
    destroy(stage, client, "", data=False, detach=False)
    assert not is_there(client, stage)


def test_where_nobody_can_be_asked_it_refuses_and_says_how(
    client: Client, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.confirm.sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(DeployError, match=f"make destroy STAGE={stage} NAME={stage}"):
        destroy(stage, client, "", data=False, detach=False)
    assert is_there(client, stage)


def test_a_protected_stage_is_unprotected_after_asking_and_not_before(client: Client, stage: str) -> None:
    cloudformation, stack = client("cloudformation"), f"Tidegate-{stage}"
    cloudformation.update_termination_protection(StackName=stack, EnableTerminationProtection=True)
    with pytest.raises(DeployError):
        destroy(stage, client, "other", data=False, detach=False)
    (described,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    assert described["EnableTerminationProtection"]
    destroy(stage, client, stage, data=False, detach=False)
    assert not is_there(client, stage)


def test_a_stage_that_is_not_there(client: Client) -> None:
    with pytest.raises(DeployError, match="Stage absent is not deployed here"):
        destroy("absent", client, "absent", data=True, detach=False)


def test_what_was_kept_can_go_later(
    client: Client, stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = physical(client, stage)["Users"]
    destroy(stage, client, stage, data=False, detach=False)
    # moto does not say of a stack that is gone what stayed of it.
    monkeypatch.setattr(command, "left_before", lambda *_: [Kept(TABLE, table)])
    with pytest.raises(DeployError, match=r"Of its data, 1 are left; DATA=delete removes them"):
        destroy(stage, client, stage, data=False, detach=False)
    with pytest.raises(DeployError, match="nothing was changed"):
        destroy(stage, client, "other", data=True, detach=False)
    assert table in tables_of(client)
    destroy(stage, client, stage, data=True, detach=False)
    assert f"table {table}: deleted" in capsys.readouterr().out
    assert table not in tables_of(client)


def test_a_disposable_stages_bucket_is_emptied_first(client: Client) -> None:
    name = f"d{next(_NUMBERS)}"
    client("cloudformation").create_stack(StackName=f"Tidegate-{name}", TemplateBody=template({}))
    bucket = physical(client, name)["Console"]
    client("s3").put_object(Bucket=bucket, Key="index.html", Body=b"a page")
    assert look(name, client).emptied == (bucket,) and look(name, client).kept == ()
    destroy(name, client, name, data=False, detach=False)
    assert bucket not in {each["Name"] for each in client("s3").list_buckets()["Buckets"]}


def test_the_command_ends_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], moto_url: str
) -> None:
    write(tmp_path, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    assert main(["--stage", "qa", "--name", "qa"]) == 1 and main([]) == 1
    told = capsys.readouterr().err
    assert "error: Stage qa is not deployed here." in told and "STAGE is missing" in told
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert main(["--stage", "qa", "--name", "qa"]) == 1
    assert "AWS cannot be reached" in capsys.readouterr().err


# --- devices ------------------------------------------------------------------------------------------------


def test_attached_certificates_are_named_and_detached_on_demand(
    client: Client, stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, iot, real = stage, client("iot"), resources_of
    policy = iot.create_policy(policyName=f"devices-{name}", policyDocument="{}")["policyName"]
    # moto gives a policy of a stack no physical name.
    of_stack = summary("AWS::IoT::Policy", policy)
    monkeypatch.setattr(command, "resources_of", lambda *asked: [*real(*asked), of_stack])
    certificate = iot.create_keys_and_certificate(setAsActive=True)["certificateArn"]
    iot.attach_policy(policyName=policy, target=certificate)
    with pytest.raises(DeployError) as refused:
        destroy(name, client, name, data=False, detach=False)
    assert f"aws iot detach-policy --policy-name {policy} --target {certificate}" in str(refused.value)
    assert f"make destroy STAGE={name} DEVICES=detach" in str(refused.value) and is_there(client, name)
    destroy(name, client, name, data=False, detach=True)
    assert f"detached: {certificate}" in capsys.readouterr().out and not is_there(client, name)
    assert iot.describe_certificate(certificateId=certificate.rsplit("/", 1)[-1])["certificateDescription"]


def test_certificates_that_cannot_be_looked_up_are_not_taken_for_none(
    client: Client, stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    denied = Answer(code="AccessDeniedException", message="no", denied="iot:ListTargetsForPolicy")
    monkeypatch.setattr(command, "ask", lambda action, call: denied)
    destroy(stage, client, stage, data=False, detach=False)
    assert "could not check (denied; needs iot:ListTargetsForPolicy)" in capsys.readouterr().out


# --- what is kept, from answers as CloudFormation gives them -------------------------------------------------


def summary(kind: str, name: str, status: str = "CREATE_COMPLETE") -> dict[str, str]:
    return {
        "LogicalResourceId": f"L{name}",
        "PhysicalResourceId": name,
        "ResourceType": kind,
        "ResourceStatus": status,
    }


def test_what_a_stack_keeps_follows_from_its_template() -> None:
    policies = {"t": "RetainExceptOnCreate", "k": "Retain", "b": "Delete"}
    document = {"Resources": {f"L{name}": {"DeletionPolicy": policy} for name, policy in policies.items()}}
    given = [summary(TABLE, "t"), summary(KEY, "k"), summary(BUCKET, "b"), summary(LOGS, "unknown")]
    assert kept_of(document, given) == [Kept(TABLE, "t"), Kept(KEY, "k")]
    assert kept_of(document, [summary(TABLE, "t", "DELETE_COMPLETE")]) == []


def test_what_stayed_of_a_stack_before_is_found() -> None:
    assert skipped_of([summary(TABLE, "t", "DELETE_SKIPPED"), summary(KEY, "k", "DELETE_COMPLETE")]) == [
        Kept(TABLE, "t")
    ]
    assert skipped_of([summary("AWS::IAM::Role", "logs", "DELETE_SKIPPED")]) == [], "it is others' by now"


class Recorded:
    """CloudFormation's answers of two stacks of a name that are gone, and of another's."""

    def get_paginator(self, operation: str) -> Any:
        self.operation = operation
        return self

    def paginate(self, **given: Any) -> list[dict[str, Any]]:
        if self.operation == "list_stacks":
            assert given == {"StackStatusFilter": ["DELETE_COMPLETE"]}
            names = {"a1": "Tidegate-qa", "a2": "Tidegate-qa", "b": "Tidegate-other"}
            return [{"StackSummaries": [{"StackId": key, "StackName": name}]} for key, name in names.items()]
        kept = summary(TABLE, f"table-of-{given['StackName']}", "DELETE_SKIPPED")
        return [{"StackResourceSummaries": [kept]}]


def test_what_stayed_is_that_of_all_stacks_of_the_name() -> None:
    assert left_before(Recorded(), "Tidegate-qa") == [Kept(TABLE, "table-of-a1"), Kept(TABLE, "table-of-a2")]


def test_each_kind_is_deleted_and_twice_is_no_mistake(client: Client) -> None:
    number = next(_NUMBERS)
    client("dynamodb").create_table(TableName=f"t{number}", DeletionProtectionEnabled=True, **TABLE_KEYS)
    client("s3").create_bucket(Bucket=f"kept-{number}")
    client("s3").put_object(Bucket=f"kept-{number}", Key="k", Body=b"v")
    client("logs").create_log_group(logGroupName=f"g{number}")
    secret = client("secretsmanager").create_secret(Name=f"s{number}", SecretString="s")["ARN"]
    key = client("kms").create_key()["KeyMetadata"]["KeyId"]
    kept = [
        Kept(TABLE, f"t{number}"),
        Kept(BUCKET, f"kept-{number}"),
        Kept(LOGS, f"g{number}"),
        Kept(SECRET, secret),
        Kept(KEY, key),
    ]
    assert {each.type for each in kept} == set(KINDS)
    said = [delete(each, client) for each in kept]
    assert said == ["deleted", "emptied and deleted", "deleted", *["gone for good in 7 days"] * 2]
    assert client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    assert "DeletedDate" in client("secretsmanager").describe_secret(SecretId=secret)
    for each in kept[:3]:
        assert delete(each, client) == "was gone already"


# --- protection ---------------------------------------------------------------------------------------------


def test_a_stage_is_protected_once(client: Client, stage: str) -> None:
    stack, table = f"Tidegate-{stage}", physical(client, stage)["Users"]
    assert protect(client("cloudformation"), client("dynamodb"), stack) == [stack, f"policy of {stack}", table]
    (described,) = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    assert described["EnableTerminationProtection"]
    assert client("dynamodb").describe_table(TableName=table)["Table"]["DeletionProtectionEnabled"]
    assert protect(client("cloudformation"), client("dynamodb"), stack) == []


@pytest.mark.parametrize(("status", "allowed"), [("ROLLBACK_COMPLETE", True), ("UPDATE_COMPLETE", False)])
def test_only_a_failed_creation_loses_its_protection(client: Client, stage: str, status: str, allowed: bool) -> None:
    cloudformation, stack = client("cloudformation"), f"Tidegate-{stage}"
    cloudformation.update_termination_protection(StackName=stack, EnableTerminationProtection=True)
    (described,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    assert allow_repetition(cloudformation, stack, {**described, "StackStatus": status}) is allowed
    (described,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    assert described["EnableTerminationProtection"] is not allowed
    cloudformation.update_termination_protection(StackName=stack, EnableTerminationProtection=False)


@pytest.mark.parametrize(
    ("status", "was"),
    [
        (None, False),
        ("REVIEW_IN_PROGRESS", False),
        ("CREATE_IN_PROGRESS", False),
        ("CREATE_FAILED", False),
        ("ROLLBACK_COMPLETE", False),
        ("ROLLBACK_FAILED", False),
        ("DELETE_FAILED", False),
        ("CREATE_COMPLETE", True),
        ("UPDATE_COMPLETE", True),
        ("UPDATE_ROLLBACK_COMPLETE", True),
        ("IMPORT_COMPLETE", True),
    ],
)
def test_whether_a_stack_was_created(status: str | None, was: bool) -> None:
    assert was_created(status) is was
