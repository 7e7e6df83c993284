"""The second-look queue: what failed is returned, and only that comes back."""

from __future__ import annotations

from typing import Any

from tidegate import bootstrap
from tidegate.adapters.aws.catch_up_queue import read_look
from tidegate.bootstrap import Handler, SecondLookServices


def make_handler(services: SecondLookServices) -> Handler:
    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        failed = []
        for record in event["Records"]:
            try:
                services.second_look(read_look(record["body"]))
            except Exception as error:  # this one comes back, the others do not wait for it
                services.observer.fault("second look failed", error)
                failed.append({"itemIdentifier": record["messageId"]})
        services.observer.info("second looks", looked=len(event["Records"]), failed=len(failed))
        services.observer.flush()
        return {"batchItemFailures": failed}

    return handle


handler = bootstrap.lazily(make_handler, bootstrap.second_look_services)
