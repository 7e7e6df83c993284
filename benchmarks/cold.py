"""What a cold start costs each function: the CPU of importing its handler, beside boto3 with a DynamoDB client.

Every import runs in a fresh interpreter without site-packages (`python -I -S`), over the layers as they are shipped.
Files are in the page cache. CPU is user and system time of that process (`os.wait4`), less what a bare interpreter
takes. All imports take turns, so that other work on the machine moves them alike: the ratios mean something where the
milliseconds do not. Downloading the code and starting the sandbox are the platform's, and are not in here.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import boto3

from benchmarks.figures import Cell, Figure, Table
from benchmarks.progress import step
from benchmarks.staging import API_DEPENDENCIES, DEPENDENCIES, FUNCTIONS, RELAY_DEPENDENCIES, SHARED, stage
from local_stack.config import Config, StackError
from tidegate.tables import ALL_TABLES

#: What a handler that a viewer waits for may cost, as a share of boto3 with a DynamoDB client.
AIM = 0.40

_BASE = (FUNCTIONS, SHARED, DEPENDENCIES)


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler to measure.

    Attributes:
        module: the one that holds the function `handler`.
        folders: of the staged tree, in the order of `sys.path`.
        aimed: whether `AIM` is for it.
    """

    module: str
    folders: tuple[str, ...] = _BASE
    aimed: bool = False


#: Every handler there is. This is the only list of them here.
HANDLERS = (
    Handler("functions.gateway_connect.connect", aimed=True),
    Handler("functions.gateway_connect.disconnect", aimed=True),
    Handler("functions.gateway_connect.messages", aimed=True),
    Handler("functions.mqtt_bridge.bridge", aimed=True),
    Handler("functions.mqtt_bridge.catch_up"),
    Handler("functions.mqtt_bridge.crowd"),
    Handler("functions.revalidate.worker"),
    Handler("functions.revalidate.dispatch"),
    Handler("functions.revalidate.schedule"),
    Handler("functions.revalidate.profiles"),
    Handler("functions.relay.worker", (*_BASE, RELAY_DEPENDENCIES)),
    Handler("functions.api.main", (*_BASE, API_DEPENDENCIES)),
)

#: Enough of an environment to build every function's services: nothing is called while they are built.
ENVIRONMENT = {
    "AWS_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "TIDEGATE_ENV": "test",
    "RELAY_FUNCTION": "relay",
    "SCHEDULE_FUNCTION": "schedule",
    "CREDENTIAL_KEY_ID": "key",
    "WEBSOCKET_API_ENDPOINT": "https://api.execute-api.eu-west-1.amazonaws.com/live",
    **{f"{name}_QUEUE_URL": "https://queue" for name in ("CATCH_UP", "CROWD", "REVALIDATION", "PROFILES")},
    **{f"{name}_DEAD_QUEUE_URL": "https://queue" for name in ("CATCH_UP", "CROWD", "REVALIDATION")},
    **{
        f"{name}_ARN": "arn"
        for name in ("JWT_SECRET", "JWT_GATEWAY_SECRET", "GATEWAY_SERVICE_TOKEN", "LIMITER_HASH_SALT", "ORIGIN_SECRET")
    },
    **{table.variable: table.name for table in ALL_TABLES},
}
#: With it set, handlers build their services while they are imported, as on Lambda (`tidegate.providers.process`).
_ON_LAMBDA = {"AWS_LAMBDA_FUNCTION_NAME": "bench"}

_YARDSTICK = "import boto3; boto3.client('dynamodb', region_name='eu-west-1')"
_OURS = "print(sum(name.partition('.')[0] in ('tidegate', 'functions') for name in sys.modules))"


@dataclass(frozen=True, slots=True)
class Size:
    """How often each import is measured."""

    rounds: int


FULL = Size(rounds=21)
SMALL = Size(rounds=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """A program for a fresh interpreter, what goes on its `sys.path`, and its environment."""

    code: str
    paths: Sequence[Path]
    env: Mapping[str, str]

    def command(self, *, write_bytecode: bool = False) -> list[str]:
        paths = [str(path) for path in self.paths]
        flags = ["-I", "-S"] if write_bytecode else ["-I", "-S", "-B"]
        return [sys.executable, *flags, "-c", f"import sys; sys.path[:0] = {paths!r}\n{self.code}"]

    def cpu_ms(self) -> float:
        """User and system time of one run, milliseconds. Raises `StackError` when it fails."""
        process = os.posix_spawn(sys.executable, self.command(), dict(self.env))
        _, status, used = os.wait4(process, 0)
        if status:
            raise StackError(f"This failed in a fresh interpreter: {self.code}")
        return (used.ru_utime + used.ru_stime) * 1000

    def output(self, *, write_bytecode: bool = False) -> str:
        """What one run prints. Raises `StackError` with the end of its errors when it fails."""
        command = self.command(write_bytecode=write_bytecode)
        done = subprocess.run(command, capture_output=True, text=True, env=dict(self.env))
        if done.returncode:
            raise StackError(f"This failed in a fresh interpreter: {self.code}\n{done.stderr[-2000:]}")
        return done.stdout


def run(_config: Config, size: Size) -> list[Table]:
    """Cold imports of every handler, beside boto3 with a DynamoDB client."""
    with tempfile.TemporaryDirectory() as folder:
        with step("layers installed and compiled"):
            stage(Path(folder))
        return [_measure(Path(folder), size)]


def _measure(staged: Path, size: Size) -> Table:
    bare = _Run("pass", [], {})
    yardstick = _Run(_YARDSTICK, [Path(boto3.__file__).parents[1]], ENVIRONMENT)
    imports = {handler: _import(handler, staged, ENVIRONMENT) for handler in HANDLERS}
    built = {handler: _import(handler, staged, ENVIRONMENT | _ON_LAMBDA) for handler in HANDLERS}
    # Writes the bytecode of packages that were installed without, as any first use does; and shows what is missing.
    yardstick.output(write_bytecode=True)
    modules = {handler: _modules(built[handler]) for handler in HANDLERS}
    runs = [bare, yardstick, *imports.values(), *built.values()]
    taken: dict[_Run, list[float]] = {program: [] for program in runs}
    with step("fresh interpreters", len(runs) * size.rounds) as progress:
        for _ in range(size.rounds):
            for program in runs:
                taken[program].append(program.cpu_ms())
                progress.advance()
    median = {key: statistics.median(times) for key, times in taken.items()}
    unit = median[yardstick] - median[bare]
    rows: list[tuple[Cell, ...]] = [("boto3 with a DynamoDB client", _ms(unit), Figure(1.0, ".2f"), "", "", "", "")]
    for handler in HANDLERS:
        alone, whole = (median[program[handler]] - median[bare] for program in (imports, built))
        ratios = (Figure(alone / unit, ".2f"), _ms(whole), Figure(whole / unit, ".2f"))
        aim = Figure(AIM, ".2f") if handler.aimed else ""
        rows.append((handler.module, _ms(alone), *ratios, aim, Figure(modules[handler])))
    columns = ("cold import, CPU", "ms", "ratio", "with services, ms", "ratio", "aim", "modules of ours")
    return Table(columns, rows, (f"a bare interpreter takes {median[bare]:.1f} ms; medians of {size.rounds} runs",))


def _import(handler: Handler, staged: Path, env: Mapping[str, str]) -> _Run:
    return _Run(f"import {handler.module}", [staged / folder for folder in handler.folders], env)


def _modules(built: _Run) -> int:
    """How many modules of ours are there once the services are built."""
    return int(_Run(f"{built.code}\n{_OURS}", built.paths, built.env).output())


def _ms(value: float) -> Figure:
    return Figure(value, ".1f")
