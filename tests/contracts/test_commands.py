"""The commands of pages are right as they stand there: make knows them, modules take their options, tests are found."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.docs.commands import all_commands
from tests.docs.pages import ROOT

COMMANDS = sorted(all_commands())
MAKE = sorted({command for command in COMMANDS if command.startswith("make ")})
TARGETS = sorted(set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)))


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """As a newcomer types it: nothing tells where our code is, but what set-up wrote."""
    whole = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | env
    return subprocess.run(command, cwd=ROOT, env=whole, capture_output=True, text=True, timeout=60)


# --- make ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", MAKE)
def test_make_would_do_it(command: str) -> None:
    _, target, *variables = shlex.split(command)
    assert target in TARGETS
    names = {variable.partition("=")[0] for variable in variables}
    used = (ROOT / "Makefile").read_text() + (ROOT / "ops/deploy.py").read_text()
    assert all(re.search(rf"\b{name}\b", used) for name in names), names
    planned = run("make", "-n", target, *variables, PYTHON=sys.executable)
    assert planned.returncode == 0 and planned.stdout, planned.stderr
    for module in re.findall(r"python -m ([\w.]+)", planned.stdout):
        assert importlib.util.find_spec(module), module


def test_help_lists_every_target() -> None:
    shown = run("make", "help").stdout
    assert shown.startswith("  make "), "also as a part of `make test`: see tests/conftest.py"
    assert set(re.findall(r"make ([a-z-]+) ", shown)) >= set(TARGETS)


# --- python -------------------------------------------------------------------------------------------------


MODULES = (
    "local_stack",
    "local_stack.drills",
    "ops.deploy",
    "ops.preflight",
    "ops.doctor",
    "ops.destroy",
    "ops.restore",
    "ops.rollback",
    "ops.rotate_secret",
    "ops.redrive",
    "ops.cost",
)
ALSO = ("fixtures.fake_upstreams", "benchmarks")


@pytest.mark.parametrize("module", [*MODULES, *ALSO])
def test_modules_say_what_they_take(module: str) -> None:
    told = run(".venv/bin/python", "-m", module, "--help")
    assert told.returncode == 0 and "usage" in told.stdout, told.stderr
    for command in COMMANDS:
        if f"python -m {module}" in command:
            assert all(option in told.stdout for option in re.findall(r"--[a-z]+", command)), command


def test_pages_name_the_python_that_has_our_code() -> None:
    """`python` alone is the machine's, which has neither our code nor what it needs."""
    assert not [command for command in COMMANDS if command.startswith(("python ", "python3 "))]


def test_the_cdk_cli_finds_the_app_by_itself() -> None:
    """`npx cdk` as people type it, with nothing in front."""
    (app,) = re.findall(r'"app": "(.+)"', (ROOT / "cdk.json").read_text())
    told = run(*app.split(), CDK_CONTEXT_JSON='{"stage": "nowhere"}', PATH="/usr/bin:/bin")
    assert told.returncode == 1 and "Stage 'nowhere' does not exist" in told.stderr


SELECTIONS = [command for command in COMMANDS if "pytest -k" in command and "-k extra_small " not in command]


@pytest.mark.parametrize("command", SELECTIONS)
def test_selections_of_tests_select_some(command: str) -> None:
    """In the first file that has one of its words, because pytest takes long to read all of a folder."""
    _, *arguments, folder = shlex.split(command)
    words = set(re.findall(r"\w+", arguments[-1])) - {"or", "and", "not"}
    tests = {
        file: re.findall(r"^def (test_\w+)", file.read_text(), re.M) for file in (ROOT / folder).rglob("test_*.py")
    }
    of_words = sorted(str(file) for file, names in tests.items() if any(word in str(names) for word in words))
    assert of_words, words
    chosen = run(sys.executable, *arguments, of_words[0], "--collect-only", "-q", "-p", "no:cacheprovider")
    assert chosen.returncode == 0, chosen.stdout[-500:]  # 5 when none is found


@pytest.mark.parametrize("command", [command for command in COMMANDS if "scripts/" in command])
def test_scripts_of_pages_run_with_their_environment(command: str) -> None:
    """Loaded only: what they write is compared in tests/docs/test_generated_pages.py."""
    setting, _, script = command.split()
    name, _, value = setting.partition("=")
    load = f"import runpy; runpy.run_path({script!r}, run_name='loaded')"
    assert run(sys.executable, "-c", load, **{name: value}).returncode == 0
