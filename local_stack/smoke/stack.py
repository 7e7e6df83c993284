"""A running stack's description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from local_stack.config import StackError


def read_stack(path: Path) -> dict[str, Any]:
    """What `stack.json` holds. Raises `StackError` when there is none."""
    if not path.exists():
        raise StackError(f"No stack is running: there is no {path}. Run `make up` first.")
    stack: dict[str, Any] = json.loads(path.read_text())
    return stack
