"""The AWS emulator, in a virtual environment of its own so that handlers cannot import what only it needs."""

from __future__ import annotations

import urllib.error
import urllib.request

from local_stack.config import ROOT, Config, StackError
from local_stack.processes import Processes, wait_until

_START_S = 30.0


def start(config: Config, processes: Processes) -> None:
    """Start it and wait until it answers. Raises `StackError`."""
    command = [str(ROOT / ".tidegate/emulator-venv/bin/python"), str(ROOT / "local_stack/emulator_process.py")]
    env: dict[str, str | None] = {
        "GATEWAY_PORT": str(config.emulator_port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "localhost",
        "IOT_MTLS_PORT": str(config.mqtt_port),
        "LAMBDA_EXECUTOR": "local",
        "STATE_DIR": str(config.state / "emulator"),
        # It unpacks every worker into a folder of the temporary directory and leaves the last ones there when it stops.
        "TMPDIR": str(config.temporary),
        "MINISTACK_REGION": "us-east-1",
        # Functions are held to their roles, devices to their policies: least privilege is proven on every run.
        "AUTH": "true",
        # What it would hand on to the functions.
        **dict.fromkeys(("PYTHONPATH", "VIRTUAL_ENV", "AWS_ENDPOINT_URL", "AWS_PROFILE")),
    }
    config.temporary.mkdir(parents=True, exist_ok=True)
    process = processes.start("emulator", command, env, config.state)
    if not wait_until(lambda: healthy(config), _START_S, process=process):
        raise StackError(f"The emulator did not start; the end of its log:\n{processes.tail('emulator')}")


def healthy(config: Config) -> bool:
    """Whether an emulator answers at the configured address."""
    try:
        with urllib.request.urlopen(f"{config.emulator_url}/_localstack/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
