"""The fake upstreams that dashboards read: SSE, WebSocket and MQTT, in one process."""

from __future__ import annotations

import json
import secrets
import sys

from local_stack.config import ROOT, Config, StackError
from local_stack.processes import Processes, wait_until

_START_S = 20.0
USERNAME = "fixture"


def start(config: Config, processes: Processes) -> dict[str, str]:
    """Start them; returns the `fake_upstreams` part of `stack.json`. Raises `StackError`."""
    secret = secrets.token_urlsafe(18)
    command = [sys.executable, "-m", "fixtures.fake_upstreams", "--username", USERNAME]
    command += ["--port", str(config.fake_upstreams_port), "--mqtt-port", str(config.fake_upstreams_mqtt_port)]
    command += ["--mqtts-port", str(config.fake_upstreams_mqtts_port), "--state", str(config.state / "fake_upstreams")]
    env = {"PYTHONPATH": f"{ROOT / 'layers/tidegate/python'}:{ROOT}", "TIDEGATE_FAKE_UPSTREAMS_SECRET": secret}
    process = processes.start("fake_upstreams", command, env, ROOT)
    log = processes.log_of("fake_upstreams")

    def ready() -> bool:
        text = log.read_text()
        return text.startswith("{") and "\n" in text

    if not wait_until(ready, _START_S, process=process):
        raise StackError(f"The fake upstreams did not start:\n{processes.tail('fake_upstreams')}")
    addresses: dict[str, str] = json.loads(log.read_text().splitlines()[0])
    return {**addresses, "username": USERNAME, "secret": secret}
