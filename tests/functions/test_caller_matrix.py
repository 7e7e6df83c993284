"""The page of callers says what every call is answered, and every call has an example."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts import callers_doc
from tests.functions import callers
from tests.functions.callers import World
from tests.servers.management import ManagementServer

WRITE = f"read what changed in docs/reference/callers.md; when it is meant, run: {callers_doc.HOW}"


@pytest.fixture(scope="module")
def world(moto_url: str) -> Iterator[World]:
    management = ManagementServer()
    yield World(moto_url, management)
    management.close()


def on_page() -> list[str]:
    return [text for text in callers_doc.TARGET.read_text().splitlines() if text.startswith("| `")]


def of_call(call: str) -> list[str]:
    return [text for text in on_page() if text.startswith(f"| `{call}`")]


def test_every_route_has_an_example() -> None:
    missing = sorted(set(callers.routes()) - set(callers.EXAMPLES))
    assert not missing, f"add an example to tests/functions/callers.py: EXAMPLES for {missing}, then {WRITE}"
    assert not set(callers.EXAMPLES) - set(callers.routes()), "examples of routes that are gone"


def test_every_kind_of_message_is_sent() -> None:
    missing = {"connect", *callers.message_kinds()} - set(callers.MESSAGES)
    assert not missing, f"add an example to tests/functions/callers.py: MESSAGES for {sorted(missing)}, then {WRITE}"


def test_the_page_has_no_other_rows() -> None:
    known = {f"| `{call}`" for call in (*callers.EXAMPLES, *callers.MESSAGES)}
    assert {f"{text.rpartition('`')[0]}`" for text in on_page()} <= known, WRITE


@pytest.mark.parametrize("route", callers.EXAMPLES)
def test_each_caller_is_answered_as_the_page_says(world: World, route: str) -> None:
    made = [callers_doc.line(row) for row in callers.rows_of_route(world, route)]
    assert made == of_call(route), WRITE


@pytest.mark.parametrize("kind", callers.MESSAGES)
def test_each_callers_message_is_answered_as_the_page_says(world: World, kind: str) -> None:
    made = [callers_doc.line(row) for row in callers.rows_of_message(world, kind)]
    assert made == of_call(kind), WRITE


def test_each_caller_is_shown_what_the_page_says(world: World) -> None:
    made = [callers_doc.line(row) for row in callers.rows_of_parts(world)]
    assert made and set(made) <= set(callers_doc.TARGET.read_text().splitlines()), WRITE
