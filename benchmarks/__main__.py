"""`make bench`: measure, print, and keep the result under `benchmarks/results/`."""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
from pathlib import Path

from benchmarks import revocation
from fixtures.local_stack.config import Config, StackError

PARTS = {"revocation": revocation.run, "push": revocation.push}
RESULTS = Path(__file__).parent / "results"


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], help="default: all")
    chosen = parser.parse_args().parts or list(PARTS)
    for part in chosen:
        print(f"{part}: {(PARTS[part].__doc__ or '').splitlines()[0]}")
        with tempfile.TemporaryDirectory() as state:
            edge, emulator, mqtt, sources = free_ports(4)
            try:
                lines = PARTS[part](Config(edge, emulator, mqtt, sources_port=sources, state=Path(state)))
            except StackError as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
        text = "\n".join(lines) + "\n"
        print(text)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{part}.txt").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
