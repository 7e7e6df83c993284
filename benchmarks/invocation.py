"""One invocation of the bridge, or of the sender of a part of a crowd, in this process, and what it takes.

Reads the job from standard input and prints its metrics and then a `Cost`, all as JSON. It is a module of its own, so
that such a process imports little more than a function does. Only Linux tells the peak of memory.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.meter import metered
from functions.mqtt_bridge.wiring import bridge_services, crowd_services
from tidegate.adapters.aws.crowd_queue import read_part
from tidegate.adapters.json_observer import JsonObserver
from tidegate.domain import crowds
from tidegate.usecases.delivery.bridge import DeviceMessage

#: The allowed topic of every message.
ALLOWED = "demo/#"
_PAYLOAD = b'{"t":21.5,"unit":"C","at":"2026-11-24T08:00:00Z"}'


@dataclass(frozen=True, slots=True)
class Cost:
    """What one invocation took, or several together.

    Attributes:
        wall_s: seconds.
        cpu_s: CPU seconds of its process.
        kib: how much more memory was resident at its peak than before it, KiB.
        calls: of DynamoDB.
        reads, writes: request units, without indexes.
        queue: calls of SQS.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    kib: int = 0
    calls: int = 0
    reads: float = 0.0
    writes: float = 0.0
    queue: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Of one after the other."""
        return Cost(
            self.wall_s + other.wall_s,
            self.cpu_s + other.cpu_s,
            max(self.kib, other.kib),
            self.calls + other.calls,
            self.reads + other.reads,
            self.writes + other.writes,
            self.queue + other.queue,
        )


def _work(job: Mapping[str, Any]) -> tuple[Callable[[], object], JsonObserver]:
    """What the invocation does, with its services built, and what counts it."""
    if "part" in job:
        crowd, part = crowd_services(job["env"]), read_part(job["part"])
        return lambda: crowd.send_part(part), crowd.observer
    services = bridge_services(job["env"])
    message = DeviceMessage(ALLOWED, job["topic"], _PAYLOAD, int(time.time() * 1000), f"message-{job['number']}")
    return lambda: services.bridge(message), services.observer


def _measured(work: Callable[[], object]) -> Cost:
    Path("/proc/self/clear_refs").write_text("5")  # the peak of before is forgotten
    before, cpu, wall = _memory_kib("VmRSS"), time.process_time(), time.perf_counter()
    work()
    taken = Cost(time.perf_counter() - wall, time.process_time() - cpu)
    return replace(taken, kib=_memory_kib("VmHWM") - before)


def _memory_kib(name: str) -> int:
    """`VmRSS` is what is resident now, `VmHWM` the most that was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _invocation(job: Mapping[str, Any]) -> Cost:
    crowds.CROWD = job["crowd"]
    work, observer = _work(job)
    try:
        return _counted(work) if job["counted"] else _measured(work)
    finally:
        observer.flush()


def _counted(work: Callable[[], object]) -> Cost:
    with metered() as meter:
        work()
        asked = meter.taken()
    return Cost(calls=asked.calls, reads=asked.reads, writes=asked.writes, queue=asked.others)


if __name__ == "__main__":
    print(json.dumps(asdict(_invocation(json.load(sys.stdin)))))
