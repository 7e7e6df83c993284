"""The runbooks have the same six headings and are in the index; what they say of settings is what the settings say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from infra.stage import StageError
from tests.aws_cli import commands_in, read
from tests.docs.pages import DOCS, ROOT, code_words, headings, name_of, rows, section
from tests.docs.runbooks import HEADINGS, RUNBOOKS, blocks, printed
from tests.stage_files import PLAIN, write

SHELL = ROOT / "ops/shell.sh"
INDEX = (DOCS / "operations/runbooks.md").read_text()
LIMITER = (DOCS / "operations/runbook-limiter-outage.md").read_text()
#: Lines of a page that somebody reads at night.
MOST_LINES = 120


@pytest.mark.parametrize("page", RUNBOOKS, ids=name_of)
def test_every_runbook_has_the_six_headings(page: Path) -> None:
    title, *found = headings(page.read_text())
    assert title.startswith("Runbook: ") and tuple(found) == HEADINGS
    assert len(page.read_text().splitlines()) <= MOST_LINES
    assert all(section(page.read_text(), heading).strip() for heading in HEADINGS)


@pytest.mark.parametrize("page", RUNBOOKS, ids=name_of)
def test_what_is_run_is_said_to_print_something(page: Path) -> None:
    assert bool(printed(page)) == bool(blocks(page))


def test_the_index_has_every_runbook_once() -> None:
    listed = [row[1] for row in rows(section(INDEX, "By topic"))]
    assert sorted(re.findall(r"\((runbook-[a-z-]+\.md)\)", "".join(listed))) == [page.name for page in RUNBOOKS]


def test_the_shell_of_runbooks_asks_aws_for_what_there_is() -> None:
    (command,) = commands_in(SHELL.read_text().replace("\\\n", " "))
    assert read(command).operation == "DescribeStacks"


def test_how_soon_settings_hold_is_what_their_page_says() -> None:
    stated = {row[0]: row[-1] for row in rows((DOCS / "reference/settings.md").read_text()) if len(row) > 5}
    policy = section((DOCS / "operations/runbook-policy.md").read_text(), "What to look at")
    told = [(name, row[-1]) for row in rows(policy) for name in code_words(row[0]) if f"`{name}`" in stated]
    assert len(told) > 10
    assert told == [(name, stated[f"`{name}`"]) for name, _ in told]


def test_the_exception_for_both_modes_is_one_that_production_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```$", LIMITER, re.M | re.S)
    told = json.loads(block)
    keys = {**told, "settings": PLAIN["settings"] | told["settings"]}
    environment = write(tmp_path, monkeypatch, **keys).variables
    assert {environment[name] for name in told["settings"]} == {"fail-open"}
    for name in told["exceptions"]:
        with pytest.raises(StageError, match=name):
            fewer = {other: why for other, why in told["exceptions"].items() if other != name}
            write(tmp_path, monkeypatch, **(keys | {"exceptions": fewer}))
