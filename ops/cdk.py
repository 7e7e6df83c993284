"""Runs the CDK CLI of the checkout for a stage."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from infra.account import CREATED, LOGGING_ROLE, Account
from infra.stage import load_stage
from local_stack.config import ROOT
from ops.deploy_errors import DeployError

#: Where the CLI writes what it synthesises.
OUT = "cdk.out"
#: Where a stage's address was given before -> the key of the stage file that it is now.
_MOVED = {"DOMAIN": "domain", "CERTIFICATE": "certificate"}


def run(
    command: str,
    stage: str,
    account: Account | None = None,
    options: Sequence[str] = (),
    shift: str | None = None,
) -> int:
    """Run a command of it on the stage's stack. Returns its exit code. Raises `DeployError`.

    Args:
        account: how the account was found; None when nobody looked.
        shift: how calls come to the new release, one of `infra.rollout_table.SHIFTS`; None is by canaries.
    """
    refuse_moved(stage, os.environ)
    account = account or Account()
    context = {"stage": stage, CREATED: account.created, LOGGING_ROLE: account.others_logging_role, "shift": shift}
    arguments = [part for key, value in context.items() if value for part in ("-c", f"{key}={_text(value)}")]
    return call([command, f"Tidegate-{stage}", *options, *arguments], stage)


def of_synthesised(command: str, stage: str, *options: str) -> int:
    """Run a command on what `synth` wrote just before. Returns its exit code. Raises `DeployError`."""
    return call([command, f"Tidegate-{stage}", "--app", OUT, *options], stage)


def synthesised(stage: str) -> Mapping[str, Any]:
    """The template that `synth` wrote."""
    template: Mapping[str, Any] = json.loads((ROOT / OUT / f"Tidegate-{stage}.template.json").read_text())
    return template


def bootstrap(stage: str, account: str, region: str) -> int:
    """Make or renew what the CDK needs in an account and region. Returns its exit code. Raises `DeployError`.

    The environment is named, so the CLI needs no app for it and synthesises none.
    """
    return call(["bootstrap", f"aws://{account}/{region}"], stage)


def refuse_moved(stage: str, env: Mapping[str, str]) -> None:
    """Refuse what was given in the environment before. A deployment without it took the live name away."""
    for variable, key in _MOVED.items():
        if env.get(variable):
            raise DeployError(
                f"{variable}={env[variable][:60]} has no effect any more; put it into infra/stages/{stage}.json as "
                f'"{key}", and unset {variable}.'
            )


def call(arguments: Sequence[str], stage: str) -> int:
    """Call the CLI, in the stage's region. Returns its exit code. Raises `DeployError` when it is not there."""
    region = load_stage(stage).place.region
    env = {**os.environ, **({"AWS_REGION": region, "AWS_DEFAULT_REGION": region} if region else {})}
    try:
        return subprocess.run(["cdk", *arguments], cwd=ROOT, env=env).returncode
    except FileNotFoundError as error:
        raise DeployError("The CDK CLI is not there; `make setup` brings it.") from error


def _text(value: object) -> str:
    return "true" if value is True else str(value)
