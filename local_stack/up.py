"""Bring the stack up and take it down."""

from __future__ import annotations

import json
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from local_stack import deployment, device, emulator, fake_upstreams, seed, show
from local_stack.config import EMULATOR_PORTS, PORT_VARIABLES, ROOT, Config, StackError
from local_stack.processes import Processes, refuse_taken_ports, wait_until

_EDGE_S = 20.0


def up(config: Config, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Start everything; returns what `stack.json` holds. When it fails nothing is left running.

    Raises:
        StackError: with one sentence that says what to do.
    """
    config.state.mkdir(parents=True, exist_ok=True)
    processes = Processes(config)
    if processes.alive():
        raise StackError("The stack is running already: see .tidegate/stack.json, or run `make down` first.")
    foreign = () if config.endpoint is None else EMULATOR_PORTS
    refuse_taken_ports(
        {variable: getattr(config, name) for variable, name in PORT_VARIABLES.items() if variable not in foreign}
    )
    try:
        return _up(config, processes, settings)
    except BaseException:
        down(config)
        raise


def _up(config: Config, processes: Processes, settings: Mapping[str, str] | None) -> dict[str, Any]:
    if config.endpoint is None:
        with show.step(f"emulator on {config.emulator_url}"):
            emulator.start(config, processes)
    elif not emulator.healthy(config):
        raise StackError(f"Nothing healthy answers at TIDEGATE_ENDPOINT={config.endpoint}.")
    with show.step("fake upstreams with faults on demand (SSE, WebSocket, MQTT)"):
        upstreams = fake_upstreams.start(config, processes)
    # The fake upstreams are on this machine, which no cloud stage would let an upstream be.
    ports = f"80,443,{config.fake_upstreams_port},{config.fake_upstreams_mqtt_port},{config.fake_upstreams_mqtts_port}"
    reachable = {"EGRESS_ALLOWED_PORTS": ports, "EGRESS_ALLOW_PRIVATE_DESTINATIONS": "true"}
    with show.step("CDK app synthesised and deployed"):
        deployed = deployment.deploy(config, reachable | dict(settings or {}))
    with show.step(f"edge on {config.edge_url}"):
        _start_edge(config, processes, deployed)
    with show.step("device certificate"):
        mqtt = device.make(config, deployed)
    with show.step("demo data"):
        made = seed.seed(config, deployed, upstreams)
    stack = {
        "edge_url": config.edge_url,
        "api_url": f"{config.edge_url}/api",
        "websocket_url": f"ws://127.0.0.1:{config.edge_port}/gateway/realtime",
        "internal_api_url": f"{deployed.api_url}/internal",
        "emulator_url": config.emulator_url,
        "state": str(config.state),
        "users": made["users"],
        # Where they are, not what they are: a rotation changes them.
        "secrets": {
            "JWT_GATEWAY_SECRET_ARN": deployed.outputs["JwtGatewaySecretArn"],
            "GATEWAY_SERVICE_TOKEN_ARN": deployed.outputs["GatewayServiceTokenArn"],
        },
        "mqtt": mqtt,
        "fake_upstreams": upstreams,
        "demo": made["demo"],
        "tables": deployed.tables(),
        "queues": {"REVALIDATION_QUEUE_URL": deployed.outputs["RevalidationQueueUrl"]},
    }
    config.stack_file.touch(mode=0o600)
    config.stack_file.write_text(json.dumps(stack, indent=2) + "\n")
    return stack


def _start_edge(config: Config, processes: Processes, deployed: deployment.Deployed) -> None:
    command = [sys.executable, "-m", "local_stack.edge", "--port", str(config.edge_port)]
    command += ["--api", deployed.api_url, "--websocket", deployed.websocket_url]
    env = {"PYTHONPATH": f"{ROOT / 'layers/tidegate/python'}:{ROOT}"}
    process = processes.start("edge", command, env, ROOT)

    def ready() -> bool:
        try:  # a 401 from the API proves edge, API and its function
            urllib.request.urlopen(f"{config.edge_url}/api/users/me", timeout=15).close()
        except urllib.error.HTTPError as error:
            return error.code == 401
        except OSError:
            return False
        return True

    if not wait_until(ready, _EDGE_S, process=process):
        raise StackError(f"The edge or the API behind it did not start:\n{processes.tail('edge')}")


def down(config: Config) -> list[str]:
    """Stop what was started, and remove what it wrote except its logs. Returns the names of what ran."""
    stopped = Processes(config).stop_all()
    for path in config.leftovers():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return stopped


def addresses(stack: Mapping[str, Any]) -> str:
    """What to open, as a table."""
    rows = [
        ("console", stack["edge_url"] + "/"),
        ("API", f"{stack['api_url']}  (description: {stack['api_url']}/docs)"),
        ("WebSocket", stack["websocket_url"]),
        ("MQTT (TLS)", f"{stack['mqtt']['host']}:{stack['mqtt']['port']}"),
        ("fake upstreams", f"{stack['fake_upstreams']['sse_url']}  (faults: {stack['fake_upstreams']['control_url']})"),
        ("log in as", f"{stack['users']['admin']['email']}  (passwords: .tidegate/stack.json)"),
    ]
    return show.table(rows)
