"""What `make cost` counts of a stage is what the production stage has."""

from __future__ import annotations

from typing import Any

import pytest

from infra.alarm_table import alarms
from infra.concurrency import USUAL_PLACES
from ops import units
from tests.infra.test_alarms import alarms_of
from tests.infra.test_templates import of_type, properties, template
from tidegate.settings import Settings

#: What is charged by its number -> the type of the template.
TYPES = {
    "secret": "AWS::SecretsManager::Secret",
    "kms_key": "AWS::KMS::Key",
    "cloudwatch_dashboard": "AWS::CloudWatch::Dashboard",
}


@pytest.fixture(scope="module")
def production() -> dict[str, Any]:
    return template("production")


def test_what_is_charged_by_its_number(production: dict[str, Any]) -> None:
    found = {name: len(of_type(production, kind)) for name, kind in TYPES.items()}
    # Charged by the metrics that they look at; an alarm of a new version looks at one.
    listed = alarms_of(production)
    of_versions = len(of_type(production, "AWS::CloudWatch::Alarm")) - len(listed)
    found["alarm"] = of_versions + sum(alarm.metrics for alarm in alarms(Settings(), USUAL_PLACES))
    assert found == units.STANDING, "write it into ops/units.py, then run scripts/cost_doc.py"


def test_queues_that_are_asked_for_messages(production: dict[str, Any]) -> None:
    sources = [str(each["EventSourceArn"]) for each in properties(production, "AWS::Lambda::EventSourceMapping")]
    assert len([source for source in sources if "Queue" in source]) == units.POLLED_QUEUES


def test_memory_of_functions(production: dict[str, Any]) -> None:
    found = {
        each["Handler"].removeprefix("functions.").removesuffix(".handler"): each["MemorySize"]
        for each in properties(production, "AWS::Lambda::Function")
    }
    assert {name: size for name, size in found.items() if size != units.USUAL_MEMORY_MB} == units.MEMORY_MB


def test_our_functions_are_on_arm(production: dict[str, Any]) -> None:
    """The price of a GB-second is that of arm64."""
    for each in properties(production, "AWS::Lambda::Function"):
        assert each["Architectures"] == ["arm64"]
