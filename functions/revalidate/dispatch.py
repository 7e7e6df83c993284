"""What the revocation table's stream calls: each event becomes a task of the revalidation queue (push)."""

from __future__ import annotations

from typing import Any

from functions.revalidate.wiring import DispatchServices, dispatch_services
from tidegate.adapters.dynamodb.revocations import read_stream_record
from tidegate.domain.revocations import task_for
from tidegate.providers.process import Handler, lambda_handler
from tidegate.usecases.revocation.follow_feed import queue_task


def make_handler(services: DispatchServices) -> Handler:
    """Handler of the stream. Events of all dashboards share a stream partition. So each event is only queued here: a
    dashboard with many subscriptions to terminate does not delay the next event."""

    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        failed = []
        for record in event["Records"]:
            try:
                revoked = read_stream_record(record)
            except ValueError as error:
                # Delivering it again would not make it readable, and would hold up the events after it. The full
                # revalidation finds what it revoked.
                services.observer.fault("event not readable", error)
                services.observer.count("events_unreadable")
                continue
            try:
                queue_task(services.tasks, task_for(revoked.revocation, revoked.revoked_at_ms))
            except Exception as error:  # the stream delivers again from here on; the poll finds the event in any case
                services.observer.fault("event not dispatched", error)
                failed.append({"itemIdentifier": record["dynamodb"]["SequenceNumber"]})
                break
        services.observer.info("dispatched", events=len(event["Records"]), failed=len(failed))
        services.observer.count("events_pushed", len(event["Records"]) - len(failed))
        services.observer.flush()
        return {"batchItemFailures": failed}

    return handle


handler = lambda_handler(make_handler, dispatch_services)
