"""The CDK app: `cdk synth -c stage=staging`. Synthesised without any account look-up."""

from __future__ import annotations

import json
import sys

import aws_cdk as cdk

from infra.nag import check
from infra.stack import TidegateStack
from infra.stage import StageError, load_stage


def build(app: cdk.App) -> TidegateStack:
    """The stack of the stage named by context `stage`."""
    overrides = app.node.try_get_context("settings") or {}
    if isinstance(overrides, str):  # from the command line: -c settings='{"NAME": "value"}'
        overrides = json.loads(overrides)
    stage = load_stage(app.node.try_get_context("stage") or "local", overrides)
    stack = TidegateStack(
        app,
        f"Tidegate-{stage.name}",
        stage=stage,
        domain_name=app.node.try_get_context("domain"),
        certificate_arn=app.node.try_get_context("certificate"),
    )
    check(app, stack)
    return stack


if __name__ == "__main__":
    try:
        app = cdk.App()
        build(app)
        app.synth()
    except StageError as error:
        sys.exit(f"Configuration is wrong: {error}")
