"""What a stage leaves behind that holds data: which resources these are, how to find them, and how to delete them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import botocore.exceptions

from ops.account_answers import resources_of
from ops.protection import TABLE, set_tables

#: How CloudFormation is told to keep something.
_KEPT = ("Retain", "RetainExceptOnCreate")
BUCKET, SECRET, KEY, LOGS = "AWS::S3::Bucket", "AWS::SecretsManager::Secret", "AWS::KMS::Key", "AWS::Logs::LogGroup"
#: Days until a secret or a key is gone for good. It is the least that AWS takes, and the time to undo a mistake.
LAST_DAYS = 7
_GONE = frozenset({"ResourceNotFoundException", "NoSuchBucket", "NotFoundException", "404", "KMSInvalidStateException"})
#: Type -> what it is, and the command that shows one.
KINDS = {
    TABLE: ("table", "aws dynamodb describe-table --table-name {}"),
    SECRET: ("secret", "aws secretsmanager describe-secret --secret-id {}"),
    KEY: ("key", "aws kms describe-key --key-id {}"),
    BUCKET: ("bucket", "aws s3 ls s3://{}"),
    LOGS: ("log group", "aws logs tail {}"),
}


@dataclass(frozen=True, slots=True, order=True)
class Kept:
    """A resource that outlives its stack. `name` is its physical name or ARN."""

    type: str
    name: str

    @property
    def kind(self) -> str:
        return KINDS[self.type][0]

    @property
    def command(self) -> str:
        return KINDS[self.type][1].format(self.name)


def kept_of(template: Mapping[str, Any], resources: Iterable[Mapping[str, Any]]) -> list[Kept]:
    """What stays when a stack is deleted, of what holds data. `resources`: CloudFormation's summaries."""
    return sorted(
        Kept(each["ResourceType"], each["PhysicalResourceId"])
        for each in resources
        if each["ResourceType"] in KINDS
        and each.get("PhysicalResourceId")
        and each["ResourceStatus"] != "DELETE_COMPLETE"
        and template["Resources"].get(each["LogicalResourceId"], {}).get("DeletionPolicy") in _KEPT
    )


def skipped_of(resources: Iterable[Mapping[str, Any]]) -> list[Kept]:
    """What stayed of a stack that was deleted."""
    return sorted(
        Kept(each["ResourceType"], each["PhysicalResourceId"])
        for each in resources
        if each["ResourceType"] in KINDS and each["ResourceStatus"] == "DELETE_SKIPPED"
    )


def left_before(cloudformation: Any, stack: str) -> list[Kept]:
    """What stayed of the stacks of this name that were deleted. CloudFormation tells of them for 90 days.

    An error of AWS is passed on.
    """
    pages = cloudformation.get_paginator("list_stacks").paginate(StackStatusFilter=["DELETE_COMPLETE"])
    ids = [each["StackId"] for page in pages for each in page["StackSummaries"] if each["StackName"] == stack]
    return sorted({kept for each in ids for kept in skipped_of(resources_of(cloudformation, each))})


def delete(kept: Kept, client: Callable[[str], Any]) -> str:
    """Delete it. Returns what became of it, for people. An error of AWS is passed on.

    Args:
        client: boto3's clients, by service.
    """
    try:
        return _DELETERS[kept.type](kept.name, client)
    except botocore.exceptions.ClientError as error:
        if error.response.get("Error", {}).get("Code") in _GONE:
            return "was gone already"
        raise


def empty(s3: Any, bucket: str) -> None:
    """Delete every object of a bucket, and every version of it. An error of AWS is passed on."""
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        there = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        if there:
            named = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in there]
            s3.delete_objects(Bucket=bucket, Delete={"Objects": named, "Quiet": True})


def _table(name: str, client: Callable[[str], Any]) -> str:
    dynamodb = client("dynamodb")
    set_tables(dynamodb, [name], protected=False)
    dynamodb.delete_table(TableName=name)
    return "deleted"


def _bucket(name: str, client: Callable[[str], Any]) -> str:
    empty(client("s3"), name)
    client("s3").delete_bucket(Bucket=name)
    return "emptied and deleted"


def _secret(name: str, client: Callable[[str], Any]) -> str:
    client("secretsmanager").delete_secret(SecretId=name, RecoveryWindowInDays=LAST_DAYS)
    return f"gone for good in {LAST_DAYS} days"


def _key(name: str, client: Callable[[str], Any]) -> str:
    client("kms").schedule_key_deletion(KeyId=name, PendingWindowInDays=LAST_DAYS)
    return f"gone for good in {LAST_DAYS} days"


def _logs(name: str, client: Callable[[str], Any]) -> str:
    client("logs").delete_log_group(logGroupName=name)
    return "deleted"


_DELETERS: Mapping[str, Callable[[str, Callable[[str], Any]], str]] = {
    TABLE: _table,
    BUCKET: _bucket,
    SECRET: _secret,
    KEY: _key,
    LOGS: _logs,
}
