"""`python -m local_stack up | smoke | down | integration`; the Makefile calls it."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

from local_stack import show
from local_stack.config import Config, StackError, read_config
from local_stack.processes import alone
from local_stack.smoke.table import run_smoke
from local_stack.up import addresses, down, up
from local_stack.update import bring_up


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local_stack", description=__doc__)
    parser.add_argument("command", choices=("up", "smoke", "down", "integration"))
    smoke = parser.add_argument_group("smoke, integration")
    smoke.add_argument("--json", action="store_true", help="print results as JSON")
    smoke.add_argument("--row", default="", help="run one row: its name, or a part of it")
    smoke.add_argument(
        "--quick", action="store_true", help="leave out the rows about relay workers, which take minutes"
    )
    smoke.add_argument("--stack", type=Path, help="the stack.json of the stack to drive (smoke)")
    options = parser.parse_args()
    try:
        config = read_config()
        if options.command == "smoke":
            return _smoke(config, options)
        with alone(config.state):
            return {"up": _up, "down": _down, "integration": _integration}[options.command](config, options)
    except StackError as error:
        print(show.red(f"error: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing is left running that was not running before", file=sys.stderr)
        return 130


def _up(config: Config, options: argparse.Namespace) -> int:
    running = bring_up(config, moving=True)
    print("".join(f"  {sentence}\n" for sentence in running.told) + addresses(running.stack))
    print("\n  next: make smoke, make down; after a change: make up")
    return 0


def _down(config: Config, options: argparse.Namespace) -> int:
    stopped = down(config)
    print(f"  stopped: {', '.join(stopped)}" if stopped else "  nothing was running")
    return 0


def _smoke(config: Config, options: argparse.Namespace) -> int:
    stack_file = options.stack or config.stack_file
    return run_smoke(stack_file, config.log, only=options.row or None, quick=options.quick, as_json=options.json)


def _integration(config: Config, options: argparse.Namespace) -> int:
    with redirect_stdout(sys.stderr if options.json else sys.stdout):
        up(config)  # before the `try`: a stack that ran before is not taken down
        try:
            with redirect_stdout(sys.__stdout__):
                return _smoke(config, options)
        finally:
            _down(config, options)


if __name__ == "__main__":
    sys.exit(main())
