"""`python -m local_stack.drills`; the Makefile calls it. Without a name it lists the drills.

Exit codes: 0, every expectation held; 1, one did not; 2, the drill could not be carried out; 130, it was interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from local_stack import emulator, show
from local_stack.config import Config, StackError, read_config
from local_stack.drills.catalog import DRILLS
from local_stack.drills.damage import Damage, repairs_of
from local_stack.drills.drill import Running
from local_stack.drills.repairs import NotPutRight
from local_stack.drills.report import Report, listed, listed_as_json
from local_stack.drills.runner import DrillFailed, carry_out
from local_stack.processes import alone
from local_stack.smoke.client import Smoke
from local_stack.smoke.stack import read_stack

#: The name that puts right what a drill left behind that was killed, and drills nothing.
REPAIR = "repair"
_NEXT = f"  next: make drill NAME=…; NAME={REPAIR} puts right what a drill that was killed left behind"
HELD, NOT_HELD, NOT_DRILLED, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if not options.name:
            print(listed_as_json(DRILLS.values()) if options.json else f"{listed(DRILLS.values())}\n\n{_NEXT}")
            return HELD
        if options.stage not in ("", "local"):
            raise StackError(f"Drills break things: they run on the local stack, and not on {options.stage!r}.")
        if options.name not in (*DRILLS, REPAIR):
            raise StackError(f"There is no drill {options.name!r}. Allowed: {', '.join((*DRILLS, REPAIR))}.")
        return _on_the_stack(options)
    except (StackError, DrillFailed, NotPutRight) as error:
        print(show.red(f"error: {_told(error)}"), file=sys.stderr)
        return NOT_DRILLED
    except KeyboardInterrupt:
        print("interrupted; `make drill NAME=repair` puts right what is still broken, if anything is", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local_stack.drills", description=__doc__)
    parser.add_argument("--name", default="", help=f"the drill; {REPAIR}: only put right what a killed one left behind")
    parser.add_argument("--stage", default="", help="refused unless it is local")
    parser.add_argument("--stack", type=Path, help="the stack.json of the stack to drill; default: that of `make up`")
    parser.add_argument("--json", action="store_true", help="print one line of JSON; progress goes to standard error")
    return parser


def _on_the_stack(options: argparse.Namespace) -> int:
    stack_file = options.stack or read_config().stack_file
    stack = read_stack(stack_file)
    if not emulator.healthy(Config(endpoint=stack["emulator_url"])):
        raise StackError(f"Nothing answers at {stack['emulator_url']}. Run `make down` and `make up` first.")
    with alone(stack_file.parent), redirect_stdout(sys.stderr if options.json else sys.stdout):
        report = _drilled(stack, options.name)
    if report is None:
        return HELD
    print(report.as_json() if options.json else f"\n{report.as_table()}")
    return HELD if report.held else NOT_HELD


def _drilled(stack: dict[str, object], name: str) -> Report | None:
    """None when nothing was to be drilled."""
    smoke = Smoke(stack)
    repairs = repairs_of(smoke)
    try:
        for what in repairs.put_right():
            print(f"  put right, of a drill that was ended: {what}")
        if name == REPAIR:
            print("  nothing is left to put right")
            return None
        drill = DRILLS[name]
        print(f"  {drill.name}: {drill.breaks}. It takes some {drill.takes_s} s.\n")
        report = carry_out(drill, Running(smoke, Damage(smoke, repairs), repairs), repairs)
        smoke.clean_up()
        return report
    finally:
        smoke.close()


def _told(error: Exception) -> str:
    match error:
        case DrillFailed():
            return f"The drill itself failed, so it says nothing of the stack: {error}"
        case NotPutRight():
            return f"Not all was put right: {error}. Run `make drill NAME={REPAIR}`, or `make down` and `make up`."
        case _:
            return str(error)


if __name__ == "__main__":
    # `kill` ends it as Ctrl-C does, so that it puts right what it broke.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
