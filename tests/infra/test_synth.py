"""`make synth`, as the documents give it: a template is written that an account could deploy."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = "live.example.com"
CERTIFICATE = "arn:aws:acm:us-east-1:111122223333:certificate/00000000-0000-4000-8000-000000000000"

pytestmark = pytest.mark.full


def test_make_synth_writes_the_template_of_a_stage() -> None:
    """With an address of its own, which `make deploy` reads from the same variables."""
    written = ROOT / "cdk.out/Tidegate-staging.template.json"
    written.unlink(missing_ok=True)
    done = subprocess.run(
        ["make", "synth", "STAGE=staging", f"DOMAIN={DOMAIN}", f"CERTIFICATE={CERTIFICATE}"],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    resources = json.loads(written.read_text())["Resources"].values()
    (distribution,) = [each for each in resources if each["Type"] == "AWS::CloudFront::Distribution"]
    assert distribution["Properties"]["DistributionConfig"]["Aliases"] == [DOMAIN]


def test_make_synth_without_a_stage_says_which_there_are() -> None:
    done = subprocess.run(["make", "synth"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "STAGE is missing; use STAGE=<one of: production, staging>" in done.stderr
