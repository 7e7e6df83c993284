"""The CDK app: `cdk synth -c stage=staging`. The synth looks nothing up in an account."""

from __future__ import annotations

import sys
from typing import Any

import aws_cdk as cdk

from infra.nag import check
from infra.stack import TidegateStack
from infra.stage import load_stage
from infra.stage_file import StageError, json_object


def build(app: cdk.App) -> TidegateStack:
    """The stack of the stage named by context `stage`."""
    stage = load_stage(app.node.try_get_context("stage") or "local", _overrides(app))
    domain, certificate = app.node.try_get_context("domain"), app.node.try_get_context("certificate")
    if bool(domain) != bool(certificate):
        raise StageError("context `domain` and `certificate` (an ACM certificate of us-east-1) go together")
    stack = TidegateStack(
        app,
        f"Tidegate-{stage.name}",
        stage=stage,
        domain_name=domain,
        certificate_arn=certificate,
    )
    check(app, stack)
    return stack


def _overrides(app: cdk.App) -> dict[str, Any]:
    """Settings given by context. From a command line they come as text: -c settings='{"NAME": "value"}'."""
    given = app.node.try_get_context("settings") or {}
    if isinstance(given, str):
        return json_object(given.encode("utf-8", "surrogateescape"), "context `settings`")
    if not isinstance(given, dict):
        raise StageError("context `settings`: must be a JSON object")
    return given


if __name__ == "__main__":
    try:
        app = cdk.App()
        build(app)
        app.synth()
    except StageError as error:
        sys.exit(f"Configuration is wrong: {error}")
