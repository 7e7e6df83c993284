"""The sources that dashboards read: SSE, WebSocket and MQTT, in one process."""

from __future__ import annotations

import json
import secrets
import sys

from local_stack.config import ROOT, Config, StackError
from local_stack.processes import Processes, wait_until

_START_S = 20.0
USERNAME = "fixture"


def start(config: Config, processes: Processes) -> dict[str, str]:
    """Start them; returns the `fixtures` part of `stack.json`. Raises `StackError`."""
    secret = secrets.token_urlsafe(18)
    command = [sys.executable, "-m", "fixtures.fake_upstreams", "--username", USERNAME]
    command += ["--port", str(config.sources_port), "--mqtt-port", str(config.sources_mqtt_port)]
    command += ["--mqtts-port", str(config.sources_mqtts_port), "--state", str(config.state / "sources")]
    env = {"PYTHONPATH": f"{ROOT / 'layers/tidegate/python'}:{ROOT}", "TIDEGATE_SOURCES_SECRET": secret}
    process = processes.start("sources", command, env, ROOT)
    log = processes.log_of("sources")

    def ready() -> bool:
        text = log.read_text()
        return text.startswith("{") and "\n" in text

    if not wait_until(ready, _START_S, process=process):
        raise StackError(f"The sources did not start:\n{processes.tail('sources')}")
    addresses: dict[str, str] = json.loads(log.read_text().splitlines()[0])
    return {**addresses, "username": USERNAME, "secret": secret}
