"""The stack's schedule, for checks that want nothing to happen by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from local_stack.config import Config
from local_stack.deployment import client
from tidegate.domain.activity import ACTIVE_S, ScheduleState
from tidegate.providers.stores import StoreProviders


@contextmanager
def paused(stack: Mapping[str, Any]) -> Iterator[None]:
    """No schedule fires, and what it queued for the next minute is dropped. `stack` is what `stack.json` holds.

    It is for less than ten minutes: so long no viewer starts the schedule.
    """
    config = Config(endpoint=stack["emulator_url"])
    schedules = client(config, "scheduler")
    (name,) = [schedule["Name"] for schedule in schedules.list_schedules()["Schedules"]]
    set_state(schedules, name, "DISABLED")
    try:
        client(config, "sqs").purge_queue(QueueUrl=stack["queues"]["REVALIDATION_QUEUE_URL"])
        nothing_queued(config, stack)
        yield
    finally:
        nothing_queued(config, stack)
        set_state(schedules, name, "ENABLED")


def set_state(schedules: Any, name: str, state: str) -> None:
    """Switch a schedule on (`ENABLED`) or off (`DISABLED`). `schedules` is a client of EventBridge Scheduler."""
    schedule = schedules.get_schedule(Name=name)
    kept = {key: schedule[key] for key in ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")}
    schedules.update_schedule(**kept, State=state)


def nothing_queued(config: Config, stack: Mapping[str, Any], active_s: int = ACTIVE_S) -> None:
    """The next run of the schedule queues all that is due from now on, and begins its minute with that.

    `active_s`: for how long viewers find the schedule active. With 0 the next one of a new process starts it.
    """
    states = StoreProviders({**config.aws_environment(), **stack["tables"], "TIDEGATE_ENV": "development"})
    now = int(time.time())
    while not states.schedule_state.move(states.schedule_state.read(), ScheduleState(now + active_s, now, now)):
        pass  # a run wrote it meanwhile
