"""Take a stage away; `make destroy`. Its data is kept, unless DATA=delete says otherwise."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import botocore.exceptions

from infra.stage import StageError, load_stage
from infra.stage_place import STAGE_TAG
from ops import preflight, releases
from ops.account_answers import resources_of
from ops.answers import ask
from ops.confirm import by_name
from ops.deploy_errors import DeployError, cloud_stage
from ops.kept_data import BUCKET, Kept, delete, empty, kept_of, left_before

Client = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a stage.

    Attributes:
        stack_id: the stack's ARN; None when it is not there.
        protected: whether the stack is protected from being deleted.
        count: its resources.
        kept: what holds data and stays when the stack goes, and what stayed of stacks before.
        emptied: buckets that go with the stack, which only works when they are empty.
        policy: the IoT policy of the stage's devices; None when there is none.
        devices: ARNs of the certificates that have this policy. None when that could not be looked up.
        unknown: why it could not be looked up.
    """

    stack_id: str | None
    protected: bool
    count: int
    kept: tuple[Kept, ...]
    emptied: tuple[str, ...]
    policy: str | None
    devices: tuple[str, ...] | None
    unknown: str = ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.destroy", description=__doc__)
    parser.add_argument("--stage", default="")
    parser.add_argument("--name", default="", help="the stage's name once more, where nobody can be asked")
    parser.add_argument("--data", default="keep", choices=("keep", "delete"))
    parser.add_argument("--devices", default="keep", choices=("keep", "detach"))
    options = parser.parse_args(arguments)
    try:
        stage = cloud_stage(options.stage)
        client = preflight.clients(load_stage(stage))
        destroy(stage, client, options.name, data=options.data == "delete", detach=options.devices == "detach")
        return 0
    except (DeployError, StageError) as error:
        print(f"error: {error}", file=sys.stderr)
    except botocore.exceptions.ClientError as error:
        print(f"error: AWS refused: {error}. Nothing more was done; run the command again.", file=sys.stderr)
    except botocore.exceptions.BotoCoreError as error:
        print(f"error: AWS cannot be reached with the current credentials: {error}", file=sys.stderr)
    return 1


def destroy(stage: str, client: Client, name: str, *, data: bool, detach: bool) -> None:
    """Take it away, after asking. Raises `DeployError`; an error of AWS is passed on."""
    found = look(stage, client)
    if found.stack_id is None and not (data and found.kept):
        raise DeployError(
            f"Stage {stage} is not deployed here"
            + (f". Of its data, {len(found.kept)} are left; DATA=delete removes them." if found.kept else ".")
        )
    print(plan(stage, found, data=data))
    _refuse_devices(stage, found, detach)
    by_name(stage, name, f"make destroy STAGE={stage} NAME={stage}")
    if found.stack_id is not None:
        _delete_stack(stage, found, client)
    # A stage that is made again has no release to go back to.
    releases.forget(client("ssm"), stage)
    if data:
        for each in found.kept:
            print(f"  {each.kind} {each.name}: {delete(each, client)}", flush=True)
    else:
        print(remaining(stage, found.kept))


def look(stage: str, client: Client) -> Found:
    """What there is. An error of AWS is passed on."""
    cloudformation, stack = client("cloudformation"), f"Tidegate-{stage}"
    before = left_before(cloudformation, stack)
    try:
        (described,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    except botocore.exceptions.ClientError as error:
        if "does not exist" not in str(error):
            raise
        return Found(None, False, 0, tuple(before), (), None, ())
    template = cloudformation.get_template(StackName=stack)["TemplateBody"]
    resources = [each for each in resources_of(cloudformation, stack) if each["ResourceStatus"] != "DELETE_COMPLETE"]
    kept = kept_of(template, resources)
    buckets = {each["PhysicalResourceId"] for each in resources if each["ResourceType"] == BUCKET}
    policies = [each["PhysicalResourceId"] for each in resources if each["ResourceType"] == "AWS::IoT::Policy"]
    policy = policies[0] if policies else None
    devices = ask("iot:ListTargetsForPolicy", lambda: _targets(client("iot"), policy))
    return Found(
        stack_id=described["StackId"],
        protected=bool(described.get("EnableTerminationProtection")),
        count=len(resources),
        kept=tuple(sorted({*kept, *before})),
        emptied=tuple(sorted(buckets - {each.name for each in kept})),
        policy=policy,
        devices=devices.value if devices.there else None,
        unknown="" if devices.there else devices.unknown(),
    )


def plan(stage: str, found: Found, *, data: bool) -> str:
    """What will be done, for people."""
    told = []
    if found.stack_id is not None:
        told.append(f"  stack Tidegate-{stage} with {found.count} resources: is deleted, and its address with it")
    becomes = "is DELETED, with all that is in it" if data else "is kept"
    told += [f"  {each.kind} {each.name}: {becomes}" for each in found.kept]
    return "\n".join(told)


def remaining(stage: str, kept: tuple[Kept, ...]) -> str:
    """How to find what was kept, for people."""
    return "\n".join(
        [
            "  kept, and found by:",
            *(f"    {each.command}" for each in kept),
            f"  all at once: aws resourcegroupstaggingapi get-resources --tag-filters Key={STAGE_TAG},Values={stage}",
            f"  make destroy STAGE={stage} DATA=delete removes it, within 90 days.",
            "  Another deployment of the stage does not touch it, and begins with tables and keys of its own.",
        ]
    )


def _refuse_devices(stage: str, found: Found, detach: bool) -> None:
    """A policy that certificates have cannot be deleted. Raises `DeployError`."""
    if found.devices is None:
        print(f"  certificates of devices: could not check ({found.unknown}); with any, the stack cannot be deleted")
    if not found.devices or detach:
        return
    commands = [f"  aws iot detach-policy --policy-name {found.policy} --target {arn}" for arn in found.devices]
    raise DeployError(
        "\n".join(
            [
                f"{len(found.devices)} device certificates have the stage's policy, which cannot be deleted then:",
                *commands,
                f"Run that, or let it be done: make destroy STAGE={stage} DEVICES=detach. Certificates stay.",
            ]
        )
    )


def _delete_stack(stage: str, found: Found, client: Client) -> None:
    cloudformation = client("cloudformation")
    for arn in found.devices or ():
        client("iot").detach_policy(policyName=found.policy, target=arn)
        print(f"  detached: {arn}")
    for bucket in found.emptied:
        empty(client("s3"), bucket)
    if found.protected:
        cloudformation.update_termination_protection(StackName=found.stack_id, EnableTerminationProtection=False)
    cloudformation.delete_stack(StackName=found.stack_id)
    print("  the stack is being deleted; CloudFront takes some minutes ...", flush=True)
    try:
        cloudformation.get_waiter("stack_delete_complete").wait(StackName=found.stack_id)
    except botocore.exceptions.WaiterError as error:
        failed = [
            f"{each['LogicalResourceId']} ({each.get('ResourceStatusReason', 'no reason is given')})"
            for each in resources_of(cloudformation, str(found.stack_id))
            if each["ResourceStatus"] == "DELETE_FAILED"
        ]
        raise DeployError(
            f"The stack could not be deleted: {', '.join(failed) or error}. Mend that, and run the command again."
        ) from error
    print("  the stack is deleted")


def _targets(iot: Any, policy: str | None) -> tuple[str, ...]:
    if policy is None:
        return ()
    targets: list[str] = []
    marker: dict[str, str] = {}
    while True:
        page = iot.list_targets_for_policy(policyName=policy, **marker)
        targets += page["targets"]
        if not page.get("nextMarker"):
            return tuple(targets)
        marker = {"marker": page["nextMarker"]}


if __name__ == "__main__":
    sys.exit(main())
