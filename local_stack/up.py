"""Bring the stack up and take it down."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra import web_build
from local_stack import deployment, device, emulator, fake_upstreams, seed, show
from local_stack.config import EMULATOR_PORTS, PORT_VARIABLES, ROOT, Config, StackError
from local_stack.processes import Processes, refuse_taken_ports, replace_text, wait_until
from local_stack.versions import Record, wanted

#: How long the API may take to answer first, seconds: where the edge is new, and where all functions are.
_EDGE_S, _FUNCTIONS_S = 20.0, 60.0


def up(config: Config, settings: Mapping[str, str] | None = None, *, moving: bool = False) -> dict[str, Any]:
    """Start everything; returns what `stack.json` holds. When it fails nothing is left running.

    Args:
        settings: of the deployment, by their variables.
        moving: whether the device of the demo boards publishes. A person wants that; what measures does not.

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
        given = overrides(config, settings)
        versions = wanted(config, given, moving=moving)
        stack = _up(config, processes, given)
        if moving:
            start_plant(config, processes, stack)
        Record(config).note(versions)
        return stack
    except BaseException:
        down(config)
        raise


def _up(config: Config, processes: Processes, settings: Mapping[str, str]) -> dict[str, Any]:
    if config.endpoint is None:
        with show.step(f"emulator on {config.emulator_url}"):
            emulator.start(config, processes)
    elif not emulator.healthy(config):
        raise StackError(f"Nothing healthy answers at TIDEGATE_ENDPOINT={config.endpoint}.")
    with show.step("fake upstreams with faults on demand (SSE, WebSocket, MQTT)"):
        upstreams = fake_upstreams.start(config, processes)
    with show.step("CDK app synthesised and deployed"):
        deployed = deployment.deploy(config, settings)
    pages = build_pages()
    addresses = described(config, deployed)
    with show.step(f"edge on {config.edge_url}"):
        start_edge(config, processes, addresses, pages, settings)
    with show.step("device certificate"):
        mqtt = device.make(config, deployed)
        plant = device.make(config, deployed, device.PLANT)
    with show.step("demo data"):
        made = seed.seed(config, deployed, upstreams)
    stack = {
        **addresses,
        "users": made["users"],
        "mqtt": mqtt,
        "plant": plant,
        "fake_upstreams": upstreams,
        "demo": made["demo"],
    }
    write_stack(config, stack)
    return stack


def overrides(config: Config, settings: Mapping[str, str] | None) -> dict[str, str]:
    """The settings that override those of the stage: `settings`, and what the fake upstreams need. They are on this
    machine, which no cloud stage would let an upstream be."""
    ports = f"80,443,{config.fake_upstreams_port},{config.fake_upstreams_mqtt_port},{config.fake_upstreams_mqtts_port}"
    reachable = {"EGRESS_ALLOWED_PORTS": ports, "EGRESS_ALLOW_PRIVATE_DESTINATIONS": "true"}
    return reachable | dict(settings or {})


def described(config: Config, deployed: deployment.Deployed) -> dict[str, Any]:
    """What `stack.json` holds of the deployment: addresses and names."""
    return {
        "edge_url": config.edge_url,
        "api_url": f"{config.edge_url}/api",
        "websocket_url": f"ws://127.0.0.1:{config.edge_port}/gateway/realtime",
        "internal_api_url": f"{deployed.api_url}/internal",
        "behind_edge": {"api_url": deployed.api_url, "websocket_url": deployed.websocket_url},
        "emulator_url": config.emulator_url,
        "state": str(config.state),
        # Where they are, not what they are: a rotation changes them.
        "secrets": {
            "JWT_GATEWAY_SECRET_ARN": deployed.outputs["JwtGatewaySecretArn"],
            "GATEWAY_SERVICE_TOKEN_ARN": deployed.outputs["GatewayServiceTokenArn"],
        },
        "tables": deployed.tables(),
        "queues": {"REVALIDATION_QUEUE_URL": deployed.outputs["RevalidationQueueUrl"]},
    }


def write_stack(config: Config, stack: Mapping[str, Any]) -> None:
    """Write `stack.json`."""
    replace_text(config.stack_file, json.dumps(stack, indent=2) + "\n")


def build_pages() -> Path:
    """Build the pages, where their sources have changed; the edge reads them from there. Raises `StackError`."""
    with show.step("pages built"):
        try:
            return web_build.build()
        except web_build.BuildFailed as error:
            raise StackError(str(error)) from error


def start_edge(
    config: Config, processes: Processes, stack: Mapping[str, Any], pages: Path, settings: Mapping[str, str]
) -> None:
    """Start the edge in front of what `stack` describes, and await the API. Raises `StackError`."""
    command = [sys.executable, "-m", "local_stack.edge", "--port", str(config.edge_port)]
    command += ["--api", stack["behind_edge"]["api_url"], "--websocket", stack["behind_edge"]["websocket_url"]]
    command += ["--pages", str(pages), "--frame-ancestors", settings.get("CONSOLE_FRAME_ANCESTORS", "")]
    env = {"PYTHONPATH": f"{ROOT / 'layers/tidegate/python'}:{ROOT}"}
    await_api(config, processes.start("edge", command, env, ROOT))


def await_api(config: Config, process: subprocess.Popen[bytes] | None = None) -> None:
    """Await an answer of the API through the edge. Raises `StackError`.

    Args:
        process: the edge, if it was started now; None when functions were changed behind it.
    """

    def ready() -> bool:
        try:  # a 401 from the API proves edge, API and its function
            urllib.request.urlopen(f"{config.edge_url}/api/users/me", timeout=15).close()
        except urllib.error.HTTPError as error:
            return error.code == 401
        except OSError:
            return False
        return True

    if not wait_until(ready, _FUNCTIONS_S if process is None else _EDGE_S, process=process):
        raise StackError(f"The edge or the API behind it did not start:\n{Processes(config).tail('edge')}")


def start_plant(config: Config, processes: Processes, stack: Mapping[str, Any]) -> None:
    """Start the device of the demo boards."""
    settings = config.state / "device" / "plant.json"
    settings.touch(mode=0o600)
    settings.write_text(json.dumps(stack["plant"]))
    env = {"PYTHONPATH": f"{ROOT / 'layers/tidegate/python'}:{ROOT}"}
    processes.start("plant", [sys.executable, "-m", "local_stack.plant", str(settings)], env, ROOT)


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
        ("a public board", f"{stack['edge_url']}/p/{stack['demo']['public']['board']['dashboardId']}"),
        ("a shared board", f"{stack['edge_url']}/s/{stack['demo']['link']['board']['shareToken']}"),
        ("API", f"{stack['api_url']}  (description: {stack['api_url']}/docs)"),
        ("WebSocket", stack["websocket_url"]),
        ("MQTT (TLS)", f"{stack['mqtt']['host']}:{stack['mqtt']['port']}"),
        ("fake upstreams", f"{stack['fake_upstreams']['sse_url']}  (faults: {stack['fake_upstreams']['control_url']})"),
        ("log in as", f"{stack['users']['admin']['email']}  (passwords: .tidegate/stack.json)"),
    ]
    return show.table(rows)
