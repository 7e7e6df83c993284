"""The local stage, as commands of operators see it: by what `make up` wrote, and by what the emulator answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config as Patience

from infra.stage import load_stage
from local_stack.config import Config, StackError, read_config
from ops import stack_outputs
from ops.answers import ask
from ops.deploy_errors import LOCAL, DeployError

STACK = f"Tidegate-{LOCAL}"
_START = "Start it with `make up`."
#: Seconds. The emulator is on this machine.
_PATIENCE = Patience(connect_timeout=2, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 2})


@dataclass(frozen=True, slots=True)
class LocalStage:
    """A local stack that runs.

    Attributes:
        outputs: of its stack.
    """

    outputs: Mapping[str, str]
    _aws: Mapping[str, str]

    def client(self, service: str) -> Any:
        """boto3's client of a service of the emulator."""
        return _client(self._aws, service)

    def environment(self) -> dict[str, str]:
        """What a function of the stage would see of its settings, tables and queues."""
        return {**load_stage(LOCAL).variables, **self._aws, **stack_outputs.environment(self.outputs)}


def running() -> LocalStage:
    """The local stack that runs here. Raises `DeployError` when none does, or it cannot be asked."""
    try:
        config = read_config()
    except StackError as error:
        raise DeployError(str(error)) from error
    if not config.stack_file.exists():
        raise DeployError(f"The local stack does not run: there is no {config.stack_file}. {_START}")
    address = json.loads(config.stack_file.read_text())["emulator_url"]
    aws = Config(endpoint=address).aws_environment()
    cloudformation = _client(aws, "cloudformation")
    answer = ask("cloudformation:DescribeStacks", lambda: cloudformation.describe_stacks(StackName=STACK)["Stacks"][0])
    if answer.unreached:
        raise DeployError(f"The local stack does not run any more: nothing answers at {address}. {_START}")
    if not answer.there:
        raise DeployError(f"The local stack could not be asked at {address}: {answer.unknown()}.")
    return LocalStage({each["OutputKey"]: each["OutputValue"] for each in answer.value.get("Outputs", [])}, aws)


def _client(aws: Mapping[str, str], service: str) -> Any:
    client: Any = boto3.client  # its typed overloads want the service as a literal
    return client(
        service,
        endpoint_url=aws["AWS_ENDPOINT_URL"],
        region_name=aws["AWS_REGION"],
        aws_access_key_id=aws["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=aws["AWS_SECRET_ACCESS_KEY"],
        config=_PATIENCE,
    )
