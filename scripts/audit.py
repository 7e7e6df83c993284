"""Ask for advisories of the packages in the lock files: npm's own audit, and pip-audit.

`python scripts/audit.py [lock file ...]`; all of them without one. Exit codes: 0 when every package was checked and
nothing is known of any, 1 when there are advisories, 3 when there are none but something could not be checked. That a
registry does not answer, or does not know a package, is never taken for "no advisories". pip-audit by itself says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PIP_AUDIT = ROOT / ".tidegate/audit-venv/bin/pip-audit"
NONE, FOUND, NOT_CHECKED = 0, 1, 3
#: How long a lock file may take, seconds. Hundreds of packages are asked for one by one.
_LONGEST_S = 600


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a lock file.

    Attributes:
        advisories: a line each.
        not_checked: why something could not be checked, a line each.
        packages: how many were checked; None where the tool does not say.
    """

    advisories: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()
    packages: int | None = None


#: Runs a command in a folder. Returns what it printed on standard output, and on standard error.
Run = Callable[[Sequence[str], Path], tuple[str, str]]


def run(command: Sequence[str], folder: Path) -> tuple[str, str]:
    """The exit code says too little: both tools have the same one for advisories and for a registry that fails."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_LONGEST_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    return done.stdout, done.stderr


def lock_files(root: Path = ROOT) -> list[Path]:
    """Every lock file, by path."""
    python = [*root.glob("layers/*/requirements.txt"), *root.glob("requirements/*.txt")]
    return sorted([*python, root / "package-lock.json", root / "web/package-lock.json"])


def audited(file: Path, run: Run = run) -> Outcome:
    """Ask for the advisories of a lock file's packages."""
    if file.suffix == ".json":
        printed, told = run(["npm", "audit", "--json", "--package-lock-only"], file.parent)
        read = of_npm
    else:
        options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
        printed, told = run([str(PIP_AUDIT), *options, "-r", str(file)], ROOT)
        read = of_pip_audit
    try:
        return read(json.loads(printed))
    except (ValueError, KeyError, TypeError, AttributeError):
        why = (told or printed).strip().splitlines()
        return Outcome(not_checked=(why[-1] if why else "the tool said nothing",))


def of_npm(answer: Mapping[str, Any]) -> Outcome:
    """What `npm audit --json` says."""
    if "vulnerabilities" not in answer:
        return Outcome(not_checked=(str(answer["message"]),))
    found = [
        f"{name}: {each['severity']}: {via['title']} ({via['url']})"
        for name, each in answer["vulnerabilities"].items()
        for via in each["via"]
        if isinstance(via, Mapping)  # a text names another package of the list, which has the advisory
    ]
    if len(answer["vulnerabilities"]) and not found:
        raise ValueError("advisories without a cause")
    return Outcome(tuple(found), packages=answer["metadata"]["dependencies"]["total"])


def of_pip_audit(answer: Mapping[str, Any]) -> Outcome:
    """What `pip-audit --format json` says."""
    found, skipped, checked = [], [], 0
    for each in answer["dependencies"]:
        if "skip_reason" in each:
            skipped.append(f"{each['name']}: {each['skip_reason']}")
            continue
        checked += 1
        for advisory in each["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
            found.append(f"{each['name']} {each['version']}: {advisory['id']}, fixed in {fixed}")
    if not skipped and not checked:
        skipped.append("the tool named no package")
    return Outcome(tuple(found), tuple(skipped), checked)


def main(arguments: Sequence[str], run: Run = run) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", metavar="lock file", help="such as web/package-lock.json")
    chosen = parser.parse_args(arguments).files
    there = {str(file.relative_to(ROOT)): file for file in lock_files()}
    for name in chosen:
        if name not in there:
            parser.error(f"{name} is no lock file; allowed: {', '.join(there)}")
    outcomes = {name: audited(there[name], run) for name in chosen or there}
    for name, outcome in outcomes.items():
        print(f"{name}: {_summary(outcome)}")
        for line in (*outcome.advisories, *(f"not checked: {why}" for why in outcome.not_checked)):
            print(f"    {line}")
    if any(outcome.advisories for outcome in outcomes.values()):
        return FOUND
    return NOT_CHECKED if any(outcome.not_checked for outcome in outcomes.values()) else NONE


def _summary(outcome: Outcome) -> str:
    if outcome.advisories:
        return f"{len(outcome.advisories)} advisories" + (", and not all was checked" if outcome.not_checked else "")
    if outcome.not_checked:
        return "COULD NOT BE CHECKED"
    return f"{outcome.packages} checked, no advisory is known"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
