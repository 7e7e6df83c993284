"""Every command that the documents tell a reader to run is run by something, or is listed with the reason why not."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.docs.commands import OTHER, SHELL, Command, commands, fenced, of_page, told_pages
from tests.docs.pages import ROOT, name_of

#: Begin of a command -> what runs it: a test, or a step of CI.
RUN_BY = {
    "make setup": ".ci/run: make check",  # every other target does it first
    "make help": "tests/docs/test_commands.py: test_help_lists_every_target",
    "make check": ".ci/run: make check",
    "make test": ".ci/run: make test",
    "make test-full": "tests/docs/test_commands.py: test_the_fast_and_the_full_tests_differ_from_all_in_what_they_say",
    "make unit": "tests/docs/test_commands.py: test_the_fast_and_the_full_tests_differ_from_all_in_what_they_say",
    "make up": "tests/e2e/conftest.py: stack",
    "make down": "tests/e2e/conftest.py: stack",
    "make smoke": "tests/e2e/test_end_to_end.py: test_a_row_runs_alone",
    "make integration": "tests/e2e/test_end_to_end.py: test_the_smoke_run_is_green_and_changes_no_demo_data",
    "make bench": "tests/benchmarks/test_parts.py: test_every_part_has_a_test_here",
    "make synth": "tests/infra/test_synth.py: test_make_synth_writes_the_template_of_a_stage",
    "python -m local_stack smoke": "tests/e2e/test_end_to_end.py: smoke",
    "pytest local_stack/smoke": "tests/e2e/test_smoke_by_pytest.py: test_a_row_runs_by_pytest",
    'export PATH="$PWD/.venv/bin:$PATH"': "tests/e2e/test_smoke_by_pytest.py: test_a_row_runs_by_pytest",
    "python -m fixtures.fake_upstreams": "tests/fake_upstreams/test_process.py: test_",
    "python -m functions.relay": "tests/benchmarks/test_parts.py: test_part_relay",
    "python scripts/settings_doc.py": "tests/docs/test_settings.py: test_the_page_is_current",
    "python scripts/http_api_doc.py": "tests/docs/test_http_api.py: test_the_page_is_current",
    "python -m pytest -k extra_small tests/unit": "tests/docs/test_first_change.py: test_the_first_change_fails_and",
    "python -m pytest -k": "tests/docs/test_commands.py: test_a_selection_of_tests_selects_some",
    'curl -sS "$API/dashboards" -H': "tests/e2e/test_first_dashboard.py: test_the_call_of_the_first_change_is_refused",
}
#: Pages whose shell blocks are run as a whole.
RUN_WHOLE = {
    "docs/start/first-dashboard.md": "tests/e2e/test_first_dashboard.py: test_the_commands_of_the_first_dashboard_work",
}
_ACCOUNT = "it changes an AWS account, or reads one; "
#: Begin of a command that needs an AWS account -> why no test runs it, and what is tested of it instead.
NEEDS_AN_ACCOUNT = {
    "npx cdk bootstrap": _ACCOUNT + "it is the CDK's own command, and is run once for an account",
    "make deploy": _ACCOUNT + "`make synth` makes the same template, and `make up` deploys it to the emulator",
    "make admin": _ACCOUNT + "tests/functions/test_api.py writes a first admin with the same function",
    "make full-revalidation": _ACCOUNT + "tests/functions/test_gateway.py demands one with the same function",
}
#: Begin of another command that nothing runs -> why.
NOT_RUN = {
    "make requirements": "it asks an index of packages, whose answer changes; test_repository.py checks what it wrote",
    "pipx install pre-commit": "it installs a tool for the reader's own account, outside of the checkout",
    "pre-commit install": "it is that tool; test_what_pre_commit_runs_is_what_make_check_runs has what it would run",
    "git checkout tests layers": "it throws changes away, here those of whoever runs the tests",
}
ALL = [command for page in told_pages() for command in of_page(page)]
MAKEFILE = (ROOT / "Makefile").read_text()


def begins(command: Command, begin: str) -> bool:
    text = command.plain.removeprefix(".venv/bin/")
    return text == begin or text.startswith(begin + " ")


def covered_by(command: Command) -> str | None:
    """What runs a command, or why nothing does."""
    if command.page in RUN_WHOLE:
        return RUN_WHOLE[command.page]
    entries = {**RUN_BY, **NEEDS_AN_ACCOUNT, **NOT_RUN}
    return next((entries[begin] for begin in sorted(entries, key=len, reverse=True) if begins(command, begin)), None)


@pytest.mark.parametrize("page", told_pages(), ids=name_of)
def test_every_command_is_run_by_something(page: Path) -> None:
    alone = [command.text for command in ALL if command.page == name_of(page) and covered_by(command) is None]
    assert not alone, "add what runs it to RUN_BY, or to the lists below with the reason"


def test_every_entry_is_about_a_command() -> None:
    entries = {**RUN_BY, **NEEDS_AN_ACCOUNT, **NOT_RUN}
    assert [begin for begin in entries if not any(begins(command, begin) for command in ALL)] == []
    assert RUN_WHOLE.keys() <= {command.page for command in ALL}


@pytest.mark.parametrize("by", sorted({*RUN_BY.values(), *RUN_WHOLE.values()}))
def test_what_runs_a_command_is_there(by: str) -> None:
    file, _, name = by.partition(": ")
    text = (ROOT / file).read_text()
    assert (f"def {name}" if file.endswith(".py") else f"\n{name}\n") in text


def test_every_fenced_block_says_its_language() -> None:
    for page in told_pages():
        unknown = {language for language, _ in fenced(page.read_text())} - {*SHELL, *OTHER}
        assert not unknown, f"{name_of(page)}: {unknown}"


# --- the commands themselves --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", sorted({command.plain for command in ALL if begins(command, "make")}))
def test_make_knows_the_target(text: str) -> None:
    words = [word.replace("…", "staging") for word in shlex.split(text)]
    done = subprocess.run([words[0], "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for variable in (word.partition("=")[0] for word in words if "=" in word):
        assert variable in MAKEFILE + (ROOT / "ops/deploy.py").read_text(), f"nobody reads {variable}"


@cache
def helped(module: str) -> str:
    """What `python -m module --help` prints."""
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def started(target: str) -> list[str]:
    """What the recipe of a target gives to `python -m`: the module and its arguments."""
    (line,) = re.findall(rf"^{target}:.*\n\t@\$\(RUN\) python -m (.+)", MAKEFILE, re.M)
    return shlex.split(line)


@pytest.mark.parametrize(
    "words",
    [
        *(command.text.split()[2:] for command in ALL if begins(command, "python -m local_stack")),
        *(command.text.split()[2:] for command in ALL if begins(command, "python -m fixtures.fake_upstreams")),
        *(started(t) for t in ("up", "smoke", "down", "integration", "synth", "deploy", "admin", "bench")),
        started("full-revalidation"),
    ],
    ids=" ".join,
)
def test_a_module_knows_its_arguments(words: list[str]) -> None:
    module, *arguments = words
    for argument in arguments:
        if re.fullmatch(r"--[a-z-]+|[a-z-]+", argument):
            assert re.search(rf"(?<![a-z-]){re.escape(argument)}(?![a-z-])", helped(module)), argument


def test_help_lists_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (phony,) = re.findall(r"^\.PHONY: (.+)", MAKEFILE, re.M)
    assert re.findall(r"^  make ([a-z-]+)", shown, re.M) == phony.split()


def test_the_fast_and_the_full_tests_differ_from_all_in_what_they_say() -> None:
    assert started("test") == ["pytest", "-n", "$(WORKERS)"]
    assert started("test-full") == [*started("test"), "--full"]
    assert started("unit") == ["pytest", "tests/unit", "tests/docs"]  # `make test` runs them too
    assert re.search(r"^check: setup", MAKEFILE, re.M), "so CI runs `make setup` too"


@pytest.mark.parametrize("text", sorted({command.plain for command in ALL if "pytest -k" in command.text}))
def test_a_selection_of_tests_selects_some(text: str) -> None:
    selection, folder = shlex.split(text)[-2:]
    files = list((ROOT / folder).rglob("test_*.py"))
    names = " ".join([file.stem for file in files] + re.findall(r"def (test_\w+)", "".join(map(Path.read_text, files))))
    for word in set(re.findall(r"\w+", selection)) - {"and", "or", "not", "extra_small"}:  # the reader writes the last
        assert word in names, word


def test_what_pre_commit_runs_is_what_make_check_runs() -> None:
    hooks = re.findall(r"entry: (.+)", (ROOT / ".pre-commit-config.yaml").read_text())
    (recipe,) = re.findall(r"^check:.*\n((?:\t.+\n)+)", MAKEFILE, re.M)
    assert [line.split()[1:3] for line in recipe.splitlines()] == [
        [word.removeprefix(".venv/bin/") for word in hook.split() if not re.match(r"env$|PYTHONPATH=|--force", word)][
            :2
        ]
        for hook in hooks
    ]


# --- finding them -------------------------------------------------------------------------------------------


def test_commands_are_found() -> None:
    page = (
        "# A\n\n```sh\nmake one   # a comment\nA=1 make two \\\n  B=2\n\n# nothing\n```\n\n```python\nmake = 3\n```\n\n"
        "    make four\n    run five\n\nThen:\n\n    a -> b\n\nSay `git six`, `make`, and `not seven`.\n"
    )
    found = [command.text for command in commands(page)]
    assert found == ["make one", "A=1 make two B=2", "make four", "run five", "git six"]
    assert covered_by(Command("", "make")) is None and covered_by(Command("", "rm -r x")) is None
    assert covered_by(Command("", "PYTHONPATH=a .venv/bin/python scripts/settings_doc.py")) is not None
