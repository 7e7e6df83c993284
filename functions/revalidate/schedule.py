"""What the schedule calls every minute: the poll behind the push, what has expired, the full revalidation, and relays.

It has a module of its own, apart from `dispatch`. On Lambda a module builds the services of its handlers while it is
loaded, and the stream's function has no queue for requests to follow profiles.
"""

from __future__ import annotations

from typing import Any

from functions.revalidate.wiring import ScheduleServices, schedule_services
from tidegate.domain.minutes import PROFILES_AT_S, SCHEDULE_S, tasks_of_minute
from tidegate.errors import Unavailable
from tidegate.providers.process import Handler, lambda_handler


def make_handler(services: ScheduleServices) -> Handler:
    def handle(_event: dict[str, Any], _context: Any) -> dict[str, Any]:
        for delay_s, task in tasks_of_minute(services.poll_interval_s):
            services.tasks.queue(task, delay_s)
        services.follow_requests.ask(PROFILES_AT_S)
        for partition in range(services.relay_partitions):
            try:  # a worker ends at once if its partition has nothing to do, or another worker has the lease
                services.relay_workers.start(partition)
            except Unavailable as error:
                services.observer.fault("relay not started", error, partition=partition)
        polls = -(-SCHEDULE_S // services.poll_interval_s)
        services.observer.info("scheduled", polls=polls)
        services.observer.flush()
        return {"polls": polls}

    return handle


handler = lambda_handler(make_handler, schedule_services)
