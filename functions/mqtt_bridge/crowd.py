"""Handles the queue of parts of crowds. The handler returns the messages that failed, and SQS delivers those again."""

from __future__ import annotations

from typing import Any

from functions.mqtt_bridge.wiring import CrowdServices, crowd_services
from tidegate.adapters.aws.crowd_queue import read_part
from tidegate.providers.process import Handler, lambda_handler


def make_handler(services: CrowdServices) -> Handler:
    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        failed = []
        for record in event["Records"]:
            try:
                services.send_part(read_part(record["body"]))
            except Exception as error:  # this message is delivered again; the others do not wait for it
                services.observer.fault("part of a crowd failed", error, message_id=record["messageId"])
                failed.append({"itemIdentifier": record["messageId"]})
        services.observer.info("parts of crowds", asked=len(event["Records"]), failed=len(failed))
        services.observer.flush()
        return {"batchItemFailures": failed}

    return handle


handler = lambda_handler(make_handler, crowd_services)
