"""A stage in the account of the current credentials; `make synth`, `deploy`, `admin` and `full-revalidation`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import boto3
import botocore.exceptions

from infra.stage import StageError, load_stage, names
from local_stack.config import ROOT
from ops import credential_key
from ops.admin import first_admin
from ops.full_revalidation import demand_full_revalidation
from tidegate.domain.credential_keys import named, still_needed
from tidegate.domain.emails import normalise_email
from tidegate.errors import TidegateError
from tidegate.tables import ALL_TABLES


class DeployError(Exception):
    """One clear sentence that says what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.deploy", description=__doc__)
    parser.add_argument("command", choices=("synth", "deploy", "admin", "full-revalidation"))
    parser.add_argument("--stage", default="")
    parser.add_argument("--email", default="")
    options = parser.parse_args()
    try:
        stage = cloud_stage(options.stage)
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
        if options.command == "deploy":
            check_credential_keys(stage)
        return cdk(options.command, stage)
    except (DeployError, StageError) as error:
        print(f"error: {error}", file=sys.stderr)
    except TidegateError as error:
        print(f"error: {error.message}", file=sys.stderr)
    except botocore.exceptions.BotoCoreError as error:
        print(f"error: AWS cannot be reached with the current credentials: {error}", file=sys.stderr)
    return 1


def cloud_stage(name: str) -> str:
    """A checked stage for a cloud account. Raises `DeployError` or `StageError`."""
    if not name or name == "local":
        others = ", ".join(stage for stage in names() if stage != "local")
        raise DeployError(f"STAGE is missing; use STAGE=<one of: {others}>. The local stage is `make up`.")
    load_stage(name)
    return name


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


def cdk(command: str, stage: str) -> int:
    """Run the CDK CLI for a stage; DOMAIN and CERTIFICATE give it an address of its own."""
    context = {"stage": stage, "domain": os.environ.get("DOMAIN"), "certificate": os.environ.get("CERTIFICATE")}
    if bool(context["domain"]) != bool(context["certificate"]):
        raise DeployError("DOMAIN and CERTIFICATE (an ACM certificate of us-east-1) go together.")
    arguments = [part for key, value in context.items() if value for part in ("-c", f"{key}={value}")]
    quiet = ["--quiet"] if command == "synth" else []
    try:
        return subprocess.run(["cdk", command, f"Tidegate-{stage}", *quiet, *arguments], cwd=ROOT).returncode
    except FileNotFoundError as error:
        raise DeployError("The CDK CLI is not there; `make setup` brings it.") from error


def stage_outputs(stage: str) -> Mapping[str, str] | None:
    """The outputs of a stage's stack; None when it is not deployed. Raises `DeployError` when that cannot be read."""
    client: Any = boto3.session.Session().client("cloudformation")
    try:
        (described,) = client.describe_stacks(StackName=f"Tidegate-{stage}")["Stacks"]
    except botocore.exceptions.ClientError as error:
        if "does not exist" in str(error):
            return None
        raise DeployError(f"The stack of stage {stage} cannot be read ({error}).") from error
    return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}


def stage_environment(stage: str) -> Mapping[str, str]:
    """What a function of the stage would see of its settings and tables, with the current credentials."""
    session = boto3.session.Session()
    credentials = session.get_credentials()
    if credentials is None or not session.region_name:
        raise DeployError("No AWS credentials or region found; set AWS_PROFILE, or log in first.")
    frozen = credentials.get_frozen_credentials()
    outputs = stage_outputs(stage)
    if outputs is None:
        raise DeployError(f"Stage {stage} is not deployed here; run `make deploy STAGE={stage}`.")
    return {
        **load_stage(stage).variables,
        "AWS_ACCESS_KEY_ID": str(frozen.access_key),
        "AWS_SECRET_ACCESS_KEY": str(frozen.secret_key),
        "AWS_SESSION_TOKEN": frozen.token or "",
        "AWS_REGION": session.region_name,
        **{key: value for key, value in os.environ.items() if key.startswith("AWS_ENDPOINT_URL")},
        "REVALIDATION_QUEUE_URL": outputs["RevalidationQueueUrl"],
        **{table.variable: outputs[table.variable.title().replace("_", "")] for table in ALL_TABLES},
    }


if __name__ == "__main__":
    sys.exit(main())
