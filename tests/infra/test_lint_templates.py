"""`make lint-templates`, which `make check` runs: what it notices, and when it has nothing to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from scripts import lint_templates
from scripts.lint_templates import IGNORED, ROOT, SOURCES, fingerprint, linting


def test_what_aws_would_refuse_is_noticed_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "some.template.json"
    names = {"Queue": "VisibilityTimeout", "Wrong": "VisibilityTimeOut"}
    queues = {queue: {"Type": "AWS::SQS::Queue", "Properties": {name: 60}} for queue, name in names.items()}
    file.write_text(json.dumps({"Resources": queues}))
    with linting(file) as process:
        printed, _ = process.communicate()
    assert "VisibilityTimeOut" in printed and len(printed.splitlines()) == 1


def test_rules_that_are_not_held_are_those_of_the_cdk() -> None:
    assert list(IGNORED) == ["W3005"]


def test_nothing_is_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[list[str]] = []
    answers = [["a.template.json:1: wrong"], [], []]

    def faults(stages: list[str]) -> list[str]:
        made.append(stages)
        return answers.pop(0)

    monkeypatch.setattr(lint_templates, "faults", faults)
    monkeypatch.setattr(lint_templates, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr("sys.argv", ["lint_templates.py"])
    assert lint_templates.main() == 1
    assert "a.template.json:1: wrong" in capsys.readouterr().err
    assert (lint_templates.main(), lint_templates.main()) == (0, 0)
    assert made == [["local", "production", "staging"]] * 2
    monkeypatch.setattr("sys.argv", ["lint_templates.py", "--again"])
    assert lint_templates.main() == 0 and len(made) == 3


@pytest.mark.parametrize("pattern", SOURCES)
def test_a_change_of_any_source_is_noticed(pattern: str, tmp_path: Path) -> None:
    file = next(iter(sorted(ROOT.glob(pattern))))
    copy = tmp_path / file.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, copy)
    before = fingerprint(tmp_path)
    copy.write_bytes(copy.read_bytes() + b" ")
    assert fingerprint(tmp_path) != before
