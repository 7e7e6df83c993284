"""The stack's schedule, for checks that want nothing to happen by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from local_stack.config import Config
from local_stack.deployment import client


@contextmanager
def paused(stack: Mapping[str, Any]) -> Iterator[None]:
    """No schedule fires, and what it queued for the next minute is dropped. `stack` is what `stack.json` holds."""
    config = Config(endpoint=stack["emulator_url"])
    schedules = client(config, "scheduler")
    (name,) = [schedule["Name"] for schedule in schedules.list_schedules()["Schedules"]]
    set_state(schedules, name, "DISABLED")
    try:
        client(config, "sqs").purge_queue(QueueUrl=stack["queues"]["REVALIDATION_QUEUE_URL"])
        yield
    finally:
        set_state(schedules, name, "ENABLED")


def set_state(schedules: Any, name: str, state: str) -> None:
    """Switch a schedule on (`ENABLED`) or off (`DISABLED`). `schedules` is a client of EventBridge Scheduler."""
    schedule = schedules.get_schedule(Name=name)
    kept = {key: schedule[key] for key in ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")}
    schedules.update_schedule(**kept, State=state)
