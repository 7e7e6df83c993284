"""Handles what an IoT topic rule selected: one device message for each invocation."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

from functions.mqtt_bridge.wiring import BridgeServices, bridge_services
from tidegate.providers.process import Handler, lambda_handler
from tidegate.usecases.delivery.bridge import DeviceMessage


class WrongEvent(ValueError):
    """The event is not what our rules select."""


def make_handler(services: BridgeServices) -> Handler:
    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        try:
            received = services.bridge(device_message(event))
            services.observer.info("device message", received=received)
        finally:
            services.observer.flush()
        return {"received": received}

    return handle


def device_message(event: dict[str, Any]) -> DeviceMessage:
    """Read what the rule selected. Raises `WrongEvent`."""
    try:
        payload = base64.b64decode(event["data"], validate=True)
        # A message id orders messages of the same millisecond. It also has to be the same in a repetition.
        message_id = event.get("id") or hashlib.sha256(payload).hexdigest()[:32]
        return DeviceMessage(
            allowed_topic=event["allowed_topic"],
            topic=event["topic"],
            payload=payload,
            timestamp_ms=int(event["timestamp"]),
            message_id=str(message_id),
        )
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise WrongEvent(f"not a selection of our rules: {type(error).__name__}") from error


handler = lambda_handler(make_handler, bridge_services)
