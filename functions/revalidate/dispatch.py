"""What the revocation table's stream calls: each event becomes a task (push)."""

from __future__ import annotations

from typing import Any

from functions.revalidate.wiring import DispatchServices, dispatch_services
from tidegate.adapters.dynamodb.revocations import read_stream_record
from tidegate.domain.revocations import task_for
from tidegate.providers.process import Handler, lambda_handler
from tidegate.usecases.revocation.follow_feed import queue_task


def make_handler(services: DispatchServices) -> Handler:
    """Events of all dashboards share one stream partition: each is handed on, so that no large cut delays the next."""

    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        failed = []
        for record in event["Records"]:
            try:
                revoked = read_stream_record(record)
            except ValueError as error:
                # Coming back would not make it readable, and those behind it would wait; the full revalidation is
                # behind it.
                services.observer.fault("event not readable", error)
                services.observer.count("events_unreadable")
                continue
            try:
                queue_task(services.tasks, task_for(revoked.revocation, revoked.revoked_at_ms))
            except Exception as error:  # the stream goes on from here; the poll is behind it in any case
                services.observer.fault("event not dispatched", error)
                failed.append({"itemIdentifier": record["dynamodb"]["SequenceNumber"]})
                break
        services.observer.info("dispatched", events=len(event["Records"]), failed=len(failed))
        services.observer.count("events_pushed", len(event["Records"]) - len(failed))
        services.observer.flush()
        return {"batchItemFailures": failed}

    return handle


handler = lambda_handler(make_handler, dispatch_services)
