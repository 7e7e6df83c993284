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
#: The device of the demo boards, which publishes all the time.
PLANT = "demo-plant"


def make(config: Config, deployed: Deployed, thing: str = THING) -> Mapping[str, object]:
    """Make thing and certificate; returns what `Publisher` takes: the `mqtt` part of `stack.json`."""
    folder = config.state / "device" / thing
    folder.mkdir(parents=True, exist_ok=True)
    iot = client(config, "iot")
    iot.create_thing(thingName=thing)
    made = iot.create_keys_and_certificate(setAsActive=True)
    arn = made["certificateArn"]
    iot.attach_policy(policyName=deployed.outputs["DevicePolicyName"], target=arn)
    iot.attach_thing_principal(thingName=thing, principal=arn)
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
        "client_id": thing,
    }


def _write(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)
