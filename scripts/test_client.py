"""`make test-client`: the tests of web/client that need a stack, with one on free ports.

With `TIDEGATE_STATE` they use the stack that runs there. The test of a page of another origin is left out then: it
needs a stack whose `API_ALLOWED_ORIGINS` has the page's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from local_stack.config import ROOT, free_ports, on_free_ports
from local_stack.up import down, up

_VITEST = ("npx", "vitest", "run", "--config", "vitest.stack.config.ts", "--reporter", "verbose")
_PAGE = "on a page of another origin"


def main() -> int:
    state = os.environ.get("TIDEGATE_STATE")
    if state and (Path(state) / "stack.json").exists():
        print(f"without the test {_PAGE!r}: it needs a stack that allows the origin")
        return _run(Path(state) / "stack.json", "--testNamePattern", f"^(?!{_PAGE})")
    with tempfile.TemporaryDirectory() as folder:
        config = on_free_ports(Path(folder))
        origin = f"http://127.0.0.1:{free_ports(1)[0]}"
        try:
            up(config, {"API_ALLOWED_ORIGINS": f"{origin},{config.edge_url}"})
            return _run(config.stack_file, page_origin=origin)
        finally:
            down(config)


def _run(stack_file: Path, *options: str, page_origin: str = "") -> int:
    env = {**os.environ, "TIDEGATE_STACK": str(stack_file), "TIDEGATE_PAGE_ORIGIN": page_origin}
    return subprocess.run([*_VITEST, *options], cwd=ROOT / "web", env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
