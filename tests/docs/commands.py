"""The commands that pages tell people to run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import DOCS, PAGES, REFERENCE, ROOT
from tests.docs.runbooks import RUNBOOKS, blocks

#: The generated list of all commands.
LISTED = REFERENCE / "commands.md"
#: Pages whose blocks are run as a whole, in their order -> the test that does it. Of runbooks, what stands outside of
#: blocks cannot run here, and is read as that of any other page.
RUN_AS_A_WHOLE = {
    DOCS / "start/first-dashboard.md": "tests/e2e/test_first_dashboard.py",
    DOCS / "start/your-first-device.md": "tests/e2e/test_first_device.py",
    **{page: "tests/e2e/test_runbooks.py" for page in RUNBOOKS if blocks(page)},
}
#: Changes tell of commands that are gone.
_NOT_READ = {ROOT / "CHANGELOG.md", LISTED, *RUN_AS_A_WHOLE.keys() - set(RUNBOOKS)}
#: How a line or a piece of code begins that is a command.
_COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:make|python3?|pytest|curl|git|npx|npm|pipx|pre-commit|sh|aws [a-z-]+) \S"
)


def commands_of(page: Path) -> Iterator[str]:
    """The commands of a page: lines of shell blocks, indented lines, and code in sentences that begins as one does."""
    text = page.read_text()
    read = [] if page in RUN_AS_A_WHOLE else re.findall(r"^```(?:sh|bash|shell|console)\n(.*?)^```$", text, re.M | re.S)
    for block in read:
        yield from filter(None, (plain(line) for line in block.replace("\\\n", " ").splitlines()))
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    found = re.findall(r"^ {4,8}(\S.*)$", rest, re.M) + [
        " ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest)
    ]
    yield from filter(None, (plain(each) for each in found if _COMMAND.match(each)))


#: How the blocks of a page that is run as a whole call something, and what of it is its name.
_CALL = re.compile(
    r"""(?:^|(?<=[({|] )|(?<=\$\()|(?<=[(]))[ ]*(?:until[ ])?
    (make[ ][a-z-]+ | aws[ ][a-z-]+[ ][a-z-]+ | git[ ][a-z]+ | api[ ][A-Z]+[ ]["']?[^"' |)\n]+)""",
    re.M | re.X,
)


def run_as_a_whole(page: Path) -> list[str]:
    """What the blocks of such a page call, without values: `api GET operations/summary`, `aws iot create-thing`."""
    text = re.sub(r"<<'PY'.*?^PY$", "", "\n".join(blocks(page)), flags=re.M | re.S)
    return list(
        dict.fromkeys(re.sub(r"[\"']|\?.*", "", re.sub(r"\$[A-Z]+", "…", each)) for each in _CALL.findall(text))
    )


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
    RunBy("make test-(web|client)", ".ci/run", "make test-client"),
    RunBy("make test-browser", ".ci/run", "make test-browser"),
    RunBy("npm run build", "web/client/test/unit/package.test.ts", '"tsconfig.build.json"'),
    RunBy("make test-full", "tests/conftest.py", '"--full"'),
    RunBy("make help", "tests/contracts/test_commands.py", "def test_help_lists_every_target"),
    RunBy("make up", "tests/e2e/conftest.py", "up(config"),
    RunBy("make down", "tests/e2e/conftest.py", "down(config)"),
    RunBy("make integration", "tests/e2e/conftest.py", "up(config"),
    RunBy("make smoke", "tests/e2e/test_end_to_end.py", '"--quick"'),
    RunBy('make smoke ROW="wildcard topic"', "tests/e2e/test_end_to_end.py", '"--row", "wildcard topic"'),
    RunBy(
        "make drill( NAME=[a-z-]+( OPTIONS=--json)?)?", "tests/e2e/test_drills.py", 'f"NAME={name}", "OPTIONS=--json"'
    ),
    RunBy(
        r"\.venv/bin/python -m local_stack smoke --(quick|json)", "tests/e2e/test_end_to_end.py", '"smoke", "--json"'
    ),
    RunBy(r"\.venv/bin/python -m local_stack smoke --stack FILE", "tests/e2e/test_end_to_end.py", '"--stack"'),
    RunBy("pytest local_stack/smoke", "tests/e2e/test_smoke_by_pytest.py", "`(pytest local_stack/smoke)`"),
    RunBy('export PATH="\\$PWD/.venv/bin:.*', "tests/e2e/test_smoke_by_pytest.py", "^export .+$"),
    RunBy('make bench( PARTS="[a-z -]+")?', "tests/benchmarks/test_parts.py", "PARTS"),
    RunBy("make synth( STAGE=staging)?", "tests/infra/test_synth.py", 'synth("STAGE=staging")'),
    RunBy("make lint-templates", "tests/infra/test_lint_templates.py", "lint_templates.main()"),
    RunBy("make sbom", "tests/contracts/test_sbom.py", "sbom.main()"),
    RunBy("make audit( OPTIONS=web/package-lock.json)?", "tests/contracts/test_audit.py", "audit.main("),
    RunBy(r"\.venv/bin/python -m functions.relay", "tests/functions/test_relay.py", '"-m", "functions.relay"'),
    RunBy(
        'make cost( OPTIONS=(--help|"--.*"))?', "tests/contracts/test_cost.py", '["make", "cost", f"OPTIONS={options}"]'
    ),
    RunBy(
        r"\.venv/bin/python -m fixtures.fake_upstreams",
        "tests/fake_upstreams/test_process.py",
        '"fixtures.fake_upstreams"',
    ),
    RunBy(r"\.venv/bin/python -m pytest -k extra_small tests/unit", "tests/docs/test_first_change.py", "extra_small"),
    RunBy(r"\.venv/bin/python -m pytest -k .*", "tests/contracts/test_commands.py", "def test_selections_of_tests"),
    RunBy("make doctor STAGE=local", "tests/e2e/test_doctor.py", "doctor_local.of("),
    RunBy(
        "make (full-revalidation|full-pass) STAGE=local",
        "tests/contracts/test_local_stage.py",
        "def test_a_full_revalidation_is_asked_for",
    ),
    RunBy("make secrets STAGE=local", "tests/contracts/test_local_stage.py", "def test_secrets_are_shown"),
    RunBy("make rotate-secret STAGE=local NAME=service-token", "tests/e2e/test_rotate_secret.py", '"rotate-secret"'),
    RunBy(
        "make redrive( STAGE=(staging|local|…)( QUEUE=[a-z-]+)?)?",
        "tests/contracts/test_local_stage.py",
        "def test_what_a_queue_holds_goes_back",
    ),
    RunBy(
        "make secrets( STAGE=(staging|…))?", "tests/contracts/test_rotate_secret.py", "def test_all_secrets_are_shown"
    ),
    RunBy(
        "make rotate-secret( STAGE=staging NAME=[a-z-]+( OPTIONS=--again)?)?",
        "tests/contracts/test_rotate_secret.py",
        "def test_a_secret",
    ),
    RunBy(
        "make rollback( STAGE=(staging|production|…)?)?",
        "tests/contracts/test_rollback.py",
        "def test_the_release_before_comes_back",
    ),
    RunBy("make restore", "tests/contracts/test_restore.py", "main("),
    RunBy(
        'make smoke ROW="relay: new code takes over"',
        "local_stack/smoke/test_relay_workers.py",
        "relay: new code takes over",
    ),
    RunBy(
        r"\.venv/bin/python -m ops.rotate_secret .*", "tests/contracts/test_rotate_secret.py", '"--value-from-stdin"'
    ),
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
    RunBy("make (bootstrap|preflight)( STAGE=staging)?", "tests/contracts/test_deploy.py", '["make", target, "STAGE'),
    RunBy("make preflight STAGE=staging OPTIONS=--json", "tests/contracts/test_preflight.py", '"--json"'),
    RunBy("make doctor( STAGE=(staging|…))?", "tests/contracts/test_doctor.py", "def test_a_deployed_stage_is_asked"),
    RunBy(r"\.venv/bin/python -m ops.doctor .*", "tests/contracts/test_doctor.py", '"--json"'),
    RunBy(
        "(SHIFT=at-once )?make deploy( STAGE=(staging|production)( YES=1)?)?",
        "tests/contracts/test_deploy.py",
        "def test_a_first_deployment",
    ),
    RunBy("make destroy( STAGE=staging( (NAME|DATA|DEVICES)=[a-z]+)*)?", "tests/contracts/test_destroy.py", "destroy("),
    RunBy("make admin( STAGE=staging EMAIL=you@example.com)?", "tests/functions/test_api.py", "first_admin("),
    RunBy(
        "make full-revalidation( STAGE=(staging|…))?",
        "local_stack/smoke/test_revocation.py",
        "demand_full_revalidation(",
    ),
    RunBy("aws [a-z-]+ .*", "tests/docs/test_aws_commands.py", "def test_a_command_is_one"),
)
#: Other commands that nothing runs -> why.
NOT_RUN = {
    "make soak": "it takes twenty minutes; `make test-browser` starts the same stack and browser",
    "make pictures": "it makes pictures anew that are never the same; `make test-browser` starts the same browser",
    "make requirements": "it asks an index of packages, whose answer changes; what it wrote is checked",
    "pipx install pre-commit": "it installs a tool outside of the checkout, for the reader's own account",
    "pre-commit install": "it is that tool's; what it would run is compared with `make check`",
    "git checkout tests layers": "it throws changes away, here those of whoever runs the tests",
}


def runners(command: str) -> list[RunBy]:
    """The first entry that a command is one of; none when nobody runs it, or a part of it."""
    return [entry for entry in (*RUN_BY, *NEEDS_AN_ACCOUNT) if re.fullmatch(entry.pattern, command)][:1]
