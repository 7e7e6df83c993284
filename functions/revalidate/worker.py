"""Handles the revalidation queue. A task that fails is queued again with its tries counted, and is dead after five.

The handler returns only what could not be queued again, and SQS delivers that once more.
"""

from __future__ import annotations

import time
from typing import Any

from functions.revalidate.wiring import RevalidateServices, revalidate_services
from tidegate.adapters.aws.revalidation_queue import read_task
from tidegate.providers.process import Handler, lambda_handler

#: Part of the function's time that is kept for what a batch still has to write, seconds.
_RESERVE_S = 10.0


def make_handler(services: RevalidateServices) -> Handler:
    def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
        deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - _RESERVE_S
        failed, terminated = [], 0
        for record in event["Records"]:
            try:
                terminated += _carry_out(services, record["body"], deadline)
            except Exception as error:  # SQS delivers it again; the others do not wait for it
                services.observer.fault("task not queued again", error, message_id=record["messageId"])
                failed.append({"itemIdentifier": record["messageId"]})
        services.observer.info("revalidated", tasks=len(event["Records"]), terminated=terminated, failed=len(failed))
        services.observer.flush()
        return {"batchItemFailures": failed}

    return handle


def _carry_out(services: RevalidateServices, body: str, deadline: float) -> int:
    """Returns how many subscriptions were terminated. Raises what queueing a failed task again raises."""
    try:
        task = read_task(body)
    except (ValueError, KeyError) as error:
        services.observer.fault("task not readable", error)
        services.buried.bury_unread(body)  # reading it again would not make it readable
        return 0
    try:
        return services.revalidate(task, deadline)
    except Exception as error:
        kind, tries = task.kind.value, task.tries + 1
        services.observer.fault("revalidation failed", error, kind=kind, target=task.target, tries=tries)
        services.try_again(task)
        return 0


handler = lambda_handler(make_handler, revalidate_services)
