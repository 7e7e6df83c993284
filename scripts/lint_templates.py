"""Check the CloudFormation templates of all stages with cfn-lint: what AWS would refuse, before a deployment does.

Nothing is done when what the templates are made from is as it was when they were last found right: this takes half a
minute, and `make check` calls it each time. `--again` does it anyway.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = ROOT / ".tidegate/linted-templates"
#: What the templates are made from. The code of functions is in them as a digest only.
SOURCES = (
    "infra/**/*.py",
    "infra/stages/*.json",
    "layers/tidegate/python/**/*.py",
    "layers/*/requirements.txt",
    "cdk.json",
    "requirements/dev.txt",
    "scripts/lint_templates.py",
)
#: Rules that are not held, and why.
IGNORED = {
    "W3005": "the CDK states that a function comes after its role and all policies of it; the role follows by itself",
}


def fingerprint(root: Path = ROOT) -> str:
    """A digest of what the templates are made from."""
    digest = hashlib.sha256()
    for file in sorted(file for pattern in SOURCES for file in root.glob(pattern)):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def stages() -> list[str]:
    """All stages, by name."""
    return sorted(file.stem for file in (ROOT / "infra/stages").glob("*.json"))


def synthesised(stage: str, folder: Path) -> Path:
    """The template of a stage, written into a folder. Layers are not packaged for it. Raises `StageError`."""
    import aws_cdk as cdk  # takes three seconds, and most runs have nothing to do

    from infra.app import build

    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    app = cdk.App(context={**context, "stage": stage, "aws:cdk:bundling-stacks": []}, outdir=str(folder / stage))
    name = build(app).stack_name
    app.synth()
    return folder / stage / f"{name}.template.json"


def linting(template: Path) -> subprocess.Popen[str]:
    """cfn-lint on a template, begun."""
    command = ["cfn-lint", "--format", "parseable", "--ignore-checks", *IGNORED, "--", str(template)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def faults(stages: Iterable[str]) -> list[str]:
    """What cfn-lint finds in the stages' templates. Each is looked at while the next is made."""
    with tempfile.TemporaryDirectory(prefix="tidegate-templates-") as folder:
        begun = [linting(synthesised(stage, Path(folder))) for stage in stages]
        found = []
        for process in begun:
            printed, _ = process.communicate()
            lines = printed.strip().splitlines()
            if process.returncode and not lines:
                lines = [f"cfn-lint ended with {process.returncode}, and said nothing"]
            found += [line.replace(folder, "") for line in lines]
        return found


def main() -> int:
    current = fingerprint()
    if "--again" not in sys.argv and STAMP.exists() and STAMP.read_text() == current:
        print("Templates: unchanged since they were found right.")
        return 0
    found = faults(stages())
    if found:
        print("\n".join(found), file=sys.stderr)
        return 1
    STAMP.parent.mkdir(exist_ok=True)
    STAMP.write_text(current)
    print(f"Templates: {', '.join(stages())}: right.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
