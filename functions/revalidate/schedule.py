"""What the schedule calls every minute: the poll behind the push, what has expired, the full revalidation, and relays.

It has a module of its own, apart from `dispatch`. On Lambda a module builds the services of its handlers while it is
loaded, and the stream's function has no queue for requests to follow profiles.
"""

from __future__ import annotations

from typing import Any

from functions.revalidate.wiring import ScheduleServices, schedule_services
from tidegate.domain.revocations import Task, TaskKind
from tidegate.errors import Unavailable
from tidegate.providers.process import Handler, lambda_handler

#: Interval of the schedule, seconds. EventBridge Scheduler calls at most once a minute. More frequent polls are
#: messages that are queued with a delay.
SCHEDULE_S = 60
#: How often relay workers that died are looked for, seconds. It is short enough that one search falls between the time
#: when a dead worker's lease is overdue and the time when it may be claimed. So a successor is there by then.
RELAYS_S = 10
#: How often subscriptions whose token has expired are looked for, seconds. Viewers are told within this time, and what
#: the queue and the run take.
EXPIRED_S = 10


def make_handler(services: ScheduleServices) -> Handler:
    def handle(_event: dict[str, Any], _context: Any) -> dict[str, Any]:
        delays = list(range(0, SCHEDULE_S, services.poll_interval_s))
        for delay_s in delays:
            services.tasks.queue(Task(TaskKind.POLL), delay_s)
        for delay_s in range(0, SCHEDULE_S, EXPIRED_S):
            services.tasks.queue(Task(TaskKind.EXPIRED), delay_s)
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


handler = lambda_handler(make_handler, schedule_services)
