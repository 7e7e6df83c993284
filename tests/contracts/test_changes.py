"""What a deployment asks about, decided from change sets as CloudFormation describes them."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from ops import change_set
from ops.changes import STATEFUL, Reason, first, reasons
from ops.deploy_errors import DeployError
from tests.deployment import aws
from tests.infra.test_templates import template

_NUMBERS = count(1)


def edge(*names: str) -> dict[str, Any]:
    config = {"Aliases": list(names)} if names else {}
    return {
        "Resources": {"Edge": {"Type": "AWS::CloudFront::Distribution", "Properties": {"DistributionConfig": config}}}
    }


def change(kind: str, action: str = "Modify", **more: Any) -> dict[str, Any]:
    """An entry of `Changes`, as CloudFormation gives it without property values."""
    scope = {"Scope": ["Properties"], "Replacement": "False"} if action == "Modify" else {"Scope": []}
    resource = {
        **({} if action == "Add" else {"PhysicalResourceId": "p-1"}),
        "Action": action,
        "LogicalResourceId": "One",
        "ResourceType": kind,
        "Details": [],
        **scope,
        **more,
    }
    return {"Type": "Resource", "ResourceChange": resource}


def asked(*changes: dict[str, Any]) -> list[str]:
    return [f"{each.about}: {each.what}" for each in reasons(changes, edge(), edge())]


@pytest.mark.parametrize("kind", STATEFUL)
def test_what_holds_state_is_not_replaced_or_removed_unasked(kind: str) -> None:
    named = f"the {STATEFUL[kind]} One (p-1)"
    for action, more, told in (
        ("Remove", {"PolicyAction": "Delete"}, f"removes {named}, and deletes it"),
        ("Remove", {}, f"removes {named}, and deletes it"),
        ("Remove", {"PolicyAction": "Retain"}, f"removes {named}, which stays in the account"),
        (
            "Modify",
            {"Replacement": "True", "PolicyAction": "ReplaceAndDelete"},
            f"replaces {named} by an empty one; the one before is deleted",
        ),
        (
            "Modify",
            {"Replacement": "True", "PolicyAction": "ReplaceAndRetain"},
            f"replaces {named} by an empty one; the one before stays in the account",
        ),
        ("Modify", {"Replacement": "Conditional"}, f"may replace {named}"),
    ):
        (found,) = asked(change(kind, action, **more))
        assert found.startswith(f"state: {told}")
    assert asked(change(kind), change(kind, "Add")) == []


def test_what_says_who_may_do_what_is_not_changed_unasked() -> None:
    assert asked(
        change("AWS::IAM::Role", "Add"),
        change("AWS::IAM::Policy"),
        change("AWS::IAM::ManagedPolicy", "Remove"),
        change("AWS::Lambda::Permission"),
        change("AWS::S3::BucketPolicy"),
        change("AWS::IoT::Policy", Replacement="True"),
    ) == [
        "rights: adds IAM::Role One",
        "rights: changes IAM::Policy One (p-1)",
        "rights: removes IAM::ManagedPolicy One (p-1)",
        "rights: changes Lambda::Permission One (p-1)",
        "rights: changes S3::BucketPolicy One (p-1)",
        "rights: changes IoT::Policy One (p-1)",
    ]
    policy = {"Target": {"Attribute": "Properties", "Name": "KeyPolicy"}}
    assert asked(change("AWS::KMS::Key", Details=[policy])) == ["rights: changes KeyPolicy of the key One (p-1)"]
    assert asked(change("AWS::IAM::Role", Scope=["Tags"]), change("AWS::IAM::Role", Scope=["Metadata", "Tags"])) == []


def test_everyday_changes_are_not_asked_about() -> None:
    everyday = ("AWS::Lambda::Function", "AWS::Lambda::LayerVersion", "AWS::SQS::Queue", "AWS::CloudWatch::Alarm")
    for kind in everyday:
        assert asked(change(kind), change(kind, "Add"), change(kind, "Remove"), change(kind, Replacement="True")) == []


def test_a_name_is_not_taken_away_or_given_unasked() -> None:
    one, other = edge("live.example.com"), edge("new.example.com")
    taken = Reason("domain", "takes the name live.example.com away")
    assert reasons([], one, edge()) == [taken]
    assert reasons([], one, other) == [taken, Reason("domain", "gives the stage the name new.example.com")]
    assert reasons([], one, one) == []
    assert reasons([], one, {"Resources": {}}) == [taken], "the whole edge went"
    record = "AWS::Route53::RecordSet"
    assert asked(change(record, "Remove"), change(record, Replacement="True")) == [
        "domain: takes the record One (p-1) away"
    ]
    assert asked(change(record, "Add"), change(record)) == []


def test_a_thing_is_said_once() -> None:
    assert len(asked(change("AWS::IAM::Role"), change("AWS::IAM::Role"))) == 1


def test_a_first_creation_says_how_much_it_makes() -> None:
    (found,) = first(template("production"))
    assert found.about == "rights" and found.what.startswith("creates ")
    assert int(found.what.split()[1]) > int(found.what.split()[3]) > 12
    assert first(edge("live.example.com"))[1] == Reason("domain", "gives the stage the name live.example.com")


# --- the change set -----------------------------------------------------------------------------------------


class Recorded:
    """CloudFormation that answers page by page."""

    def __init__(self, *pages: dict[str, Any]) -> None:
        self.pages = pages

    def describe_change_set(self, **given: Any) -> dict[str, Any]:
        number = int(given.get("NextToken", "0"))
        more = {"NextToken": str(number + 1)} if number + 1 < len(self.pages) else {}
        return {**self.pages[number], **more}


def test_all_pages_of_a_change_set_are_read() -> None:
    pages = [{"Status": "CREATE_COMPLETE", "Changes": [change("AWS::IAM::Role")]}] * 2
    assert change_set.changes(Recorded(*pages), "Tidegate-qa") == [change("AWS::IAM::Role")] * 2


@pytest.mark.parametrize(
    "reason",
    [
        "The submitted information didn't contain changes. Submit different information to create a change set.",
        "No updates are to be performed.",
    ],
)
def test_a_change_set_without_changes_is_not_a_failed_one(reason: str) -> None:
    assert change_set.changes(Recorded({"Status": "FAILED", "StatusReason": reason}), "Tidegate-qa") is None


def test_a_change_set_that_failed_says_why() -> None:
    failed = Recorded({"Status": "FAILED", "StatusReason": "Template error: no such thing"})
    with pytest.raises(DeployError, match="cannot make these changes: Template error"):
        change_set.changes(failed, "Tidegate-qa")


def test_a_change_set_is_read_and_dropped(moto_url: str) -> None:
    cloudformation, stack = aws(moto_url, "cloudformation"), f"Tidegate-c{next(_NUMBERS)}"
    one, two = {"One": {"Type": "AWS::SQS::Queue"}}, {"Two": {"Type": "AWS::SNS::Topic"}}
    cloudformation.create_stack(StackName=stack, TemplateBody=json.dumps({"Resources": one}))
    made = {"StackName": stack, "ChangeSetName": change_set.NAME, "ChangeSetType": "UPDATE"}
    cloudformation.create_change_set(**made, TemplateBody=json.dumps({"Resources": one | two}))
    found = change_set.changes(cloudformation, stack)
    assert found is not None and "AWS::SNS::Topic" in {each["ResourceChange"]["ResourceType"] for each in found}
    assert list(change_set.deployed_template(cloudformation, stack)["Resources"]) == ["One"]
    change_set.drop(cloudformation, stack)
    assert not cloudformation.list_change_sets(StackName=stack)["Summaries"]
    cloudformation.delete_stack(StackName=stack)
