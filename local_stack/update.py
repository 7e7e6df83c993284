"""`make up`: start the stack, or bring the one that runs to the code and the settings of the checkout.

The emulator stays, and with it all data. CloudFormation compares the functions, as it does on AWS. What keeps no data
is started again where it changed. Each step is safe to repeat: before something is changed, the note of what it was
started with is taken away, so an update that was interrupted is done again by the next one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local_stack import deployment, emulator, show
from local_stack.config import Config
from local_stack.processes import Processes, refuse_taken_ports
from local_stack.relay_workers import LocalRelayWorkers
from local_stack.up import (
    await_api,
    build_pages,
    described,
    down,
    overrides,
    start_edge,
    start_plant,
    up,
    write_stack,
)
from local_stack.versions import KEPT, Plan, Record, plan, wanted


@dataclass(frozen=True, slots=True)
class Running:
    """The stack after `bring_up`.

    Attributes:
        stack: what `stack.json` holds.
        told: sentences about it for people.
    """

    stack: Mapping[str, Any]
    told: tuple[str, ...] = ()


def bring_up(config: Config, settings: Mapping[str, str] | None = None, *, moving: bool = False) -> Running:
    """Start the stack, or update the one that runs. Arguments and errors are those of `up`.

    When an update fails, the stack is left as it is, with its data.
    """
    names = {started.name for started in Processes(config).alive()}
    emulated = emulator.healthy(config) if config.endpoint else "emulator" in names
    if names and emulated and config.stack_file.exists():
        return update(config, settings, moving=moving)
    told: tuple[str, ...] = ()
    if names:
        # Without the emulator there is no data, and without stack.json it was never complete.
        down(config)
        told = ("What was left of a stack that was not complete was taken down first.",)
    return Running(up(config, settings, moving=moving), told)


def update(config: Config, settings: Mapping[str, str] | None = None, *, moving: bool = False) -> Running:
    """Update the stack that runs."""
    processes, record = Processes(config), Record(config)
    record.refuse_other_ports()
    given = overrides(config, settings)
    now = wanted(config, given, moving=moving)
    todo = plan(record.versions(), now, {started.name for started in processes.alive()})
    stack: dict[str, Any] = json.loads(config.stack_file.read_text())
    told = _told(todo)
    if todo.deploy:
        record.forget("deployment")
        stack, fresh = _deploy(config, stack, given)
        told += fresh
    pages = build_pages()
    for name in todo.restart:
        record.forget(name)
        processes.stop(name)
        if name == "edge":
            refuse_taken_ports({"TIDEGATE_EDGE_PORT": config.edge_port})
            with show.step(f"edge on {config.edge_url}"):
                start_edge(config, processes, stack, pages, given)
        else:
            with show.step("device of the demo boards"):
                start_plant(config, processes, stack)
    if todo.deploy:
        with show.step("API answers"):
            await_api(config)
    # What was kept is as it was.
    record.note({part: version for part, version in now.items() if part not in KEPT})
    return Running(stack, told or (("Nothing has changed since it was started.",) if todo.nothing else ()))


def _deploy(
    config: Config, stack: dict[str, Any], settings: Mapping[str, str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Deploy, and start relay workers of the new code. Returns what `stack.json` holds now, and what to tell."""
    was = _relay_changed_at(config)
    with show.step("CDK app synthesised and deployed"):
        deployed = deployment.deploy(config, settings)
    other = stack | described(config, deployed)
    write_stack(config, other)
    if _relay_changed_at(config) != was:
        with show.step("relay workers of the new code"):
            LocalRelayWorkers(other).renew()
    replaced = sorted(name for name, table in stack["tables"].items() if other["tables"].get(name) != table)
    fresh = f"These tables were replaced and are empty: {', '.join(replaced)}. `make down` and `make up` start anew."
    return other, (fresh,) if replaced else ()


def _relay_changed_at(config: Config) -> str:
    name = deployment.outputs(config)["RelayFunction"]
    return str(deployment.client(config, "lambda").get_function_configuration(FunctionName=name)["LastModified"])


def _told(todo: Plan) -> tuple[str, ...]:
    told = [
        f"{name} has changed and keeps what it was started with, because data would be lost with it. "
        "`make down` and `make up` start anew."
        for name in todo.kept
    ]
    told += [f"{name} has ended. `make down` and `make up` start anew." for name in todo.ended]
    return tuple(told)
