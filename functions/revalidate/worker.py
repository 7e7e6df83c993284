"""Handles the revalidation queue. The handler returns the tasks that failed, and SQS delivers only those again."""

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
                terminated += services.revalidate(read_task(record["body"]), deadline)
            except Exception as error:  # this task is delivered again; the others do not wait for it
                services.observer.fault("revalidation failed", error)
                failed.append({"itemIdentifier": record["messageId"]})
        services.observer.info("revalidated", tasks=len(event["Records"]), terminated=terminated, failed=len(failed))
        services.observer.flush()
        return {"batchItemFailures": failed}

    return handle


handler = lambda_handler(make_handler, revalidate_services)
