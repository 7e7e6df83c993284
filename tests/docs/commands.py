"""The commands that pages tell people to run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import PAGES, ROOT

#: Changes tell of commands that are gone; the first dashboard's are run as a whole.
_NOT_READ = {ROOT / "CHANGELOG.md", ROOT / "docs/start/first-dashboard.md"}
#: How a line or a piece of code begins that is a command.
_COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:make|python3?|pytest|curl|git|npx|npm|pipx|pre-commit|sh) \S"
)


def commands_of(page: Path) -> Iterator[str]:
    """The commands of a page: lines of shell blocks, indented lines, and code in sentences that begins as one does."""
    text = page.read_text()
    for block in re.findall(r"^```(?:sh|bash|shell|console)\n(.*?)^```$", text, re.M | re.S):
        yield from filter(None, (plain(line) for line in block.replace("\\\n", " ").splitlines()))
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    found = re.findall(r"^ {4}(\S.*)$", rest, re.M) + [
        " ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest)
    ]
    yield from filter(None, (plain(each) for each in found if _COMMAND.match(each)))


def plain(line: str) -> str:
    """A command without its comment and with single spaces."""
    return " ".join(re.sub(r"(^|\s)# .*$", "", line).split())


def all_commands() -> dict[str, list[str]]:
    """Every command, and the pages that have it."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        if page not in _NOT_READ:
            for command in commands_of(page):
                found.setdefault(command, []).append(str(page.relative_to(ROOT)))
    return found


@dataclass(frozen=True)
class RunBy:
    """Who runs a command that pages tell people to run.

    Attributes:
        pattern: what the command looks like, wholly.
        file: a test or a step of the CI that runs the command, or the same code.
        says: a piece of that file, from which it is seen that it does.
    """

    pattern: str
    file: str
    says: str


#: Each command is one of these. What is in nobody's test is not in a page.
RUN_BY = (
    RunBy("make (setup|check)", ".ci/run", "make check"),
    RunBy("make (test|unit)", ".ci/run", "make test"),
    RunBy("make test-full", "tests/conftest.py", '"--full"'),
    RunBy("make help", "tests/contracts/test_commands.py", "def test_help_lists_every_target"),
    RunBy("make up", "tests/e2e/conftest.py", "up(config"),
    RunBy("make down", "tests/e2e/conftest.py", "down(config)"),
    RunBy("make integration", "tests/e2e/conftest.py", "up(config"),
    RunBy("make smoke", "tests/e2e/test_end_to_end.py", '"--quick"'),
    RunBy('make smoke ROW="wildcard topic"', "tests/e2e/test_end_to_end.py", '"--row", "wildcard topic"'),
    RunBy("python -m local_stack smoke --(quick|json)", "tests/e2e/test_end_to_end.py", '"smoke", "--json"'),
    RunBy("python -m local_stack smoke --stack FILE", "tests/e2e/test_end_to_end.py", '"--stack"'),
    RunBy("pytest local_stack/smoke", "tests/e2e/test_smoke_by_pytest.py", "`(pytest local_stack/smoke)`"),
    RunBy('export PATH="\\$PWD/.venv/bin:.*', "tests/e2e/test_smoke_by_pytest.py", "^export .+$"),
    RunBy('make bench( PARTS="[a-z -]+")?', "tests/benchmarks/test_parts.py", "PARTS"),
    RunBy("make synth STAGE=staging", "tests/infra/test_synth.py", '["make", "synth", "STAGE=staging"'),
    RunBy("python -m functions.relay", "tests/functions/test_relay.py", '"-m", "functions.relay"'),
    RunBy("python -m fixtures.fake_upstreams", "tests/fake_upstreams/test_process.py", '"fixtures.fake_upstreams"'),
    RunBy(r"\.venv/bin/python -m pytest -k extra_small tests/unit", "tests/docs/test_first_change.py", "extra_small"),
    RunBy(r"\.venv/bin/python -m pytest -k .*", "tests/contracts/test_commands.py", "def test_selections_of_tests"),
    RunBy(
        "make secrets( STAGE=(staging|…))?", "tests/contracts/test_rotate_secret.py", "def test_all_secrets_are_shown"
    ),
    RunBy(
        "make rotate-secret( STAGE=staging NAME=[a-z-]+)?", "tests/contracts/test_rotate_secret.py", "def test_a_secret"
    ),
    RunBy("python -m ops.rotate_secret .*", "tests/contracts/test_rotate_secret.py", '"--value-from-stdin"'),
    RunBy(
        r"PYTHONPATH=\S+ \.venv/bin/python scripts/\w+_doc\.py",
        "tests/contracts/test_commands.py",
        "def test_scripts_of_pages",
    ),
    RunBy('curl .*"width": "xs".*', "tests/e2e/test_first_dashboard.py", "CONTRIBUTING.md"),
)
#: Commands that change an AWS account, or read one, so that no test runs them: what is run of each instead. That `make`
#: knows them is tested with the others.
NEEDS_AN_ACCOUNT = (
    RunBy("make deploy( STAGE=staging( DOMAIN=.*)?)?", "tests/infra/test_synth.py", 'f"DOMAIN={DOMAIN}"'),
    RunBy("make admin( STAGE=staging EMAIL=you@example.com)?", "tests/functions/test_api.py", "first_admin("),
    RunBy("make full-revalidation( STAGE=…)?", "local_stack/smoke/test_revocation.py", "demand_full_revalidation("),
    RunBy("npx cdk bootstrap", "package.json", "aws-cdk"),
)
#: Other commands that nothing runs -> why.
NOT_RUN = {
    "make requirements": "it asks an index of packages, whose answer changes; what it wrote is checked",
    "pipx install pre-commit": "it installs a tool outside of the checkout, for the reader's own account",
    "pre-commit install": "it is that tool's; what it would run is compared with `make check`",
    "git checkout tests layers": "it throws changes away, here those of whoever runs the tests",
}


def runners(command: str) -> list[RunBy]:
    """The first entry that a command is one of; none when nobody runs it, or a part of it."""
    return [entry for entry in (*RUN_BY, *NEEDS_AN_ACCOUNT) if re.fullmatch(entry.pattern, command)][:1]
