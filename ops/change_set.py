"""The change set of a deployment: what was asked about is what is carried out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import botocore.exceptions

from ops.deploy_errors import DeployError

#: Its name in the stack. A new one takes the place of the one before.
NAME = "tidegate-deploy"
#: CloudFormation's and the CDK's words for a change set without changes.
_NOTHING = ("The submitted information didn't contain changes.", "No updates are to be performed.")


def changes(cloudformation: Any, stack: str) -> list[Mapping[str, Any]] | None:
    """What a prepared change set would do; None when it would do nothing. An error of AWS is passed on.

    Raises:
        DeployError: CloudFormation could not make it.
    """
    found: list[Mapping[str, Any]] = []
    token: dict[str, str] = {}
    while True:
        page = cloudformation.describe_change_set(StackName=stack, ChangeSetName=NAME, **token)
        if page["Status"] == "FAILED":
            reason = str(page.get("StatusReason", ""))
            if reason.startswith(_NOTHING):
                return None
            raise DeployError(f"CloudFormation cannot make these changes: {reason}")
        found += page.get("Changes", [])
        if not page.get("NextToken"):
            return found
        token = {"NextToken": page["NextToken"]}


def drop(cloudformation: Any, stack: str) -> None:
    """Delete it. That it cannot be deleted is no error: the next deployment makes it anew."""
    try:
        cloudformation.delete_change_set(StackName=stack, ChangeSetName=NAME)
    except botocore.exceptions.ClientError:
        return


def deployed_template(cloudformation: Any, stack: str) -> Mapping[str, Any]:
    """The template that is deployed. An error of AWS is passed on. Raises `DeployError` when it is not ours."""
    body = cloudformation.get_template(StackName=stack, TemplateStage="Original")["TemplateBody"]
    if not isinstance(body, Mapping):
        raise DeployError(f"The template of {stack} is not one that the CDK has deployed.")
    return body
