"""The page of metrics and logs names what the code writes, and nothing else."""

from __future__ import annotations

import re

import pytest

from infra.rollout_table import STEPS
from tests.docs import observed
from tests.docs.observed import LEVELS, Observed
from tests.docs.pages import REFERENCE, code_files, code_words, rows, section
from tidegate.domain.access import Refusal
from tidegate.domain.intents import STREAM_TYPES
from tidegate.domain.limits import GATEWAY_SCOPES, Outcome
from tidegate.ports.delivery import Delivery
from tidegate.providers.process import event_ids

PAGE = (REFERENCE / "metrics-and-logs.md").read_text()
METRICS = {code_words(row[0])[0]: row for row in rows(section(PAGE, "Metrics"))}
VALUES = [
    (code_words(row[0]), code_words(row[1]), row[2])
    for row in rows(section(PAGE, "Values of dimensions"))
    if row[1:2] and len(row) == 3
]


def messages(level: str) -> dict[str, set[str]]:
    return {code_words(row[0])[0]: set(code_words(row[1])) for row in rows(section(PAGE, level))}


def test_every_metric_is_described_with_its_dimensions() -> None:
    written = {name: each.fields for name, each in observed.metrics().items()}
    described = {name: set(code_words(row[1])) for name, row in METRICS.items()}
    assert described == written
    assert all(all(row[2:]) and len(row) == 4 for row in METRICS.values()), "a meaning and what to do"


def test_durations_say_their_unit() -> None:
    durations = {name for name, each in observed.metrics().items() if each.method == "time"}
    assert {name for name, row in METRICS.items() if "milliseconds" in row[2]} == durations


@pytest.mark.parametrize("level", ["INFO", "WARNING", "ERROR"])
def test_every_log_message_is_described_with_its_fields(level: str) -> None:
    written = {text: each.fields for text, each in observed.logs().items() if LEVELS[each.method] == level}
    assert messages(level) == written


def test_every_id_of_all_lines_is_described() -> None:
    told = {word for row in rows(section(PAGE, "How they are written")) for word in code_words(row[0])}
    ids = set(event_ids({"requestContext": {"requestId": "r", "connectionId": "c"}}, "i"))
    assert told == ids | observed.names_of_events()


def test_every_dimension_has_its_values() -> None:
    for name, each in observed.metrics().items():
        for dimension in each.fields:
            assert any(dimension in names and name in of for names, of, _ in VALUES), (name, dimension)


@pytest.mark.parametrize(
    ("metric", "dimension", "values"),
    [
        ("limiter", "outcome", set(Outcome)),
        ("deliveries", "outcome", set(Delivery)),
        ("subscriptions_terminated", "reason", set(Refusal)),
        ("upstreams_begun", "protocol", set(STREAM_TYPES)),
    ],
)
def test_values_are_those_of_the_code(metric: str, dimension: str, values: set[str]) -> None:
    (text,) = [text for names, of, text in VALUES if dimension in names and metric in of]
    named = set(code_words(text))
    assert named == {str(value) for value in values}


def test_scopes_of_the_limiter_are_in_the_code() -> None:
    (text,) = [text for names, of, text in VALUES if "scope" in names and "limiter" in of]
    code = "".join(file.read_text() for file in code_files())
    for scope in code_words(text):
        parts = [scope, *(scope.removeprefix(prefix) for prefix in ("datasource-mint-", "cap-") if prefix in scope)]
        assert any(f'"{part}"' in code or f'f"{part}#' in code for part in parts) or scope == "gateway-", scope
    assert set(GATEWAY_SCOPES) <= set(code_words(text))


def test_codes_of_the_gateway_are_in_the_code() -> None:
    code = "".join(file.read_text() for file in code_files())
    codes = [
        word for row in rows(section(PAGE, "Values of dimensions")) if len(row) == 2 for word in code_words(row[0])
    ]
    assert len(codes) > 10
    for word in codes:
        assert f'"{word}"' in code or (word.startswith("token_") and word.removeprefix("token_") in set(Refusal)), word


def test_the_reading_of_the_code_sees_a_call() -> None:
    assert isinstance(observed.metrics()["limiter"], Observed)
    assert observed.metrics()["limiter"].fields == {"scope", "outcome", "cause"}


def test_services_are_the_functions_of_the_stack() -> None:
    """That each is called so is in tests/infra/test_stages_apart.py."""
    (sentence,) = re.findall(r"Every metric has the dimension `service`.*?\.", PAGE, re.S)
    functions = {name.lower() for step in STEPS for name in step.functions}
    assert {*code_words(sentence)} - {"service"} == functions
