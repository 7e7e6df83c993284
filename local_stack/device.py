"""A device: a thing with a certificate of the emulator's CA, held to the stack's device policy."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from local_stack.config import Config, StackError
from local_stack.deployment import Deployed, client

THING = "demo-device"


def make(config: Config, deployed: Deployed) -> Mapping[str, object]:
    """Make thing and certificate; returns the `mqtt` part of `stack.json`."""
    folder = config.state / "device"
    folder.mkdir(parents=True, exist_ok=True)
    iot = client(config, "iot")
    iot.create_thing(thingName=THING)
    made = iot.create_keys_and_certificate(setAsActive=True)
    arn = made["certificateArn"]
    iot.attach_policy(policyName=deployed.outputs["DevicePolicyName"], target=arn)
    iot.attach_thing_principal(thingName=THING, principal=arn)
    certificate = _write(folder / "certificate.pem", made["certificatePem"])
    key = _write(folder / "private_key.pem", made["keyPair"]["PrivateKey"])
    try:
        with urllib.request.urlopen(f"{config.emulator_url}/_ministack/iot/ca.pem", timeout=10) as answer:
            ca = _write(folder / "ca.pem", answer.read().decode())
    except urllib.error.URLError as error:
        raise StackError(
            f"{config.emulator_url} does not hand out its MQTT CA, so no device can be made: {error}"
        ) from error
    return {
        "host": urlsplit(config.emulator_url).hostname,
        "port": config.mqtt_port,
        "ca": ca,
        "certificate": certificate,
        "private_key": key,
        "client_id": THING,
    }


def _write(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)
