"""Stage files for tests of what operators run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import infra.stage
from infra.stage import Stage, load_stage

#: A stage in a cloud account, with the edge, in which nothing is unusual.
PLAIN: dict[str, Any] = {
    "edge": True,
    "disposable": False,
    "architecture": "arm64",
    "settings": {"REALTIME_SSE_ENABLED": False, "REALTIME_WS_ENABLED": False},
}


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "qa", **keys: Any) -> Stage:
    """The plain stage with other keys, as the only one there is."""
    (folder / f"{name}.json").write_text(json.dumps(PLAIN | keys))
    monkeypatch.setattr(infra.stage, "STAGES", folder)
    return load_stage(name)
