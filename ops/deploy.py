"""A stage in the account of the current credentials; `make synth`, `bootstrap`, `deploy`, `admin` and
`full-revalidation`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.exceptions

from infra import web_build
from infra.account import Account
from infra.stage import StageError, load_stage
from ops import (
    cdk,
    change_set,
    confirm,
    credential_key,
    local_stage,
    pages,
    preflight,
    protection,
    releases,
    stack_outputs,
)
from ops.account_answers import no_stack
from ops.admin import first_admin
from ops.answers import Answer
from ops.changes import first, reasons
from ops.deploy_errors import LOCAL, any_stage
from ops.deploy_errors import DeployError as DeployError
from ops.deploy_errors import cloud_stage as cloud_stage
from ops.full_revalidation import demand_full_revalidation
from ops.readiness import State, others_logging_role
from ops.rollback import Deployed
from tidegate.domain.credential_keys import named, still_needed
from tidegate.domain.emails import normalise_email
from tidegate.errors import TidegateError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.deploy", description=__doc__)
    parser.add_argument("command", choices=("synth", "bootstrap", "deploy", "admin", "full-revalidation"))
    parser.add_argument("--stage", default="")
    parser.add_argument("--email", default="")
    parser.add_argument("--yes", default="", help="1 answers beforehand what `deploy` would ask")
    options = parser.parse_args()
    try:
        checked = any_stage if options.command == "full-revalidation" else cloud_stage
        stage = checked(options.stage)
        if options.command == "admin":
            email = normalise_email(options.email)
            print(f"  admin:             {email}")
            print(f"  one-time password: {first_admin(stage_environment(stage), email)}")
            print("  next: log in with it and change it")
            return 0
        if options.command == "full-revalidation":
            demand_full_revalidation(stage_environment(stage))
            print("  a full revalidation was asked for; it logs `full revalidation` when it is done")
            return 0
        if options.command == "bootstrap":
            return bootstrap(stage)
        if options.command == "deploy":
            return deploy(stage, options.yes)
        return cdk.run("synth", stage, options=["--quiet"])
    except (DeployError, StageError, web_build.BuildFailed) as error:
        print(f"error: {error}", file=sys.stderr)
    except TidegateError as error:
        print(f"error: {error.message}", file=sys.stderr)
    except botocore.exceptions.BotoCoreError as error:
        print(f"error: AWS cannot be reached with the current credentials: {error}", file=sys.stderr)
    return 1


def check_credential_keys(stage: str) -> None:
    """Refuse a deployment that drops a credential key which is still needed. Raises `DeployError`, `Unavailable`."""
    outputs = stage_outputs(stage)
    keys = credential_key.declared(outputs or {})
    if keys is None:
        return  # the first deployment
    now = credential_key.of_stage(keys, stage_environment(stage), stage).held()
    if needed := still_needed(keys, now, load_stage(stage).credential_keys):
        under = sum(now.counts[each] for each in needed)
        raise DeployError(
            f"Stage {stage} would drop {named(needed)} from `credential_keys`, but {under} credentials are under it. "
            f"Keep it, deploy, and run `make rotate-secret STAGE={stage} NAME=credential-key`."
        )


def bootstrap(stage: str) -> int:
    """Prepare the account and region of the current credentials for the CDK. Raises `DeployError`."""
    session = preflight.session_of(load_stage(stage))
    looked = preflight.look(load_stage(stage), session)
    for line in looked.lines[:2]:  # who, and where
        if line.stops or line.state is State.UNKNOWN:
            raise DeployError(f"Nothing can be bootstrapped, {line.check}: {line.found}; {line.do}.")
    return cdk.bootstrap(stage, looked.answers["caller"].value["Account"], session.region_name)


def deploy(stage: str, yes: str = "") -> int:
    """Look at the account, ask, deploy the stack, protect it, upload the pages, and record the release.

    Raises `DeployError`.

    Args:
        yes: `1` answers beforehand what would be asked.
    """
    cdk.refuse_moved(stage, os.environ)
    looked = preflight.look(load_stage(stage))
    print(preflight.shown(looked.lines))
    if looked.stops:
        raise DeployError("The account is not ready: see the lines that failed. Nothing was changed.")
    if unknown := needed(looked.answers):
        raise DeployError(f"What has to be known cannot be read, so nothing was changed: {unknown}.")
    check_credential_keys(stage)
    folder = web_build.build()
    described = looked.answers["stack"].value
    client = preflight.clients(load_stage(stage))
    with _said("The stack cannot be made ready for another try"):
        if protection.allow_repetition(client("cloudformation"), _stack(stage), described):
            print("  the first creation failed; its stack is not protected any more, so that it can be deleted")
    found = Account(
        created=protection.was_created(described["StackStatus"] if described else None),
        others_logging_role=others_logging_role(looked.answers),
    )
    with _said(f"It cannot be read which release is live at stage {stage}"):
        record = releases.read(client("ssm"), stage)
    if code := cdk.run("synth", stage, found, ["--quiet"], shift_of(record)):
        return code
    carry_out = update if found.created else create
    with _said("The stack cannot be deployed"):
        code = carry_out(stage, client("cloudformation"), yes)
    if code:
        return code
    if not load_stage(stage).disposable:
        with _said("The stack is deployed, but it is not protected"):
            protected = protection.protect(client("cloudformation"), client("dynamodb"), _stack(stage))
        print(f"  protected from being deleted: {len(protected)} newly, the others were")
    return upload_pages(stage, folder) or keep(stage, record)


def shift_of(record: releases.Record | None) -> str | None:
    """How calls come to the new release; None is by canaries. SHIFT says it.

    After a way back CloudFormation believes that the release which was left is live. A canary would give that one nine
    calls of ten.
    """
    return os.environ.get("SHIFT") or ("at-once" if record is not None and record.went_back else None)


def keep(stage: str, record: releases.Record | None) -> int:
    """Record what is live now, and what was before, for `make rollback`. Raises `DeployError`."""
    client = preflight.clients(load_stage(stage))
    with _said("The release is out, but was not recorded"):
        releases.write(client("ssm"), stage, releases.note(record, Deployed(client, stage).release()))
    return 0


def needed(answers: Mapping[str, Answer]) -> str | None:
    """Why a deployment would be a guess: it is not known who asks, or what the stack has. None when it is."""
    for name in ("caller", "stack", "resources"):
        answer = answers.get(name, Answer())
        if not answer.there and not (name == "stack" and no_stack(answer)):
            return answer.unknown()
    return None


def create(stage: str, cloudformation: Any, yes: str) -> int:
    """Ask, and create the stack that was synthesised. Returns the CLI's exit code. Raises `DeployError`."""
    confirm.changes(stage, first(cdk.synthesised(stage)), yes)
    return cdk.of_synthesised("deploy", stage)


def update(stage: str, cloudformation: Any, yes: str) -> int:
    """Show the difference, ask, and carry out exactly what was asked about. Returns the CLI's exit code.

    Raises `DeployError`; an error of AWS is passed on.
    """
    named = ("--change-set-name", change_set.NAME)
    if code := cdk.of_synthesised("diff", stage, "--method=template"):
        return code
    if code := cdk.of_synthesised("deploy", stage, "--method=prepare-change-set", *named):
        return code
    prepared = change_set.changes(cloudformation, _stack(stage))
    if prepared is None:
        change_set.drop(cloudformation, _stack(stage))
        print("  the stack is as it should be")
        return 0
    before = change_set.deployed_template(cloudformation, _stack(stage))
    try:
        confirm.changes(stage, reasons(prepared, before, cdk.synthesised(stage)), yes)
    except DeployError:
        change_set.drop(cloudformation, _stack(stage))
        raise
    return cdk.of_synthesised("deploy", stage, "--method=execute-change-set", *named)


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Tell what was being done when AWS refused. Raises `DeployError`."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        raise DeployError(f"{what}: {error}. Run the command again.") from error


def _stack(stage: str) -> str:
    return f"Tidegate-{stage}"


def upload_pages(stage: str, folder: Path) -> int:
    """Bring the built pages to the stage's bucket, where it has one. Raises `DeployError`."""
    bucket = (stage_outputs(stage) or {}).get("ConsoleBucket")
    if bucket is None:
        return 0
    with _said("The stack is deployed, but its pages are not"):
        uploaded = pages.upload(preflight.clients(load_stage(stage))("s3"), bucket, folder)
    print(f"  pages: {len(uploaded)} files uploaded, the others were there")
    return 0


def stage_outputs(stage: str) -> Mapping[str, str] | None:
    """The outputs of a stage's stack; None when it is not deployed. Raises `DeployError` when that cannot be read."""
    try:
        (described,) = preflight.clients(load_stage(stage))("cloudformation").describe_stacks(StackName=_stack(stage))[
            "Stacks"
        ]
    except botocore.exceptions.ClientError as error:
        if "does not exist" in str(error):
            return None
        raise DeployError(f"The stack of stage {stage} cannot be read ({error}).") from error
    return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}


def stage_environment(stage: str) -> Mapping[str, str]:
    """What a function of the stage would see of its settings, tables and queues, with the current credentials.

    Raises `DeployError`.
    """
    if stage == LOCAL:
        return local_stage.running().environment()
    session = preflight.checked_session(load_stage(stage))
    aws = preflight.aws_environment(session)
    outputs = stage_outputs(stage)
    if outputs is None:
        raise DeployError(f"Stage {stage} is not deployed here; run `make deploy STAGE={stage}`.")
    return {
        **load_stage(stage).variables,
        **aws,
        **stack_outputs.environment(outputs),
    }


if __name__ == "__main__":
    sys.exit(main())
