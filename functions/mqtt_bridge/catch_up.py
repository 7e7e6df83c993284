"""Handles the catch-up queue. The handler returns the messages that failed, and SQS delivers only those again."""

from __future__ import annotations

from typing import Any

from functions.mqtt_bridge.wiring import CatchUpServices, catch_up_services
from tidegate.adapters.aws.catch_up_queue import read_catch_up
from tidegate.domain.subscriptions import CatchUpRequest
from tidegate.providers.process import Handler, lambda_handler


def make_handler(services: CatchUpServices) -> Handler:
    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        failed = []
        for record in event["Records"]:
            request = None
            try:
                request = read_catch_up(record["body"])
                services.catch_up(request)
            except Exception as error:  # this message is delivered again; the others do not wait for it
                _log_failed(services, record["messageId"], request, error)
                failed.append({"itemIdentifier": record["messageId"]})
        services.observer.info("catch-ups", requested=len(event["Records"]), failed=len(failed))
        services.observer.flush()
        return {"batchItemFailures": failed}

    return handle


def _log_failed(services: CatchUpServices, message_id: str, request: CatchUpRequest | None, error: Exception) -> None:
    """`request` is None when the message could not be read."""
    services.observer.fault(
        "catch-up failed",
        error,
        message_id=message_id,
        connection_id=request and request.key.connection_id,
        dashboard=request and request.key.dashboard_id,
    )


handler = lambda_handler(make_handler, catch_up_services)
