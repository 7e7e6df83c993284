"""Carries out one drill: whatever becomes of it, what it broke is put right."""

from __future__ import annotations

import asyncio
import time

from local_stack.drills.drill import Drill, Running
from local_stack.drills.repairs import Repairs
from local_stack.drills.report import Report


class DrillFailed(Exception):
    """The drill itself failed, so that it says nothing of the stack. The message is what failed."""


def carry_out(drill: Drill, running: Running, repairs: Repairs) -> Report:
    """Break, look, and put right.

    Raises:
        DrillFailed: the drill itself failed. What it broke was put right.
        NotPutRight: something could not be put right.
    """
    started = time.monotonic()
    try:
        asyncio.run(_body(drill, running))
    except Exception as error:  # a fault of the drill is none of the stack
        raise DrillFailed(f"{type(error).__name__}: {error}") from error
    finally:
        repairs.put_right()  # also when it was interrupted
    return Report(drill.name, running.findings, time.monotonic() - started)


async def _body(drill: Drill, running: Running) -> None:
    try:
        await drill.body(running)
    finally:
        await running.smoke.close_viewers()
