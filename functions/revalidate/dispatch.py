"""Starts revalidation: pushed by the revocation table's stream, and by the schedule as a fall-back."""

from __future__ import annotations

from typing import Any

from functions.revalidate.wiring import DispatchServices, ScheduleServices, dispatch_services, schedule_services
from tidegate.adapters.dynamodb.revocations import read_stream_record
from tidegate.domain.revocations import Task, TaskKind, task_for
from tidegate.errors import Unavailable
from tidegate.providers.process import Handler, lambda_handler
from tidegate.usecases.revocation.follow_feed import queue_task

#: Interval of the schedule, seconds. EventBridge Scheduler calls at most once a minute. More frequent polls are
#: messages that are queued with a delay.
SCHEDULE_S = 60
#: How often relay workers that died are looked for, seconds. It is short enough that one search falls between the time
#: when a dead worker's lease is overdue and the time when it may be claimed. So a successor is there by then.
RELAYS_S = 10


def make_stream_handler(services: DispatchServices) -> Handler:
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


def make_schedule_handler(services: ScheduleServices) -> Handler:
    def handle(_event: dict[str, Any], _context: Any) -> dict[str, Any]:
        delays = list(range(0, SCHEDULE_S, services.poll_interval_s))
        for delay_s in delays:
            services.tasks.queue(Task(TaskKind.POLL), delay_s)
        # The run's lease decides whether a full revalidation is due, so a schedule that fires twice changes nothing.
        services.tasks.queue(Task(TaskKind.FULL))
        services.follow_requests.ask()
        for delay_s in range(RELAYS_S, SCHEDULE_S, RELAYS_S):
            services.tasks.queue(Task(TaskKind.RELAYS), delay_s)
        for partition in range(services.relay_partitions):
            try:  # a worker ends at once if its partition has nothing to do, or another worker has the lease
                services.relay_workers.start(partition)
            except Unavailable as error:
                services.observer.fault("relay not started", error, partition=partition)
        services.observer.info("scheduled", polls=len(delays))
        services.observer.flush()
        return {"polls": len(delays)}

    return handle


stream_handler = lambda_handler(make_stream_handler, dispatch_services)
schedule_handler = lambda_handler(make_schedule_handler, schedule_services)
