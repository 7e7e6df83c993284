"""`make up` on a stack that runs: it gets what has changed, and its data stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from local_stack.config import Config
from local_stack.deployment import client, outputs
from local_stack.processes import Processes
from local_stack.update import bring_up
from local_stack.versions import Record


def pids(config: Config) -> dict[str, int]:
    return {started.name: started.pid for started in Processes(config).alive()}


def share_link_works(stack: Mapping[str, Any]) -> bool:
    body = {key: stack["demo"]["link"][key] for key in ("dashboardId", "datasourceId", "shareToken")}
    return httpx.post(f"{stack['api_url']}/datasource-sessions", json=body, timeout=30).status_code == 201


def test_a_changed_part_is_started_again_and_the_others_stay(
    stack: Mapping[str, Any], config: Config, settings: Mapping[str, str]
) -> None:
    before = pids(config)
    assert bring_up(config, settings).told == ("Nothing has changed since it was started.",)
    assert pids(config) == before
    Record(config).note({"edge": "of other code"})
    again = bring_up(config, settings)
    after = pids(config)
    assert {name for name in before if after[name] != before[name]} == {"edge"}
    assert again.stack == stack and share_link_works(stack)


@pytest.mark.full
def test_a_changed_setting_comes_into_a_stack_that_runs(
    stack: Mapping[str, Any], config: Config, settings: Mapping[str, str]
) -> None:
    def cache_of_the_relay() -> str:
        functions = client(config, "lambda")
        found = functions.get_function_configuration(FunctionName=outputs(config)["RelayFunction"])
        return str(found["Environment"]["Variables"]["SECRET_CACHE_SECONDS"])

    before = pids(config)
    try:
        changed = bring_up(config, {**settings, "SECRET_CACHE_SECONDS": "11"})
        assert cache_of_the_relay() == "11" and pids(config) == before
        assert changed.stack == stack and share_link_works(stack)
    finally:
        bring_up(config, settings)
    assert cache_of_the_relay() == "10"
