"""`make bench`: measure, print, and keep the results under `benchmarks/results/`.

A small size shows in seconds that every part still runs. Its figures mean nothing, and nothing is kept of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from benchmarks import board, cold, crowd, history, push, quota, relay, revocation, sender, session
from benchmarks.figures import Result, Table, circumstances
from local_stack.config import Config, StackError, on_free_ports

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Part(Generic[S]):
    """What measures one thing, and its two sizes."""

    run: Callable[[Config, S], list[Table]]
    full: S
    small: S

    def measure(self, *, small: bool) -> list[Table]:
        """Run it beside whatever else runs on this machine. Raises `StackError`."""
        with tempfile.TemporaryDirectory() as state:
            return self.run(on_free_ports(Path(state)), self.small if small else self.full)


PARTS: dict[
    str,
    Part[cold.Size]
    | Part[sender.Size]
    | Part[relay.Size]
    | Part[revocation.Size]
    | Part[push.Size]
    | Part[session.Size]
    | Part[crowd.Size]
    | Part[quota.Size]
    | Part[history.Size]
    | Part[board.Size],
] = {
    "cold": Part(cold.run, cold.FULL, cold.SMALL),
    "sender": Part(sender.run, sender.FULL, sender.SMALL),
    "relay": Part(relay.run, relay.FULL, relay.SMALL),
    "revocation": Part(revocation.run, revocation.FULL, revocation.SMALL),
    "push": Part(push.run, push.FULL, push.SMALL),
    "session": Part(session.run, session.FULL, session.SMALL),
    "crowd": Part(crowd.run, crowd.FULL, crowd.SMALL),
    "history": Part(history.run, history.FULL, history.SMALL),
    "quota": Part(quota.run, quota.FULL, quota.SMALL),
    "board": Part(board.run, board.FULL, board.SMALL),
}
RESULTS = Path(__file__).parent / "results"


def measure(name: str, *, small: bool) -> Result:
    """Run one part. Raises `StackError`."""
    around = circumstances()
    print(f"{name}: {(PARTS[name].run.__doc__ or '').splitlines()[0]}", flush=True)
    tables = PARTS[name].measure(small=small)
    return Result(name, small, replace(around, load_after=circumstances().load_before), tables)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], help="default: all")
    parser.add_argument("--small", action="store_true", help="only show that the parts run; nothing is kept")
    parser.add_argument(
        "--json", action="store_true", help="print the results as JSON, and the steps to standard error"
    )
    given = parser.parse_args(arguments)
    results: list[Result] = []
    try:
        with redirect_stdout(sys.stderr if given.json else sys.stdout):
            for name in given.parts or PARTS:
                results.append(measure(name, small=given.small))
                if not given.small:
                    results[-1].keep(RESULTS)
                if not given.json:
                    print(results[-1].text())
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps([result.json() for result in results], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
