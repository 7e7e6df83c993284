"""All interleavings of subscribing, refreshing, leaving, revoking, cutting and delivering: what must hold, holds; and
it stops holding as soon as one safeguard is taken out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.model import scenes
from tests.model.actors import (
    BOTH_DATASOURCES,
    MEMBER,
    OWNER,
    disconnect,
    fan_out,
    first_value,
    revalidate,
    revoke,
    subscribe,
    subscribe_all,
    tell,
    unsubscribe,
)
from tests.model.explorer import Actor, Explored, Explorer, Violation
from tests.model.scenes import (
    Access,
    Rows,
    Viewers,
    change_intent,
    deactivate,
    deactivate_owner,
    remove_member,
    rotate,
    rotate_and_remove,
    save,
    withdraw_elsewhere,
    withdraw_here,
)
from tidegate.domain.access import allowed, withdraw
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import Subscription, SubscriptionKey, TerminationClaim, same_authorization
from tidegate.errors import TidegateError
from tidegate.usecases.delivery import audiences
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.gateway import handle_message
from tidegate.usecases.gateway import subscribe as subscribing
from tidegate.usecases.gateway.subscribe import Subscribe, Subscribed
from tidegate.usecases.revocation import tell_document
from tidegate.usecases.revocation import terminate_subscriptions as cut_viewers


@pytest.fixture(autouse=True)
def _one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parallel writes of a cut touch different rows; the explorer is what interleaves."""
    monkeypatch.setattr(cut_viewers, "in_parallel", lambda work, items: [work(item) for item in items])


def viewer(connection: str, version: int | None, tag: str = "", **options: Any) -> Actor:
    name = f"subscribe {connection} {tag or version}"
    return Actor(name, subscribe(name, connection, version), **options)


def whole(connection: str, version: int | None, **options: Any) -> Actor:
    """A viewer with the dashboard's token, for both of its datasources."""
    name = f"subscribe {connection} both {version}"
    return Actor(name, subscribe_all(name, connection, version), **options)


def board(actors: list[Actor], change: Callable[[Access], Access], **options: Any) -> Viewers:
    return Viewers([*actors, *revoking(0)], revocations=[change], datasources=BOTH_DATASOURCES, **options)


def revoking(number: int, connections: tuple[str, ...] = ("c",), **options: Any) -> list[Actor]:
    """A revocation, and the pass its event starts."""
    event = f"revocation {number}"
    return [
        Actor(f"revoke {number}", revoke(number), after=f"revocation {number - 1}" if number else None),
        Actor(f"pass over {event}", revalidate(f"pass over {event}", connections), after=event, **options),
    ]


def deactivation(runs: int) -> Viewers:
    """A user's rows are found by an index: the task is carried out `runs` times, longer apart than the index lags."""
    tasks = [Task(TaskKind.USER, MEMBER)] * runs
    passing = revalidate("pass over revocation 0", ("c",), tasks)
    actors = [
        viewer("c", None),
        Actor("revoke 0", revoke(0)),
        Actor("pass over revocation 0", passing, after="revocation 0"),
    ]
    return Viewers(actors, revocations=[deactivate], lagging=True)


@dataclass(frozen=True, slots=True)
class Explorable:
    """A scene, and how many rounds a subscribe tries before it gives up: the more, the more states."""

    scene: Callable[[], Viewers]
    rounds: int = 2


def expiry(number: int) -> Actor:
    """A run over what has expired."""
    name = f"expired {number}"
    return Actor(name, revalidate(name, ("c",), [Task(TaskKind.EXPIRED)]))


BOTH = ("a", "b")
FAULTY: dict[str, Any] = {"crashes": True, "lossy": True}
AGAIN: dict[str, Any] = {**FAULTY, "again": True}

SCENES = {
    "two attempts with one token, a rotation": Explorable(
        lambda: Viewers([viewer("c", 1, "1"), viewer("c", 1, "2"), *revoking(0)], revocations=[rotate]), 1
    ),
    "an old token and a new one, a rotation": Explorable(
        lambda: Viewers([viewer("c", 1), viewer("c", -1), *revoking(0)], revocations=[rotate]), 1
    ),
    "a refresh and a new token, a rotation": Explorable(
        lambda: Viewers([viewer("c", 1), viewer("c", -1), *revoking(0)], live={"c": 1}, revocations=[rotate]), 1
    ),
    "a new token, two rotations": Explorable(
        lambda: Viewers([viewer("c", -1), *revoking(0), *revoking(1)], live={"c": 1}, revocations=[rotate, rotate])
    ),
    "two viewers, a rotation and an ACL removal": Explorable(
        lambda: Viewers(
            [viewer("a", -1), *revoking(0, BOTH), *revoking(1, BOTH)],
            connections=BOTH,
            live={"a": 1, "b": None},
            revocations=[rotate, remove_member],
        ),
        1,
    ),
    "two viewers come, a rotation": Explorable(
        lambda: Viewers([viewer("a", 1), viewer("b", None), *revoking(0, BOTH)], connections=BOTH, revocations=[rotate])
    ),
    "a profile is withdrawn": Explorable(
        lambda: Viewers(
            [viewer("a", -1), viewer("b", None), *revoking(0, BOTH)],
            connections=BOTH,
            live={"a": 1},
            revocations=[withdraw_here],
            ends=1,
        )
    ),
    "a profile of another datasource is withdrawn": Explorable(
        lambda: Viewers(
            [viewer("c", 1), viewer("c", -1), *revoking(0)],
            live={"c": 1},
            revocations=[withdraw_elsewhere],
            spared=True,
        ),
        1,
    ),
    "a disconnect": Explorable(
        lambda: Viewers(
            [viewer("c", -1), Actor("leave c", disconnect("c")), *revoking(0)], live={"c": 1}, revocations=[rotate]
        )
    ),
    "an unsubscribe": Explorable(
        lambda: Viewers(
            [viewer("c", -1), Actor("unsub c", unsubscribe("c")), *revoking(0)], live={"c": 1}, revocations=[rotate]
        )
    ),
    "a subscribe that dies or hears nothing": Explorable(
        lambda: Viewers([viewer("c", 1, **FAULTY), viewer("c", -1), *revoking(0)], revocations=[rotate], faults=1),
        1,
    ),
    "a pass that dies or hears nothing, twice": Explorable(
        lambda: Viewers([viewer("c", -1), *revoking(0, **AGAIN)], live={"c": 1}, revocations=[rotate], faults=2)
    ),
    "a lagging index": Explorable(
        lambda: Viewers([viewer("c", 1), viewer("c", -1), *revoking(0)], revocations=[rotate], lagging=True), 1
    ),
    "a user is deactivated, the index lags": Explorable(lambda: deactivation(2)),
    "an owner is deactivated, a guest and a member watch": Explorable(
        lambda: Viewers(
            [viewer("a", 1), viewer("b", None), *revoking(0, BOTH)],
            connections=BOTH,
            live={"a": 1},
            revocations=[deactivate_owner],
        )
    ),
    "a token expires, its viewer refreshes, two runs": Explorable(
        lambda: Viewers(
            [viewer("c", -1), expiry(1), expiry(2)],
            live={"c": 1},
            lives_s=0,
            lagging=True,
        )
    ),
    "a token expires and the right is lost": Explorable(
        lambda: Viewers([expiry(1), *revoking(0)], live={"c": 1}, revocations=[rotate], lives_s=0)
    ),
    "two subscribes of one grant, one dies or hears nothing": Explorable(
        lambda: Viewers([viewer("c", 1, "1"), viewer("c", 1, "2", **FAULTY)], faults=1)
    ),
    "a first value while the right is lost": Explorable(
        lambda: Viewers(
            [Actor("first value", first_value("first value", "c", 1)), Actor("revoke 0", revoke(0))],
            revocations=[rotate],
            ticks=4,
        )
    ),
    "fan-out while the owner is deactivated": Explorable(
        lambda: Viewers(
            [Actor("fan-out", fan_out(2)), Actor("revoke 0", revoke(0))],
            live={"c": 1},
            revocations=[deactivate_owner],
            ticks=4,
        )
    ),
    "fan-out while the right is lost": Explorable(
        lambda: Viewers(
            [Actor("fan-out", fan_out(2)), Actor("revoke 0", revoke(0))],
            live={"c": 1},
            revocations=[rotate],
            lagging=True,
            ticks=4,
        )
    ),
    "fan-out while its viewer leaves": Explorable(
        lambda: Viewers(
            [Actor("fan-out", fan_out(2)), Actor("unsubscribe c", unsubscribe("c"))], live={"c": 1}, ticks=2
        )
    ),
    "fan-out to a member and a guest, and a pass": Explorable(
        lambda: Viewers(
            [Actor("fan-out", fan_out(1)), *revoking(0, BOTH)],
            connections=BOTH,
            live={"a": 1, "b": None},
            revocations=[rotate],
            ticks=3,
        )
    ),
    "a saved document is told while the right is lost": Explorable(
        lambda: Viewers(
            [Actor("tell", tell(BOTH, 0)), *revoking(0, BOTH)],
            connections=BOTH,
            live={"a": 1, "b": None},
            revocations=[rotate],
            ticks=2,
        )
    ),
    "a saved document is told while it is saved again": Explorable(
        lambda: Viewers(
            [Actor("tell", tell(BOTH, 0)), Actor("revoke 0", revoke(0))],
            connections=BOTH,
            live={"a": 1, "b": None},
            revocations=[save],
            ticks=4,
        )
    ),
    "a dashboard's token, a rotation": Explorable(lambda: board([whole("c", 1)], rotate), 1),
    "a dashboard's token, one intent changes": Explorable(lambda: board([whole("c", None)], change_intent), 1),
    "a dashboard's token, a member is removed": Explorable(lambda: board([whole("c", None)], remove_member), 1),
    "a dashboard's token, an owner is deactivated": Explorable(lambda: board([whole("c", 1)], deactivate_owner), 1),
    "a dashboard's token, a profile of one is withdrawn": Explorable(
        lambda: board([whole("c", 1)], withdraw_here, ends=1), 1
    ),
    "a dashboard's token beside one of a datasource": Explorable(
        lambda: Viewers([whole("c", 1), viewer("c", 1)], datasources=BOTH_DATASOURCES)
    ),
    "a dashboard's token, the subscribe dies or hears nothing": Explorable(
        lambda: board([whole("c", 1, **FAULTY)], rotate, faults=1), 1
    ),
}

#: Smaller versions of the scenes that are large: fewer actors, rounds or ticks, and every safeguard is still missed.
SMALL = {
    "a new token, two rotations": Explorable(
        lambda: Viewers([viewer("c", -1), *revoking(0), *revoking(1)], live={"c": 1}, revocations=[rotate, rotate]), 1
    ),
    "two viewers, a rotation and an ACL removal": Explorable(
        lambda: Viewers(
            [viewer("a", -1), *revoking(0, BOTH)],
            connections=BOTH,
            live={"a": 1, "b": None},
            revocations=[rotate_and_remove],
        ),
        1,
    ),
    "a subscribe that dies or hears nothing": Explorable(
        lambda: Viewers([viewer("c", 1, crashes=True), viewer("c", -1), *revoking(0)], revocations=[rotate], faults=1),
        1,
    ),
    "a lagging index": Explorable(
        lambda: Viewers([viewer("c", 1), *revoking(0)], revocations=[rotate], lagging=True), 1
    ),
    "a first value while the right is lost": Explorable(
        lambda: Viewers(
            [Actor("first value", first_value("first value", "c", 1)), Actor("revoke 0", revoke(0))],
            revocations=[rotate],
            ticks=2,
        )
    ),
    "fan-out while the right is lost": Explorable(
        lambda: Viewers(
            [Actor("fan-out", fan_out(2)), Actor("revoke 0", revoke(0))],
            live={"c": 1},
            revocations=[rotate],
            ticks=2,
        )
    ),
    "fan-out to a member and a guest, and a pass": Explorable(
        lambda: Viewers(
            [Actor("fan-out", fan_out(1)), *revoking(0, BOTH)],
            connections=BOTH,
            live={"a": 1, "b": None},
            revocations=[rotate],
            ticks=2,
        )
    ),
    "a saved document is told while the right is lost": Explorable(
        lambda: Viewers([Actor("tell", tell(("c",), 0)), *revoking(0)], live={"c": 1}, revocations=[rotate], ticks=2)
    ),
    "a saved document is told while it is saved again": Explorable(
        lambda: Viewers(
            [Actor("tell", tell(("c",), 0)), Actor("revoke 0", revoke(0))], live={"c": 1}, revocations=[save], ticks=2
        )
    ),
}


@dataclass(frozen=True, slots=True)
class Model:
    """The scenes in the bound that was asked for."""

    full: bool
    monkeypatch: pytest.MonkeyPatch

    def explore(self, name: str, prepare: Callable[[Viewers], None] | None = None) -> Explored:
        """Visit every state of a scene. Raises `Violation`."""
        explorable = SCENES[name] if self.full else SMALL.get(name, SCENES[name])
        self.monkeypatch.setattr(subscribing, "ROUNDS", explorable.rounds)
        scene = explorable.scene()
        if prepare is not None:
            prepare(scene)
        return Explorer(scene).explore()


@pytest.fixture
def model(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Model:
    return Model(pytestconfig.getoption("--full"), monkeypatch)


def test_every_smaller_scene_has_its_large_one() -> None:
    assert SMALL.keys() < SCENES.keys()


@pytest.mark.parametrize("name", SCENES)
def test_what_must_hold_holds_in_every_interleaving(
    name: str, model: Model, record_property: Callable[[str, object], None]
) -> None:
    explored = model.explore(name)
    record_property("explored", explored.told(name))
    assert explored.ends > 1 and explored.states > 100


# --- the model has teeth -------------------------------------------------------------------------------------


class AnyAttempt(Rows):
    """Without the attempt id in the conditions."""

    def _own(self, row: Subscription) -> Subscription | None:
        return self.rows.get(row.key)


class ShownRegardless(Rows):
    """Without the condition on visibility."""

    def make_visible(self, row: Subscription, shard: int = 0) -> bool:
        self.rows[row.key] = replace(row, visible=True, termination=None)
        return True


class CutRowsTakenOver(Rows):
    """Without the wait for a cut row."""

    def get(self, key: SubscriptionKey) -> Subscription | None:
        there = self.rows.get(key)
        return None if there is not None and there.termination else there

    def put_hidden(self, row: Subscription) -> bool:
        there = self.rows.get(row.key)
        if there is not None and there.termination:
            self.rows.pop(row.key)
        return super().put_hidden(row)


class LiveRowsReplaced(Rows):
    """Without sparing a live row of one's own grant."""

    def put_hidden(self, row: Subscription) -> bool:
        there = self.rows.get(row.key)
        if there is not None and there.live and same_authorization(there.claim, row.claim):
            self.rows.pop(row.key)
        return super().put_hidden(row)


class EndedThoughRefreshed(Rows):
    """Without the expiry in the condition of a claim."""

    def claim_termination(self, row: Subscription, claim: TerminationClaim, *, expired_at: int | None = None) -> bool:
        return super().claim_termination(row, claim)


def with_rows(rows_class: type[Rows]) -> Callable[[Viewers], None]:
    def prepare(scene: Viewers) -> None:
        scene.rows_class = rows_class

    return prepare


def weak_places(scene: Viewers) -> None:
    scene.weak_places = True


def weak_query(scene: Viewers) -> None:
    scene.weak_query = True


VERIFIED = Subscribe._verified


def verdict_of_the_first(self: Subscribe, rows: Sequence[Subscription], *others: Any) -> Sequence[bool | TidegateError]:
    """What holds of the first row is taken to hold of all."""
    return [VERIFIED(self, rows[:1], *others)[0]] * len(rows)


def begun_one_verified_for_all(
    self: Subscribe, keys: Sequence[SubscriptionKey], admitted: Any, connection: Any, deadline: Any
) -> dict[str, Any]:
    """Verified when the first row is put, and then the others are put."""
    slot = self._admit(keys, connection, deadline)
    verdict: bool | TidegateError | None = None
    outcomes: dict[str, Any] = {}
    for key in keys:
        put = self._put(key, connection, admitted[key])
        if put is None:
            continue
        verdict = VERIFIED(self, [put[0]], slot, deadline)[0] if verdict is None else verdict
        if verdict is True and self._subscriptions.make_visible(put[0]):
            outcomes[key.datasource_id] = Subscribed(*put, False, 0.0)
    return outcomes


#: What is taken out of subscribing -> the method that is another one then.
WITHOUT = {
    "the verifying read": ("_verified", lambda _, rows, *_others: [True] * len(rows)),
    "a verdict for each row": ("_verified", verdict_of_the_first),
    "the verifying read after all rows are put": ("_begun", begun_one_verified_for_all),
}


#: What is taken out -> the module and the name of the bound, in seconds, that is none then.
BOUNDS = {
    "the audience when a frame leaves": (audiences, "AUDIENCE_S"),
    "the age of what admitted": (handle_message, "FRESH_S"),
    "the age of what is told by": (tell_document, "FRESH_S"),
}


@pytest.mark.parametrize(
    ("taken_out", "name", "prepare"),
    [
        ("the attempt id", "an old token and a new one, a rotation", with_rows(AnyAttempt)),
        ("the verifying read", "two attempts with one token, a rotation", None),
        ("the verifying read", "a dashboard's token, a rotation", None),
        ("the verifying read", "a dashboard's token, one intent changes", None),
        ("the verifying read", "a dashboard's token, a member is removed", None),
        ("the verifying read", "a dashboard's token, an owner is deactivated", None),
        ("the floor of a datasource", "a dashboard's token, a profile of one is withdrawn", None),
        ("a verdict for each row", "a dashboard's token, one intent changes", None),
        ("the verifying read after all rows are put", "a dashboard's token, a rotation", None),
        ("the condition on visibility", "two attempts with one token, a rotation", with_rows(ShownRegardless)),
        ("the wait for a cut row", "a new token, two rotations", with_rows(CutRowsTakenOver)),
        ("the strongly consistent query", "a lagging index", weak_query),
        ("the mark as a right", "a new token, two rotations", None),
        ("the age of a decision looked at last", "fan-out while the right is lost", None),
        (
            "the row of one's own grant",
            "two subscribes of one grant, one dies or hears nothing",
            with_rows(LiveRowsReplaced),
        ),
        ("the audience when a frame leaves", "fan-out while its viewer leaves", None),
        ("the age of what admitted", "a first value while the right is lost", None),
        ("the look at the keys before a place is given back", "a new token, two rotations", weak_places),
        (
            "the expiry in a claim",
            "a token expires, its viewer refreshes, two runs",
            with_rows(EndedThoughRefreshed),
        ),
        ("the mark as a right, of two over what has expired", "a token expires, its viewer refreshes, two runs", None),
        ("the floor of a datasource", "a profile is withdrawn", None),
        ("what a withdrawal leaves alone", "a profile of another datasource is withdrawn", None),
        ("the age of what is told by", "a saved document is told while the right is lost", None),
        ("the age of what is told by", "a saved document is told while it is saved again", None),
        ("the look at the revision", "a saved document is told while it is saved again", None),
    ],
)
def test_without_any_one_safeguard_it_fails(
    taken_out: str,
    name: str,
    prepare: Callable[[Viewers], None] | None,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    match taken_out:
        case "the verifying read" | "a verdict for each row" | "the verifying read after all rows are put":
            monkeypatch.setattr(Subscribe, *WITHOUT[taken_out])
        case "the mark as a right" | "the mark as a right, of two over what has expired":
            monkeypatch.setattr(TerminationClaim, "holds_against", lambda *_: False)
        case "the age of a decision looked at last":
            monkeypatch.setattr(FreshAccess, "allows", allows_without_looking_again)
        case "the audience when a frame leaves" | "the age of what admitted" | "the age of what is told by":
            monkeypatch.setattr(*BOUNDS[taken_out], float("inf"))
        case "the look at the revision":
            monkeypatch.setattr(tell_document._FreshRights, "overtaken", False)
        case "the floor of a datasource":
            monkeypatch.setattr(scenes, "withdraw", lambda dashboard, _: withdraw(dashboard, []))
        case "what a withdrawal leaves alone":
            monkeypatch.setattr(scenes, "withdraw", lambda *_: None)
    with pytest.raises(Violation) as found:
        model.explore(name, prepare)
    assert found.value.trace


def test_once_over_a_user_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index did not show a row yet: what the second run of a user's task is for."""
    monkeypatch.setattr(subscribing, "ROUNDS", 1)
    with pytest.raises(Violation, match="is visible after its pass"):
        Explorer(deactivation(1)).explore()


def allows_without_looking_again(access: FreshAccess, row: Subscription) -> bool:
    """What was loaded for the message is used for all of its viewers, however long that takes."""
    dashboard = access._dashboards[row.key.dashboard_id]
    owner = access._users[OWNER]
    return allowed(row.claim, dashboard[1], None, owner[1], access._clock.now()) is None
