"""`make doctor STAGE=local` on the running stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local_stack.config import Config
from ops import doctor_local
from ops.doctor_checks import findings
from ops.doctor_facts import collect
from ops.readiness import State


def test_a_running_stack_is_held_to_its_file(stack: Mapping[str, Any], config: Config) -> None:
    stage, target = doctor_local.of(config)
    found = {line.check: line for line in findings(stage, collect(stage, target), target.region)}
    assert not [line for line in found.values() if line.state is State.UNKNOWN]
    for check in ("hops of a request", "forged X-Forwarded-For", "deployed failure modes", "age of secrets"):
        assert found[check].state is State.OK, found[check]
    (failed,) = [line for line in found.values() if line.state is State.FAILED]
    # The stack of the tests was deployed with two settings that its file does not have.
    assert failed.check == "deployed settings"
    assert {each.split(" ")[0] for each in failed.found.split(": ", 1)[1].split("; ")} == {
        "DATASOURCE_SESSION_TTL_SECONDS",
        "REALTIME_PUBLIC_FULL_REVALIDATE_INTERVAL_MS",
    }
