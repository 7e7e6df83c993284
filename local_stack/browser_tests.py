"""The tests in a real browser, against a stack of their own: `make test-browser`.

`python -m local_stack.browser_tests [--keep] [vitest's own arguments]`. With `--stack` they use one that runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from infra.web_build import WEB
from local_stack import show
from local_stack.config import Config, StackError, free_ports, on_free_ports
from local_stack.up import down, up

#: All viewers of these tests come from one address, so what an address may do is more than by default.
_SETTINGS = {
    "REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN": "1000",
    "REALTIME_MAX_CLIENT_CONNECTIONS_PER_IP": "200",
    "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_IP_PER_MIN": "5000",
    "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN": "5000",
    "DATASOURCE_TOKEN_MINT_RATE_LIMIT_PUBLIC_IP_PER_MIN": "1000",
    "DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN": "5000",
    "REALTIME_PUBLIC_FULL_REVALIDATE_INTERVAL_MS": "86400000",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", type=Path, help="the stack.json of a stack that runs; pages are of its build")
    options, rest = parser.parse_known_args()
    try:
        if options.stack:
            return _run(options.stack, rest)
        with tempfile.TemporaryDirectory(prefix="tidegate-browser-") as state:
            return _with_own_stack(on_free_ports(Path(state)), rest)
    except StackError as error:
        print(show.red(f"error: {error}"), file=sys.stderr)
        return 1


def _with_own_stack(config: Config, rest: list[str]) -> int:
    (framer,) = free_ports(1)
    try:
        up(config, _SETTINGS | {"CONSOLE_FRAME_ANCESTORS": f"http://127.0.0.1:{framer}"}, moving=True)
        return _run(config.stack_file, rest, framer)
    finally:
        down(config)


def _run(stack: Path, rest: list[str], framer: int = 0) -> int:
    command = [str(WEB / "node_modules/.bin/vitest"), "run", "--config", "vitest.browser.config.ts", *rest]
    # `framer`: the port of the one origin that may frame viewer pages.
    env = {**os.environ, "TIDEGATE_STACK": str(stack.resolve()), "TIDEGATE_FRAMER_PORT": str(framer)}
    return subprocess.run(command, cwd=WEB, env=env).returncode


if __name__ == "__main__":
    sys.exit(main())
