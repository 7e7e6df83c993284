"""Handles the catch-up queue. The handler returns the messages that failed, and SQS delivers only those again."""

from __future__ import annotations

from typing import Any

from functions.mqtt_bridge.wiring import CatchUpServices, catch_up_services
from tidegate.adapters.aws.catch_up_queue import read_catch_up
from tidegate.providers.process import Handler, lambda_handler


def make_handler(services: CatchUpServices) -> Handler:
    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        failed = []
        for record in event["Records"]:
            try:
                services.catch_up(read_catch_up(record["body"]))
            except Exception as error:  # this message is delivered again; the others do not wait for it
                services.observer.fault("catch-up failed", error)
                failed.append({"itemIdentifier": record["messageId"]})
        services.observer.info("catch-ups", requested=len(event["Records"]), failed=len(failed))
        services.observer.flush()
        return {"batchItemFailures": failed}

    return handle


handler = lambda_handler(make_handler, catch_up_services)
