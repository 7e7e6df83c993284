"""Send the messages of a dead-letter queue back to where they came from, or list these queues; `make redrive`.

It does what `POST /api/operations/dead-letters/{queue}:redrive` does, with the credentials of whoever runs it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext

import botocore.exceptions

from functions.api.wiring import dead_queues
from infra.stage import StageError
from local_stack import show
from ops import operator_log
from ops.deploy import stage_environment
from ops.deploy_errors import DeployError, any_stage
from tidegate.errors import NotFound, TidegateError
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.usecases.control_plane.dead_letters import DeadLetters, DeadQueue, ManageDeadLetters
from tidegate.usecases.control_plane.operations import PART_S

#: Messages are left: some have no queue that they came from, somebody else holds them, or they failed again.
LEFT = 3


class Commands:
    """The dead-letter queues of a stage. `environment`: what a function of the stage sees of its tables and queues."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        container = ControlPlaneProviders(environment)
        observer = operator_log.observer()
        audit = operator_log.audit(container, observer)
        self._queues: Mapping[str, DeadQueue] = dead_queues(container)
        self._clock = container.clock
        self._manage = ManageDeadLetters(queues=self._queues, audit=audit, clock=self._clock, observer=observer)

    def all(self) -> list[DeadLetters]:
        """Every queue. Raises `Unavailable` when one of them does not answer."""
        return [self.one(name) for name in self._queues]

    def one(self, name: str) -> DeadLetters:
        """A queue. Raises `NotFound`, which names the queues there are, and `Unavailable`."""
        if name not in self._queues:
            raise NotFound(f"QUEUE={name[:60]!r} is no dead-letter queue; allowed: {', '.join(self._queues)}")
        found, deadline = self._queues[name], self._clock.monotonic() + PART_S
        messages = found.queue.depth(deadline).all
        oldest = found.queue.oldest_ms(deadline) if messages else None
        return DeadLetters(name, found.sources, messages, oldest)

    def move_back(self, name: str, count: int) -> tuple[int, int | None]:
        """Send so many messages back, in as many calls as it takes. Returns how many were moved, and how many are left.

        What fails again meanwhile is not moved once more. Raises `Unavailable`; what was moved stays moved.
        """
        moved, left = 0, None
        while moved < count:
            more, left = self._manage.move_back(None, name, count - moved)
            if not more:
                break
            moved += more
        return moved, left


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.redrive", description=__doc__)
    parser.add_argument("--stage", default="")
    parser.add_argument("--queue", default="", help="the dead-letter queue; without it, all are listed")
    parser.add_argument("--json", action="store_true", help="one JSON object in a line for each queue")
    options = parser.parse_args(arguments)
    try:
        stage = any_stage(options.stage)
        environment = stage_environment(stage)
        if "CATCH_UP_DEAD_QUEUE_URL" not in environment:
            raise DeployError(f"Stage {stage} does not name its queues yet; run `make deploy STAGE={stage}` first.")
        commands = Commands(environment)
        if options.queue:
            return _move_back(commands, options.queue, as_json=options.json)
        _list(commands.all(), as_json=options.json)
        return 0
    except (DeployError, StageError) as error:
        print(f"error: {error}", file=sys.stderr)
    except TidegateError as error:
        print(f"error: {_told(error)}", file=sys.stderr)
    except botocore.exceptions.BotoCoreError as error:
        print(f"error: AWS cannot be reached with the current credentials: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; what was sent back stays sent back, run the command again to go on", file=sys.stderr)
        return 130
    return 1


def _told(error: TidegateError) -> str:
    """An error for people, with AWS's word for the reason: one of them says that it was denied."""
    code = getattr(error.__cause__, "code", "")
    return f"{error.message}{f' ({code})' if code else ''}"


def _move_back(commands: Commands, name: str, *, as_json: bool) -> int:
    there = commands.one(name)
    count = there.messages or 0
    what = f"sending {count} messages of {name} back to {' and '.join(there.sources)}"
    with nullcontext() if as_json or not count else show.step(what):
        moved, left = commands.move_back(name, count) if count else (0, 0)
    if as_json:
        print(json.dumps({"queue": name, "moved": moved, "left": left}))
    elif not count:
        print(f"  {name} is empty")
    else:
        print(f"  {moved} were sent back, {'an unknown number is' if left is None else left} left")
    return 0 if left == 0 else LEFT


def _list(found: list[DeadLetters], *, as_json: bool) -> None:
    if as_json:
        for each in found:
            row = {"queue": each.queue, "sources": list(each.sources), "messages": each.messages}
            print(json.dumps(row | {"oldestMs": each.oldest_ms}))
        return
    rows = [(each.queue, str(each.messages), ", ".join(each.sources)) for each in found]
    print(show.table([("queue", "messages", "go back to"), *rows]))
    if any(each.messages for each in found):
        print("\n  next: make redrive STAGE=... QUEUE=..., when what made them fail is gone")


if __name__ == "__main__":
    sys.exit(main())
