"""What a drill is made of: a name, what it breaks, and expectations that hold or do not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import websockets

from local_stack import show
from local_stack.checks import CheckFailed
from local_stack.drills.repairs import Repairs

if TYPE_CHECKING:
    from local_stack.drills.damage import Damage
    from local_stack.smoke.client import Smoke

#: The kind of what a drill made, as `Repairs` knows it. It is deleted after the drill.
MADE = "made"
#: What says that an expectation does not hold. Anything else is a fault of the drill.
_NOT_SEEN = (CheckFailed, TimeoutError, httpx.HTTPError, websockets.WebSocketException)


@dataclass(frozen=True, slots=True)
class Finding:
    """An expectation, what was seen in its place, and whether that is what was expected."""

    expectation: str
    seen: str
    held: bool


class Running:
    """A drill that runs.

    Attributes:
        smoke: the people, viewers and devices of the stack.
        damage: what can be broken. All of it is put right after the drill.
        findings: what was found so far.
    """

    def __init__(self, smoke: Smoke, damage: Damage, repairs: Repairs) -> None:
        self.smoke = smoke
        self.damage = damage
        self._repairs = repairs
        self.findings: list[Finding] = []

    async def expects(self, expectation: str, look: Awaitable[str]) -> None:
        """Note whether the expectation holds. `look` returns what was seen, or raises what `_NOT_SEEN` names."""
        try:
            with show.step(expectation):
                seen, held = await look, True
        except _NOT_SEEN as error:
            seen, held = str(error) or type(error).__name__, False
        self.findings.append(Finding(expectation, seen, held))

    async def put_right(self) -> None:
        """Put right now what is broken, to see what becomes of it. What the drill made stays. Raises `NotPutRight`."""
        with show.step("repaired"):
            await asyncio.to_thread(self._repairs.put_right, but=MADE)


@dataclass(frozen=True, slots=True)
class Drill:
    """A drill.

    Attributes:
        name: what `make drill NAME=` takes.
        breaks: what it breaks, for people, in one sentence without a full stop.
        takes_s: how long it takes where nothing else runs, seconds, measured on two cores.
        body: breaks it, and looks.
    """

    name: str
    breaks: str
    takes_s: int
    body: Callable[[Running], Awaitable[None]]
