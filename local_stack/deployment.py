"""Deploy the CDK app to the emulator with the real CDK CLI, and read what it made."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from localstack_client.session import Session

from local_stack.config import CREDENTIALS, REGION, ROOT, Config, StackError
from tidegate.tables import ALL_TABLES

STACK = "Tidegate-local"
ASSETS = "tidegate-assets"


@dataclass(frozen=True, slots=True)
class Deployed:
    """Addresses and names of a deployed local stage."""

    outputs: Mapping[str, str]
    api_url: str
    websocket_url: str

    def tables(self) -> dict[str, str]:
        """Environment variables of all table names."""
        return {table.variable: self.outputs[table.variable.title().replace("_", "")] for table in ALL_TABLES}


def client(config: Config, service: str) -> Any:
    """A boto3 client of the emulator."""
    address = urlsplit(config.emulator_url)
    session = Session(
        **{name.lower(): value for name, value in CREDENTIALS.items()},
        region_name=REGION,
        localstack_host=address.netloc,
    )
    return session.client(service, endpoint_url=config.emulator_url)


def deploy(config: Config, settings: Mapping[str, str] | None = None) -> Deployed:
    """Deploy. `settings` override those of the stage. Raises `StackError`."""
    client(config, "s3").create_bucket(Bucket=ASSETS)
    command = ["cdk", "deploy", STACK, "--require-approval", "never", "--outputs-file", str(_outputs_file(config))]
    command += ["-c", "stage=local", "-o", str(config.state / "cdk.out"), "--ci", "--progress", "events"]
    if settings:
        command += ["-c", f"settings={json.dumps(settings)}"]
    # Packaging unpacks dependencies into folders of the temporary directory and leaves some of them there.
    env = {**os.environ, **config.aws_environment(), "TMPDIR": str(config.temporary)}
    config.temporary.mkdir(parents=True, exist_ok=True)
    config.log.mkdir(parents=True, exist_ok=True)
    log = config.log / "deploy.log"
    with log.open("wb") as output:
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise StackError(f"The CDK app did not deploy; the end of {log}:\n{tail}")
    made = outputs(config)
    base = f"{config.emulator_url}/_aws/execute-api"
    return Deployed(
        outputs=made,
        api_url=f"{base}/{made['HttpApiId']}/%24default",
        websocket_url=f"ws{base.removeprefix('http')}/{made['WebSocketApiId']}/live",
    )


def outputs(config: Config) -> dict[str, str]:
    """The outputs of the stack, as the last deployment wrote them."""
    found: dict[str, str] = json.loads(_outputs_file(config).read_text())[STACK]
    return found


def _outputs_file(config: Config) -> Path:
    return config.state / "outputs.json"


def secret(config: Config, arn: str) -> str:
    """A secret's value."""
    return str(client(config, "secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
