"""`make bench`: measure, print, and keep the result under `benchmarks/results/`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import relay, revocation, sender
from fixtures.local_stack.config import StackError, on_free_ports

PARTS = {"sender": sender.run, "relay": relay.run, "revocation": revocation.run, "push": revocation.push}
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], help="default: all")
    chosen = parser.parse_args().parts or list(PARTS)
    for part in chosen:
        print(f"{part}: {(PARTS[part].__doc__ or '').splitlines()[0]}")
        with tempfile.TemporaryDirectory() as state:
            try:
                queues = PARTS[part](on_free_ports(Path(state)))
            except StackError as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
        text = "\n".join(queues) + "\n"
        print(text)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{part}.txt").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
