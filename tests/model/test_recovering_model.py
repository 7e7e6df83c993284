"""All interleavings of handling values and of coming back: nothing is missing at the seam, and something is as soon as
one safeguard is taken out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.model.explorer import Explorer, Violation
from tests.model.recovering import Away
from tidegate.domain.subscriptions import LastValue, Stream
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.gateway import recover
from tidegate.usecases.gateway.recover import Recover, Recovered


def test_whoever_was_away_misses_nothing(
    pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> None:
    messages = 3 if pytestconfig.getoption("--full") else 2
    scene = Away(messages)
    explored = Explorer(scene).explore()
    record_property("explored", explored.told(f"{messages} messages while a viewer comes back"))
    assert scene.recovered and explored.states > 100


@pytest.mark.parametrize(
    "taken_out",
    ["the rest, by the catch-up", "what a call keeps late is read again", "a value is kept before it is sent"],
)
def test_without_any_one_safeguard_it_fails(taken_out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    match taken_out:
        case "the rest, by the catch-up":
            whole = Recover.the_rest
            monkeypatch.setattr(Recover, "the_rest", lambda *given: _only_the_end(whole(*given)))
        case "what a call keeps late is read again":
            monkeypatch.setattr(recover, "LATE_MS", 1)
        case "a value is kept before it is sent":
            monkeypatch.setattr(FanOut, "deliver", _sent_first)
    with pytest.raises(Violation) as found:
        Explorer(Away(2)).explore()
    assert found.value.trace


def _only_the_end(found: Recovered) -> Recovered:
    return replace(found, frames=found.frames[-1:])


def _sent_first(self: FanOut, stream: Stream, value: LastValue) -> None:
    if self._last_values.put_if_newer(stream.stream_key, value):
        self.send(stream, value)
        self.kept(stream, value)
