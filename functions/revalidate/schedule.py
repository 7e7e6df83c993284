"""What the schedule calls every minute: it queues the tasks of the minute, and asks for relay workers and profiles.

While nobody is connected there are no tasks and no relay workers. The first viewer calls it, too, between two minutes.

It has a module of its own, apart from `dispatch`. On Lambda a module builds the services of its handlers while it is
loaded, and the stream's function has no queue for requests to follow profiles.
"""

from __future__ import annotations

from typing import Any

from functions.revalidate.wiring import ScheduleServices, schedule_services
from tidegate.adapters.aws.schedule_start import is_start
from tidegate.domain.minutes import PROFILES_AT_S
from tidegate.errors import Unavailable
from tidegate.providers.process import Handler, lambda_handler


def make_handler(services: ScheduleServices) -> Handler:
    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        started = is_start(event)
        queued = services.queue_tasks(started=started)
        if not started:
            # Also while nobody is connected here: viewers of other gateways follow our profiles.
            services.follow_requests.ask(PROFILES_AT_S)
            if queued.active:
                _start_relays(services)
        services.observer.info("scheduled", started=started, active=queued.active, tasks=queued.tasks)
        services.observer.flush()
        return {"active": queued.active, "tasks": queued.tasks}

    return handle


def _start_relays(services: ScheduleServices) -> None:
    for partition in range(services.relay_partitions):
        try:  # a worker ends at once if its partition has nothing to do, or another worker has the lease
            services.relay_workers.start(partition)
        except Unavailable as error:
            services.observer.fault("relay not started", error, partition=partition)


handler = lambda_handler(make_handler, schedule_services)
