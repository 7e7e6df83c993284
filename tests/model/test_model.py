"""All interleavings of subscribing, refreshing, leaving, revoking, cutting and delivering: what must hold, holds; and
it stops holding as soon as one safeguard is taken out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.model.explorer import Actor, Explored, Explorer
from tests.model.scenes import (
    Viewers,
    disconnect,
    fan_out,
    remove_member,
    revalidate,
    revoke,
    rotate,
    subscribe,
    unsubscribe,
)
from tidegate.usecases import cut_viewers


@pytest.fixture(autouse=True)
def _one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parallel writes of a cut touch different rows; the explorer is what interleaves."""
    monkeypatch.setattr(cut_viewers, "in_parallel", lambda work, items: [work(item) for item in items])


def viewer(connection: str, version: int | None, tag: str = "", **options: Any) -> Actor:
    name = f"subscribe {connection} {tag or version}"
    return Actor(name, subscribe(name, connection, version), **options)


def revoking(number: int, connections: tuple[str, ...] = ("c",), **options: Any) -> list[Actor]:
    """A revocation, and the pass its event starts."""
    event = f"revocation {number}"
    return [
        Actor(f"revoke {number}", revoke(number), after=f"revocation {number - 1}" if number else None),
        Actor(f"pass over {event}", revalidate(connections), after=event, **options),
    ]


def scenes() -> dict[str, Callable[[], Viewers]]:
    """By name: what is explored."""
    both = ("a", "b")
    faulty: dict[str, Any] = {"crashes": True, "lossy": True}
    again: dict[str, Any] = {**faulty, "again": True}
    return {
        "two attempts with one token, a rotation": lambda: Viewers(
            [viewer("c", 1, "1"), viewer("c", 1, "2"), *revoking(0)], revocations=[rotate]
        ),
        "an old token and a new one, a rotation": lambda: Viewers(
            [viewer("c", 1), viewer("c", -1), *revoking(0)], revocations=[rotate]
        ),
        "a refresh and a new token, two rotations": lambda: Viewers(
            [viewer("c", 1), viewer("c", -1), *revoking(0), *revoking(1)], live={"c": 1}, revocations=[rotate, rotate]
        ),
        "two viewers, a rotation and an ACL removal": lambda: Viewers(
            [viewer("a", -1), *revoking(0, both), *revoking(1, both)],
            connections=both,
            live={"a": 1, "b": None},
            revocations=[rotate, remove_member],
        ),
        "two viewers come, a rotation": lambda: Viewers(
            [viewer("a", 1), viewer("b", None), *revoking(0, both)], connections=both, revocations=[rotate]
        ),
        "a disconnect": lambda: Viewers(
            [viewer("c", 1), Actor("leave c", disconnect("c")), *revoking(0)], live={"c": 1}, revocations=[rotate]
        ),
        "an unsubscribe": lambda: Viewers(
            [viewer("c", -1), Actor("unsub c", unsubscribe("c")), *revoking(0)], live={"c": 1}, revocations=[rotate]
        ),
        "a subscribe that dies or hears nothing": lambda: Viewers(
            [viewer("c", 1, **faulty), viewer("c", -1), *revoking(0)], revocations=[rotate], faults=1
        ),
        "a pass that dies or hears nothing": lambda: Viewers(
            [viewer("c", -1), *revoking(0, **again)], live={"c": 1}, revocations=[rotate], faults=2
        ),
        "a lagging index": lambda: Viewers(
            [viewer("c", 1), *revoking(0)], live={"c": 1}, revocations=[rotate], lagging=True
        ),
        "fan-out while the right is lost": lambda: Viewers(
            [
                Actor("fan-out", fan_out(2)),
                Actor("revoke 0", revoke(0)),
            ],
            live={"c": 1},
            revocations=[rotate],
            lagging=True,
            ticks=4,
        ),
        "fan-out to a member and a guest, and a pass": lambda: Viewers(
            [Actor("fan-out", fan_out(1)), *revoking(0, both)],
            connections=both,
            live={"a": 1, "b": None},
            revocations=[rotate],
            ticks=3,
        ),
    }


@pytest.mark.parametrize("name", scenes())
def test_what_must_hold_holds_in_every_interleaving(name: str, record_property: Callable[..., None]) -> None:
    explored = explore(scenes()[name]())
    record_property("states", explored.states)
    print(f"{explored.states:,} states, {explored.ends:,} ends, at most {explored.deepest} steps: {name}")  # noqa: T201
    assert explored.ends > 1 and explored.states > 100


def explore(scene: Viewers) -> Explored:
    return Explorer(scene).explore()
