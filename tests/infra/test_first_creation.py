"""A first creation that fails can be tried again: nothing of it is protected, and nothing of it stays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import aws_cdk as cdk
import pytest

from infra.app import build
from infra.stage import names
from tests.infra.test_templates import KEPT, flags, template

#: Properties by which a resource has the name that it is to have, and no other has.
NAMES = ("TableName", "BucketName", "LogGroupName", "AliasName", "RoleName", "Name")
CLOUD_STAGES = [name for name in names() if name != "local"]


def wedges(rendered: Mapping[str, Any]) -> Iterator[str]:
    """Why each resource would keep the next try from succeeding, or stay behind after this one."""
    for name, resource in rendered["Resources"].items():
        policy = resource.get("DeletionPolicy", "Delete")
        if policy not in ("Delete", KEPT):
            yield f"{name}: {policy} leaves it behind when the creation is rolled back"
        properties = resource.get("Properties", {})
        for key, value in properties.items():
            if "protection" in key.lower() and value not in (False, "INACTIVE"):
                yield f"{name}: {key} keeps a rollback from deleting it"
        if policy == KEPT and (given := [key for key in NAMES if key in properties]):
            yield f"{name}: what is kept has the name that the next one is to have, {given[0]}"


def assembly(stage: str, **context: object) -> Any:
    app = cdk.App(context={"stage": stage, "aws:cdk:bundling-stacks": [], **flags(), **context})
    stack = build(app)
    return app.synth().get_stack_by_name(stack.stack_name)


@pytest.mark.parametrize("stage", CLOUD_STAGES)
def test_nothing_keeps_a_first_creation_from_being_repeated(stage: str) -> None:
    assert list(wedges(template(stage))) == []


@pytest.mark.parametrize(
    ("resource", "told"),
    [
        ({"DeletionPolicy": "Retain"}, "leaves it behind"),
        ({"DeletionPolicy": "Snapshot"}, "leaves it behind"),
        ({"Properties": {"DeletionProtectionEnabled": True}}, "keeps a rollback from deleting"),
        ({"Properties": {"DeletionProtection": "ACTIVE"}}, "keeps a rollback from deleting"),
        ({"DeletionPolicy": KEPT, "Properties": {"TableName": "t"}}, "the name that the next one is to have"),
    ],
)
def test_what_would_is_noticed(resource: dict[str, Any], told: str) -> None:
    (found,) = wedges({"Resources": {"One": resource}})
    assert found.startswith("One: ") and told in found


def test_what_is_kept_is_kept_when_the_stack_goes_and_when_it_is_replaced() -> None:
    kept = [each for each in template("production")["Resources"].values() if each.get("DeletionPolicy") == KEPT]
    assert {each["UpdateReplacePolicy"] for each in kept} == {"Retain"}
    kinds = {each["Type"] for each in kept}
    assert kinds >= {
        "AWS::DynamoDB::Table",
        "AWS::KMS::Key",
        "AWS::SecretsManager::Secret",
        "AWS::S3::Bucket",
        "AWS::Logs::LogGroup",
    }
    data = [each for each in template("production")["Resources"].values() if each["Type"] in kinds]
    assert len([each for each in data if each["Type"] != "AWS::IAM::Role"]) == len(
        [each for each in kept if each["Type"] != "AWS::IAM::Role"]
    ), "all of a kind that holds data is kept"


def test_a_stage_beside_the_kept_data_of_one_before_has_other_names() -> None:
    """CloudFormation makes the names, with a part of the new stack's own. So no kept table is in the way."""
    for resource in template("production")["Resources"].values():
        if resource.get("DeletionPolicy") == KEPT:
            assert not resource.get("Properties", {}).keys() & set(NAMES), resource["Type"]


def test_the_stack_is_protected_only_when_it_was_created_before() -> None:
    """The CDK CLI switches the protection before it creates, and could not delete what failed."""
    assert assembly("production").termination_protection is not True
    assert assembly("production", created="true").termination_protection is True
    assert assembly("local", created="true").termination_protection is not True


def test_everything_of_a_stage_is_tagged_with_its_name() -> None:
    made = assembly("staging")
    assert dict(made.tags) == {"tidegate:stage": "staging"}
    # CloudFormation tags by the stack, so the template need not.
    assert "tidegate:stage" not in json.dumps(template("staging"))
