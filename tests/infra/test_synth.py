"""`make synth`, as the documents give it: a template is written that an account could deploy."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ops.account_answers import BOOTSTRAP_PARAMETER
from ops.readiness import LEAST_BOOTSTRAP

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.full


def test_make_synth_writes_the_template_of_a_stage() -> None:
    written = ROOT / "cdk.out/Tidegate-staging.template.json"
    written.unlink(missing_ok=True)
    done = synth("STAGE=staging")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "AWS::CloudFront::Distribution" in {
        each["Type"] for each in json.loads(written.read_text())["Resources"].values()
    }
    manifest = json.loads((ROOT / "cdk.out/manifest.json").read_text())["artifacts"]["Tidegate-staging"]["properties"]
    assert manifest["requiresBootstrapStackVersion"] == LEAST_BOOTSTRAP
    assert manifest["bootstrapStackVersionSsmParameter"] == BOOTSTRAP_PARAMETER


def test_a_domain_on_the_command_line_is_refused() -> None:
    """It was read there before. A deployment without it took the name away."""
    done = synth("STAGE=staging", "DOMAIN=live.example.com")
    assert done.returncode != 0 and 'put it into infra/stages/staging.json as "domain"' in done.stderr


def synth(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    return subprocess.run(["make", "synth", *arguments], cwd=ROOT, env=env, capture_output=True, text=True)


def test_make_synth_without_a_stage_says_which_there_are() -> None:
    done = subprocess.run(["make", "synth"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "STAGE is missing; use STAGE=<one of: production, staging>" in done.stderr
