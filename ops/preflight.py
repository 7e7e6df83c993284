"""Look at an account before a deployment; `make preflight`. Nothing is changed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import boto3
import botocore.exceptions

from infra.stage import Stage, StageError, load_stage
from ops.account_answers import CERTIFICATES, collect
from ops.answers import Answer, ask
from ops.deploy_errors import DeployError, cloud_stage
from ops.readiness import Line, State, exit_code, lines

_WIDTH = max(len(state) for state in State)


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found, and the answers that it was decided from."""

    lines: list[Line]
    answers: Mapping[str, Answer]

    @property
    def stops(self) -> bool:
        return any(line.stops for line in self.lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.preflight", description=__doc__)
    parser.add_argument("--stage", default="")
    parser.add_argument("--json", action="store_true", help="a JSON object instead of lines")
    options = parser.parse_args(arguments)
    try:
        stage = load_stage(cloud_stage(options.stage))
        looked = look(stage)
    except (DeployError, StageError, botocore.exceptions.BotoCoreError) as error:  # the last is of a wrong profile
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"stage": stage.name, "lines": [asdict(line) for line in looked.lines]}, indent=1))
    else:
        print(shown(looked.lines))
    return exit_code(looked.lines)


def session_of(stage: Stage) -> Any:
    """boto3's session for a stage, in the stage's region where its file names one."""
    return boto3.session.Session(region_name=stage.place.region)


def checked_session(stage: Stage) -> Any:
    """The same, of the stage's own account where its file names one. Raises `DeployError`."""
    session = session_of(stage)
    if stage.place.account is None:
        return session
    sts = session.client("sts", region_name=session.region_name or CERTIFICATES)
    caller = ask("sts:GetCallerIdentity", sts.get_caller_identity)
    if not caller.there:
        raise DeployError(f"Whose credentials these are cannot be read, so nothing was changed: {caller.unknown()}.")
    if caller.value["Account"] != stage.place.account:
        raise DeployError(
            f"The credentials are of account {caller.value['Account']}, and stage {stage.name} is in "
            f"{stage.place.account}. Nothing was changed."
        )
    return session


def aws_environment(session: Any) -> Mapping[str, str]:
    """What a function sees of its AWS: credentials, region, endpoints. Raises `DeployError` without the first two."""
    credentials = session.get_credentials()
    if credentials is None or not session.region_name:
        raise DeployError("No AWS credentials or region found; set AWS_PROFILE, or log in first.")
    frozen = credentials.get_frozen_credentials()
    return {
        "AWS_ACCESS_KEY_ID": str(frozen.access_key),
        "AWS_SECRET_ACCESS_KEY": str(frozen.secret_key),
        "AWS_SESSION_TOKEN": frozen.token or "",
        "AWS_REGION": str(session.region_name),
        **{key: value for key, value in os.environ.items() if key.startswith("AWS_ENDPOINT_URL")},
    }


def clients(stage: Stage) -> Callable[[str], Any]:
    """boto3's clients by service, in the stage's region and account. Raises as `checked_session`."""
    return cast(Callable[[str], Any], checked_session(stage).client)


def look(stage: Stage, session: Any = None) -> Looked:
    """Ask the account of the current credentials."""
    session = session or session_of(stage)
    answers = collect(stage, session)
    return Looked(lines(stage, answers, session.region_name), answers)


def shown(found: list[Line]) -> str:
    """The lines for people."""
    told = []
    for line in found:
        told.append(f"  {line.state:<{_WIDTH}}  {line.check}: {line.found}.")
        if line.do:
            told.append(f"  {'':<{_WIDTH}}  -> {line.do}.")
    return "\n".join(told)


if __name__ == "__main__":
    sys.exit(main())
