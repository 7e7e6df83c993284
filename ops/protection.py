"""Protection of a stage that keeps its data: switched on when it is all there, and off when it is to go.

It is not in the template. A first creation that fails is rolled back, and then deleted before the next try. Neither
works with a protected table or a protected stack.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ops.account_answers import resources_of
from ops.stack_policy import set_policy

#: A first creation ended so: nothing of it is in use.
FAILED_CREATIONS = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED")
TABLE = "AWS::DynamoDB::Table"


def was_created(status: str | None) -> bool:
    """Whether a stack of this status was created with success once. None is a stack that is not there."""
    return status is not None and (status == "CREATE_COMPLETE" or status.startswith(("UPDATE_", "IMPORT_")))


def allow_repetition(cloudformation: Any, stack: str, described: Mapping[str, Any] | None) -> bool:
    """Let a failed first creation be deleted, as the CDK CLI does before it creates it again.

    Stacks that were made with an older version are protected from the beginning. Returns whether something was
    changed. An error of AWS is passed on.
    """
    if described is None or described["StackStatus"] not in FAILED_CREATIONS:
        return False
    if not described.get("EnableTerminationProtection"):
        return False
    cloudformation.update_termination_protection(StackName=stack, EnableTerminationProtection=False)
    return True


def protect(cloudformation: Any, dynamodb: Any, stack: str) -> list[str]:
    """Protect the stack and its tables from being deleted, and its data from being replaced by an update.

    Returns what was not protected before.

    An error of AWS is passed on.
    """
    (described,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    changed = []
    if not described.get("EnableTerminationProtection"):
        cloudformation.update_termination_protection(StackName=stack, EnableTerminationProtection=True)
        changed.append(stack)
    if set_policy(cloudformation, stack):
        changed.append(f"policy of {stack}")
    tables = [
        each["PhysicalResourceId"] for each in resources_of(cloudformation, stack) if each["ResourceType"] == TABLE
    ]
    return changed + set_tables(dynamodb, tables, protected=True)


def set_tables(dynamodb: Any, tables: Iterable[str], *, protected: bool) -> list[str]:
    """Switch the protection of tables on or off. Returns those that were otherwise. An error of AWS is passed on."""
    changed = []
    for table in tables:
        if dynamodb.describe_table(TableName=table)["Table"].get("DeletionProtectionEnabled", False) is not protected:
            dynamodb.update_table(TableName=table, DeletionProtectionEnabled=protected)
            changed.append(table)
    return changed
