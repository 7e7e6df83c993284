"""Handles requests to follow changes of profiles. A request names no change: all that are open are followed."""

from __future__ import annotations

import time
from typing import Any

from functions.revalidate.wiring import ProfileServices, profile_services
from tidegate.providers.process import Handler, lambda_handler

#: Part of the function's time that is kept for the dashboard that is being written, seconds.
_RESERVE_S = 10.0


def make_handler(services: ProfileServices) -> Handler:
    def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
        deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - _RESERVE_S
        failed: list[dict[str, str]] = []
        try:
            done = services.follow(deadline)
        except Exception as error:
            services.observer.fault("profile changes not followed", error)
            done = False
        if not done:
            # The queue delivers the request again, as often as it allows. After that the schedule's next one goes on.
            failed = [{"itemIdentifier": record["messageId"]} for record in event["Records"]]
        services.observer.info("profile changes followed", done=done)
        services.observer.flush()
        return {"batchItemFailures": failed}

    return handle


handler = lambda_handler(make_handler, profile_services)
