"""Where the local stack listens and keeps its files. Every port can be moved by a variable."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".tidegate"

REGION = "us-east-1"
#: Emulators accept any credentials; these are no secret.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
#: Variable to attribute of `Config`.
PORT_VARIABLES = {
    "TIDEGATE_EDGE_PORT": "edge_port",
    "TIDEGATE_EMULATOR_PORT": "emulator_port",
    "TIDEGATE_MQTT_PORT": "mqtt_port",
    "TIDEGATE_FAKE_UPSTREAMS_PORT": "fake_upstreams_port",
    "TIDEGATE_FAKE_UPSTREAMS_MQTT_PORT": "fake_upstreams_mqtt_port",
    "TIDEGATE_FAKE_UPSTREAMS_MQTTS_PORT": "fake_upstreams_mqtts_port",
}
#: Ports of an emulator of our own.
EMULATOR_PORTS = ("TIDEGATE_EMULATOR_PORT", "TIDEGATE_MQTT_PORT")


class StackError(Exception):
    """The stack cannot go on. The message is one clear sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Config:
    """Where things are.

    Attributes:
        edge_port, emulator_port, mqtt_port: on loopback.
        fake_upstreams_port, fake_upstreams_mqtt_port, fake_upstreams_mqtts_port: of the fake upstreams that
            dashboards read, on loopback.
        endpoint: an emulator that runs already, instead of our own.
        state: folder for logs, certificates and `stack.json`.
    """

    edge_port: int = 8080
    emulator_port: int = 4566
    mqtt_port: int = 8883
    fake_upstreams_port: int = 8090
    fake_upstreams_mqtt_port: int = 1884
    fake_upstreams_mqtts_port: int = 8884
    endpoint: str | None = None
    state: Path = STATE

    @property
    def emulator_url(self) -> str:
        return self.endpoint or f"http://localhost:{self.emulator_port}"

    @property
    def edge_url(self) -> str:
        return f"http://127.0.0.1:{self.edge_port}"

    @property
    def stack_file(self) -> Path:
        return self.state / "stack.json"

    @property
    def started_file(self) -> Path:
        """What the running stack was started with."""
        return self.state / "started.json"

    @property
    def log(self) -> Path:
        return self.state / "logs"

    @property
    def temporary(self) -> Path:
        """The temporary directory of what `up` starts: the emulator keeps a folder there for every worker."""
        return self.state / "tmp"

    def leftovers(self) -> tuple[Path, ...]:
        """What `up` writes and `down` removes. Logs stay, to be read afterwards; so does what `make setup` brings."""
        names = (
            "cdk.out",
            "device",
            "emulator",
            "fake_upstreams",
            "outputs.json",
            "stack.json",
            "started.json",
            "drill.json",
        )
        return (self.temporary, *(self.state / name for name in names))

    def aws_environment(self) -> dict[str, str]:
        """Variables that point every AWS client at the emulator."""
        return {
            **CREDENTIALS,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.emulator_url,
            "AWS_SESSION_TOKEN": "",
        }


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for listener in sockets:
        listener.bind(("127.0.0.1", 0))
    ports = [int(listener.getsockname()[1]) for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def on_free_ports(state: Path) -> Config:
    """A stack beside whatever else runs: for tests and benchmarks."""
    names = list(PORT_VARIABLES.values())
    return replace(Config(state=state), **dict(zip(names, free_ports(len(names)), strict=True)))  # type: ignore[arg-type]


def read_config(env: Mapping[str, str] | None = None) -> Config:
    """Read the variables. Raises `StackError` naming the one that is wrong."""
    env = os.environ if env is None else env
    defaults = Config()
    ports = {name: _port(env, variable, getattr(defaults, name)) for variable, name in PORT_VARIABLES.items()}
    taken: dict[int, str] = {}
    for variable, name in PORT_VARIABLES.items():
        other = taken.setdefault(ports[name], variable)
        if other != variable:
            raise StackError(f"{other} and {variable} are both {ports[name]}: they must differ.")
    endpoint = env.get("TIDEGATE_ENDPOINT", "").rstrip("/") or None
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise StackError(f"TIDEGATE_ENDPOINT={endpoint!r} is not an http:// or https:// URL.")
    state = Path(env["TIDEGATE_STATE"]).resolve() if env.get("TIDEGATE_STATE") else STATE
    return Config(endpoint=endpoint, state=state, **ports)


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "") or str(default)
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise StackError(f"{name}={text!r} is not a port; allowed: 1 to 65535.")
    return int(text)
