"""What the streams of tables call: each change becomes a task of the revalidation queue (push).

The table of revocations pushes its events, the access table the documents that were saved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from functions.revalidate.wiring import DispatchServices, dispatch_services
from tidegate.adapters.dynamodb.revocations import read_stream_record
from tidegate.adapters.dynamodb.saved_documents import is_of_access, read_saved
from tidegate.domain.revocations import Task, TaskKind, task_for, task_for_saved
from tidegate.errors import Unavailable
from tidegate.providers.process import Handler, lambda_handler
from tidegate.usecases.revocation.follow_feed import queue_task

#: How long after pushed events the feed is polled, seconds: those that follow at once are polled with them.
POLL_AFTER_S = 10


def make_handler(services: DispatchServices) -> Handler:
    """Handler of the streams. Events of all dashboards share a stream partition. So each event is only queued here: a
    dashboard with many subscriptions to terminate does not delay the next event."""

    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        failed, pushed = [], Counter[bool]()
        tasks = _tasks(services, event["Records"])
        # Of several saves of a dashboard only the last one counts.
        newest = {task.target: task for task, _ in tasks if task.kind is TaskKind.DOCUMENT}
        for task, sequence_number in tasks:
            if task.kind is TaskKind.DOCUMENT and newest[task.target] is not task:
                continue
            try:
                queue_task(services.tasks, task)
            except Exception as error:  # the stream delivers again from here on; the poll finds an event in any case
                services.observer.fault("event not dispatched", error, kind=task.kind.value, target=task.target)
                failed.append({"itemIdentifier": sequence_number})
                break
            pushed[task.kind is TaskKind.DOCUMENT] += 1
        if pushed[False]:
            # Nobody else may poll: while nobody is connected the schedule does not.
            _move_cursor(services)
        services.observer.info("dispatched", events=len(event["Records"]), failed=len(failed))
        services.observer.count("events_pushed", pushed[False])
        services.observer.count("saves_pushed", pushed[True])
        services.observer.flush()
        return {"batchItemFailures": failed}

    return handle


def _move_cursor(services: DispatchServices) -> None:
    """Let our reader's place in the feed follow what was pushed. What fails here, the schedule's polls do."""
    try:
        services.tasks.queue(Task(TaskKind.POLL), POLL_AFTER_S)
    except Unavailable as error:
        services.observer.fault("poll not queued", error)


def _tasks(services: DispatchServices, records: list[dict[str, Any]]) -> list[tuple[Task, str]]:
    """The tasks of the records that ask for something, each with the record's place in the stream."""
    tasks = []
    for record in records:
        try:
            task = _task(record)
        except ValueError as error:
            # Delivering it again would not make it readable, and would hold up the events after it. The full
            # revalidation finds what it revoked.
            services.observer.fault("event not readable", error)
            services.observer.count("events_unreadable")
            continue
        if task is not None:
            tasks.append((task, record["dynamodb"]["SequenceNumber"]))
    return tasks


def _task(record: Mapping[str, Any]) -> Task | None:
    if is_of_access(record):
        saved = read_saved(record)
        return None if saved is None else task_for_saved(saved)
    revoked = read_stream_record(record)
    return task_for(revoked.revocation, revoked.revoked_at_ms)


handler = lambda_handler(make_handler, dispatch_services)
