"""`python -m local_stack up | smoke | down | integration`; the Makefile calls it."""

from __future__ import annotations

import argparse
import sys

from local_stack import show
from local_stack.config import Config, StackError, read_config
from local_stack.smoke import read_stack, run_smoke
from local_stack.up import addresses, down, up


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m local_stack", description=__doc__)
    parser.add_argument("command", choices=("up", "smoke", "down", "integration"))
    parser.add_argument("--json", action="store_true", help="print results as JSON (smoke)")
    options = parser.parse_args()
    try:
        config = read_config()
        match options.command:
            case "up":
                _up(config)
                return 0
            case "smoke":
                return run_smoke(read_stack(config), as_json=options.json)
            case "down":
                _down(config)
                return 0
            case _:
                return _integration(config, as_json=options.json)
    except StackError as error:
        print(show.red(f"error: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing is left running that was not running before", file=sys.stderr)
        return 130


def _up(config: Config) -> None:
    print(addresses(up(config)))
    print("\n  next: make smoke, make down")


def _down(config: Config) -> None:
    stopped = down(config)
    print(f"  stopped: {', '.join(stopped)}" if stopped else "  nothing was running")


def _integration(config: Config, *, as_json: bool) -> int:
    try:
        stack = up(config)
        return run_smoke(stack, as_json=as_json)
    finally:
        _down(config)


if __name__ == "__main__":
    sys.exit(main())
