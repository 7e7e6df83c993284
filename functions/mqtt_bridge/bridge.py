"""Handles what an IoT topic rule selected: one device message for each invocation, or a batch of them from a queue.

Of a batch, the handler returns the messages that failed, and SQS delivers only those again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from functions.mqtt_bridge.wiring import BridgeServices, bridge_services
from tidegate.providers.process import Handler, lambda_handler
from tidegate.usecases.delivery.bridge import DeviceMessage


class WrongEvent(ValueError):
    """The event is not what our rules select."""


def make_handler(services: BridgeServices) -> Handler:
    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        if "Records" in event:
            return handle_batch(event["Records"])
        try:
            received = services.bridge(device_message(event))
            services.observer.info("device message", received=received)
        finally:
            services.observer.flush()
        return {"received": received}

    def handle_batch(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        failed, messages = [], list[tuple[str, DeviceMessage]]()
        for record in records:
            try:
                messages.append((record["messageId"], device_message(json.loads(record["body"]))))
            except ValueError as error:
                services.observer.fault("device message failed", error, message_id=record["messageId"])
                failed.append(record["messageId"])
        again = services.bridge.batch([message for _, message in messages])
        failed += [message_id for message_id, message in messages if message in again]
        services.observer.info("device messages", messages=len(records), failed=len(failed))
        services.observer.flush()
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}

    return handle


def device_message(event: Mapping[str, Any]) -> DeviceMessage:
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
