"""The last row looks back: whoever goes on with the stack finds it as `make up` made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_stack.checks import expect
from local_stack.smoke.client import Note, Smoke
from local_stack.smoke.demo_data import read_demo_data
from local_stack.smoke.rows import row
from local_stack.smoke.stack import read_stack


@row("demo data as before, its share link works")
async def test_demo_data(smoke: Smoke, note: Note, stack_file: Path, demo_data_before: Mapping[str, Any]) -> None:
    demo = read_stack(stack_file)["demo"]["link"]
    viewer = await smoke.subscribed(smoke.mint(smoke.anonymous(), demo), demo)
    await viewer.close()
    now = read_demo_data(smoke)
    changed = [what for what, before in demo_data_before.items() if now[what] != before]
    expect(not changed, f"changed: {', '.join(changed)}")
    note(f"{len(now)} lists compared")
