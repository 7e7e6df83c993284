"""`make audit`: advisories, none, and "could not be checked" are three different answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scripts import audit
from scripts.audit import FOUND, NONE, NOT_CHECKED, lock_files

#: What the tools print, as they have printed it.
NPM_CLEAN = {
    "auditReportVersion": 2,
    "vulnerabilities": {},
    "metadata": {"vulnerabilities": {"total": 0}, "dependencies": {"prod": 6, "dev": 94, "total": 99}},
}
NPM_FOUND = NPM_CLEAN | {
    "vulnerabilities": {
        "inner": {
            "name": "inner",
            "severity": "high",
            "via": [{"title": "Reads what it should not", "url": "https://advisories.example/1", "severity": "high"}],
        },
        "outer": {"name": "outer", "severity": "high", "via": ["inner"]},
    }
}
NPM_REFUSED = {"message": "405 Method Not Allowed - POST https://registry.example/bulk", "statusCode": 405}
PIP_CLEAN = {"dependencies": [{"name": "pyjwt", "version": "2.15.1", "vulns": []}], "fixes": []}
PIP_FOUND = {
    "dependencies": [
        {"name": "pyjwt", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.0"], "aliases": []}]}
    ]
}
#: pip-audit ends with 0 then, and says "No known vulnerabilities found".
PIP_SKIPPED = {
    "dependencies": [{"name": "pyjwt", "skip_reason": "Dependency not found on PyPI and could not be audited: pyjwt"}]
}


class Tools:
    """Both tools: what each prints."""

    def __init__(self, npm: object = NPM_CLEAN, pip: object = PIP_CLEAN) -> None:
        self._answers = {"npm": npm, "pip-audit": pip}
        self.asked: list[tuple[str, Path]] = []

    def __call__(self, command: Sequence[str], folder: Path) -> tuple[str, str]:
        tool = Path(command[0]).name
        self.asked.append((command[-1], folder))
        answer = self._answers[tool]
        return ("", answer) if isinstance(answer, str) else (json.dumps(answer), "a warning\n")


def test_every_lock_file_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    tools = Tools()
    assert audit.main([], tools) == NONE
    assert len(tools.asked) == len(lock_files()) == 10
    told = capsys.readouterr().out
    assert "web/package-lock.json: 99 checked, no advisory is known" in told
    assert "layers/dependencies/requirements.txt: 1 checked, no advisory is known" in told


@pytest.mark.parametrize(
    ("tools", "code", "told"),
    [
        (Tools(npm=NPM_FOUND), FOUND, "inner: high: Reads what it should not (https://advisories.example/1)"),
        (Tools(pip=PIP_FOUND), FOUND, "pyjwt 1.0: PYSEC-1, fixed in 2.0"),
        (Tools(npm=NPM_REFUSED), NOT_CHECKED, "not checked: 405 Method Not Allowed"),
        (Tools(npm={}), NOT_CHECKED, "not checked: a warning"),
        (Tools(npm="network is down"), NOT_CHECKED, "not checked: network is down"),
        (Tools(npm=""), NOT_CHECKED, "not checked: the tool said nothing"),
        (Tools(npm=NPM_CLEAN | {"vulnerabilities": {"outer": {"via": ["inner"]}}}), NOT_CHECKED, "not checked"),
        (Tools(pip=PIP_SKIPPED), NOT_CHECKED, "not checked: pyjwt: Dependency not found"),
        (Tools(pip={"dependencies": []}), NOT_CHECKED, "not checked: the tool named no package"),
        (Tools(pip="ConnectionError: no route"), NOT_CHECKED, "not checked: ConnectionError: no route"),
        (Tools(npm=NPM_FOUND, pip=PIP_SKIPPED), FOUND, "not checked: pyjwt"),
    ],
)
def test_answers_are_not_confused(tools: Tools, code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["web/package-lock.json", "layers/dependencies/requirements.txt"]
    assert audit.main(chosen, tools) == code
    printed = capsys.readouterr().out
    assert told in printed
    assert ("COULD NOT BE CHECKED" in printed) is ("not checked: " in printed)


def test_a_lock_file_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        audit.main(["package.json"], Tools())
    assert ended.value.code == 2
    assert "package.json is no lock file; allowed: " in capsys.readouterr().err


def test_a_tool_that_is_not_there_could_not_check(tmp_path: Path) -> None:
    outcome: Any = audit.audited(tmp_path / "package-lock.json", lambda _, folder: audit.run(["./nothing"], folder))
    assert outcome.not_checked and not outcome.advisories
