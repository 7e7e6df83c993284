"""What of a change is asked about before it is made, decided from CloudFormation's change set and both templates.

A deployment that only brings new code, settings, alarms or queues asks nothing. One that takes away what cannot be had
back, or changes who may do what, does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Template = Mapping[str, Any]

#: What cannot be made again as it was: data, and addresses that clients and devices know.
STATEFUL = {
    "AWS::DynamoDB::Table": "table",
    "AWS::KMS::Key": "key",
    "AWS::SecretsManager::Secret": "secret",
    "AWS::S3::Bucket": "bucket",
    "AWS::Logs::LogGroup": "log group",
    "AWS::ApiGatewayV2::Api": "API",
    "AWS::CloudFront::Distribution": "distribution",
}
_DISTRIBUTION, _RECORD = "AWS::CloudFront::Distribution", "AWS::Route53::RecordSet"
#: Kinds that say who may do what, besides all of `AWS::IAM::`.
_RIGHTS = frozenset(
    {
        "AWS::IoT::Policy",
        "AWS::Lambda::Permission",
        "AWS::S3::BucketPolicy",
        "AWS::SNS::TopicPolicy",
        "AWS::SQS::QueuePolicy",
        "AWS::SecretsManager::ResourcePolicy",
    }
)
#: Properties that do, of other kinds.
_RIGHTS_OF = {"AWS::KMS::Key": "KeyPolicy", "AWS::DynamoDB::Table": "ResourcePolicy"}
#: What a change is in that changes nothing that somebody may do.
_HARMLESS = frozenset({"Tags", "Metadata"})
_DOES = {"Add": "adds", "Modify": "changes", "Remove": "removes", "Import": "takes in", "Dynamic": "may change"}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why somebody is asked.

    Attributes:
        about: `rights`, `state` or `domain`.
        what: a clause about one resource or name.
    """

    about: str
    what: str


def first(after: Template) -> list[Reason]:
    """Of a stack that is not there yet: nothing can be lost, but roles are made."""
    resources = after["Resources"].values()
    roles = sum(is_about_rights(each["Type"]) for each in resources)
    names = aliases(after)
    return [
        Reason("rights", f"creates {len(resources)} resources, {roles} of them say who may do what"),
        *(Reason("domain", f"gives the stage the name {name}") for name in sorted(names)),
    ]


def reasons(changes: Sequence[Mapping[str, Any]], before: Template, after: Template) -> list[Reason]:
    """Of a stack that is there: all that is asked about, in the order of the change set.

    Args:
        changes: `Changes` of CloudFormation's change set.
        before: the template that is deployed.
        after: the one that is to be.
    """
    found: list[Reason] = []
    for change in changes:
        if (resource := change.get("ResourceChange")) is not None:
            found += [*_of_state(resource), *_of_rights(resource), *_of_records(resource)]
    lost, gained = aliases(before) - aliases(after), aliases(after) - aliases(before)
    found += [Reason("domain", f"takes the name {name} away") for name in sorted(lost)]
    found += [Reason("domain", f"gives the stage the name {name}") for name in sorted(gained)]
    return list(dict.fromkeys(found))


def is_about_rights(kind: str) -> bool:
    """Whether a resource of this type says who may do what."""
    return kind.startswith("AWS::IAM::") or kind in _RIGHTS


def aliases(template: Template) -> set[str]:
    """The names of a template's distributions."""
    return {
        name
        for each in template["Resources"].values()
        if each["Type"] == _DISTRIBUTION
        for name in each["Properties"]["DistributionConfig"].get("Aliases", [])
    }


def _of_state(resource: Mapping[str, Any]) -> Iterator[Reason]:
    kind = STATEFUL.get(resource["ResourceType"])
    if kind is None:
        return
    named = f"the {kind} {_name(resource)}"
    if resource["Action"] == "Remove":
        kept = resource.get("PolicyAction") == "Retain"
        yield Reason("state", f"removes {named}{', which stays in the account' if kept else ', and deletes it'}")
    elif resource.get("Replacement") == "True":
        kept = resource.get("PolicyAction") == "ReplaceAndRetain"
        became = "the one before stays in the account" if kept else "the one before is deleted"
        yield Reason("state", f"replaces {named} by an empty one; {became}")
    elif resource.get("Replacement") == "Conditional":
        yield Reason("state", f"may replace {named} by an empty one; CloudFormation does not know yet")


def _of_rights(resource: Mapping[str, Any]) -> Iterator[Reason]:
    kind, does = resource["ResourceType"], _DOES.get(resource["Action"], resource["Action"])
    if is_about_rights(kind):
        if resource["Action"] != "Modify" or set(resource.get("Scope", ["Properties"])) - _HARMLESS:
            yield Reason("rights", f"{does} {kind.removeprefix('AWS::')} {_name(resource)}")
    elif resource["Action"] == "Modify" and kind in _RIGHTS_OF:
        named = [detail.get("Target", {}).get("Name") for detail in resource.get("Details", [])]
        if _RIGHTS_OF[kind] in named:
            yield Reason("rights", f"changes {_RIGHTS_OF[kind]} of the {STATEFUL[kind]} {_name(resource)}")


def _of_records(resource: Mapping[str, Any]) -> Iterator[Reason]:
    if resource["ResourceType"] != _RECORD:
        return
    if resource["Action"] == "Remove" or resource.get("Replacement") in ("True", "Conditional"):
        yield Reason("domain", f"takes the record {_name(resource)} away")


def _name(resource: Mapping[str, Any]) -> str:
    physical = resource.get("PhysicalResourceId")
    return f"{resource['LogicalResourceId']} ({physical})" if physical else str(resource["LogicalResourceId"])
