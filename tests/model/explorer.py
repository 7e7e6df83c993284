"""An explorer of all interleavings of real code.

An actor is a script of real use cases over stores that answer from a list. Its code is deterministic, so what it does
next follows from the answers it had: to learn it, the script is run again over those answers until it asks for one
that is not there. Nothing of the code needs to be stopped, copied or modelled; answers are the actor's whole state.

A state is the stores' contents and every actor's answers. From each state the explorer takes every step
there is: one store call of any actor, that call with its answer lost, a crash of an actor, and whatever the scene adds
(time passing, an index catching up). States met before are not entered again. Within the scene's bounds it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from tidegate.errors import Unavailable

S = TypeVar("S")

#: What an actor got for a call: a value, or an exception that was raised at it.
Answer = tuple[str, Any]


class Asks(BaseException):
    """The script asked for an answer it does not have yet. Nothing may catch it."""

    def __init__(self, call: Call) -> None:
        self.call = call


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a store: one atomic step."""

    store: str
    method: str
    args: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return f"{self.store}.{self.method}"


class Answers:
    """What a script's stores answer from."""

    def __init__(self, given: tuple[Answer, ...]) -> None:
        self._given = given
        self._next = 0

    def ask(self, store: str, method: str, *args: Any, **options: Any) -> Any:
        if self._next == len(self._given):
            raise Asks(Call(store, method, args, tuple(sorted(options.items()))))
        kind, value = self._given[self._next]
        self._next += 1
        if kind == "raised":
            raise value
        return value


class Store:
    """A port of which every method is one step."""

    def __init__(self, answers: Answers, name: str) -> None:
        self._answers = answers
        self._name = name

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda *args, **options: self._answers.ask(self._name, method, *args, **options)


Script = Callable[[Answers], str]


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody at work.

    Attributes:
        name: unique in the scene.
        script: real code over `Answers`; returns its outcome.
        crashes: how often it may die at any step; it is begun again when `again`, as a queue brings a task back.
        after: name of the event that starts it; None starts it at once.
    """

    name: str
    script: Script
    crashes: bool = False
    again: bool = False
    lossy: bool = False
    after: str | None = None


@dataclass(frozen=True, slots=True)
class State(Generic[S]):
    """The stores' contents, what every actor was answered, and what has happened."""

    stores: S
    answers: Mapping[str, tuple[int, ...]]
    outcomes: Mapping[str, str] = field(default_factory=dict)
    happened: frozenset[str] = frozenset()
    faults: int = 0  # crashes and lost answers still allowed


class Violation(Exception):
    """An invariant does not hold. `trace` is how it came to that."""

    def __init__(self, what: str, trace: tuple[str, ...] = ()) -> None:
        super().__init__(f"{what}\n  " + "\n  ".join(trace))
        self.what = what
        self.trace = trace


class Scene(Generic[S]):
    """What is explored: subclasses say what a call does to the stores, and what must hold."""

    actors: tuple[Actor, ...] = ()
    faults = 0

    def start(self) -> S:
        raise NotImplementedError

    def perform(self, stores: S, actor: str, call: Call) -> tuple[S, Answer, str | None]:
        """The stores after the call, the answer, and the event it makes happen. Raises `Violation`."""
        raise NotImplementedError

    def waits(self, stores: S, actor: str, call: Call) -> bool:
        """Whether the call cannot be made yet: the actor waits, or time does because a function has to end first."""
        return False

    def key(self, stores: S) -> Hashable:
        """Equal for equal stores."""
        raise NotImplementedError

    def environment(self, stores: S) -> Iterator[tuple[str, S]]:
        """Steps nobody takes: time passes, an index catches up."""
        return iter(())

    def check(self, state: State[S]) -> None:
        """Raises `Violation`; asked in every state."""

    def check_end(self, state: State[S]) -> None:
        """Raises `Violation`; asked where nobody has a step left."""


@dataclass(slots=True)
class Explored:
    """How much was seen."""

    states: int = 0
    ends: int = 0
    deepest: int = 0

    def told(self, scene: str) -> tuple[int, str]:
        """What a test run prints of it at its end."""
        return self.states, f"states, at most {self.deepest} steps deep: {scene}"


class Explorer(Generic[S]):
    def __init__(self, scene: Scene[S]) -> None:
        self._scene = scene
        self._actors = {actor.name: actor for actor in scene.actors}
        self._interned: dict[str, int] = {}
        self._values: list[Answer] = []
        self._next: dict[tuple[str, tuple[int, ...]], Call | str] = {}

    def explore(self) -> Explored:
        """Visit every state. Raises `Violation` with the way there."""
        scene, explored = self._scene, Explored()
        first = State(scene.start(), {actor.name: () for actor in scene.actors}, faults=scene.faults)
        seen = {self._key(first)}
        # Depth first; each entry carries the way to it, as a linked list so that it costs nothing.
        stack: list[tuple[State[S], Any, int]] = [(first, None, 0)]
        while stack:
            state, way, depth = stack.pop()
            explored.states += 1
            explored.deepest = max(explored.deepest, depth)
            try:
                scene.check(state)
                nexts = list(self._steps(state))
                if not nexts:
                    explored.ends += 1
                    scene.check_end(state)
            except Violation as violation:
                raise Violation(violation.what, _trace(way, violation.trace)) from None
            for label, after in nexts:
                key = self._key(after)
                if key not in seen:
                    seen.add(key)
                    stack.append((after, (label, way), depth + 1))
        return explored

    def _steps(self, state: State[S]) -> Iterator[tuple[str, State[S]]]:
        moved = False
        for actor in self._scene.actors:
            if actor.name in state.outcomes or (actor.after is not None and actor.after not in state.happened):
                continue
            call = self._call(actor, state.answers[actor.name])
            if isinstance(call, str):
                outcomes = {**state.outcomes, actor.name: call}
                yield f"{actor.name}: {call}", replace(state, outcomes=outcomes, happened=state.happened | {actor.name})
                return  # a step that touches nothing shared: its order does not matter
            if self._scene.waits(state.stores, actor.name, call):
                continue
            moved = True
            yield from self._performed(state, actor, call)
        if moved:
            for label, stores in self._scene.environment(state.stores):
                yield label, replace(state, stores=stores)

    def _performed(self, state: State[S], actor: Actor, call: Call) -> Iterator[tuple[str, State[S]]]:
        try:
            stores, answer, event = self._scene.perform(state.stores, actor.name, call)
        except Violation as violation:
            raise Violation(violation.what, (f"{actor.name}: {call}",)) from None
        after = replace(state, stores=stores, happened=state.happened | ({event} if event else frozenset()))
        yield f"{actor.name}: {call}", self._answered(after, actor, answer)
        if not state.faults:
            return
        if actor.lossy:
            lost: Answer = ("raised", Unavailable("the answer was lost"))
            yield (
                f"{actor.name}: {call}, answer lost",
                self._answered(replace(after, faults=state.faults - 1), actor, lost),
            )
        if actor.crashes:
            fewer = replace(state, faults=state.faults - 1)
            if actor.again:
                died = replace(fewer, answers={**state.answers, actor.name: ()})
            else:
                died = replace(fewer, outcomes={**state.outcomes, actor.name: "died"})
            yield f"{actor.name}: dies before {call}", died

    def _answered(self, state: State[S], actor: Actor, answer: Answer) -> State[S]:
        text = repr(answer)
        number = self._interned.get(text)
        if number is None:
            number = self._interned[text] = len(self._values)
            self._values.append(answer)
        return replace(state, answers={**state.answers, actor.name: (*state.answers[actor.name], number)})

    def _call(self, actor: Actor, given: tuple[int, ...]) -> Call | str:
        """What the actor does after these answers: its next call, or its outcome."""
        known = self._next.get((actor.name, given))
        if known is None:
            try:
                known = actor.script(Answers(tuple(self._values[number] for number in given)))
            except Asks as asks:
                known = asks.call
            self._next[actor.name, given] = known
        return known

    def _key(self, state: State[S]) -> Hashable:
        answers = tuple(state.outcomes.get(actor.name) or state.answers[actor.name] for actor in self._scene.actors)
        return (self._scene.key(state.stores), answers, state.happened, state.faults)


def _trace(way: Any, last: tuple[str, ...]) -> tuple[str, ...]:
    labels = list(reversed(last))
    while way is not None:
        label, way = way
        labels.append(label)
    return tuple(reversed(labels))
