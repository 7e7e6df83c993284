"""The CDK app: `cdk synth -c stage=staging`. The synth looks nothing up in an account."""

from __future__ import annotations

import sys
from typing import Any

import aws_cdk as cdk

from infra.account import told
from infra.nag import check
from infra.rollout_table import SHIFTS, Shift
from infra.stack import TidegateStack
from infra.stage import load_stage
from infra.stage_file import StageError, json_object


def build(app: cdk.App) -> TidegateStack:
    """The stack of the stage named by context `stage`."""
    stage = load_stage(app.node.try_get_context("stage") or "local", _overrides(app))
    for key in ("domain", "certificate"):
        if app.node.try_get_context(key):
            raise StageError(f"context `{key}`: allowed: not here; it is {key!r} in infra/stages/{stage.name}.json")
    stack = TidegateStack(app, f"Tidegate-{stage.name}", stage=stage, account=told(app.node), at_once=_at_once(app))
    check(app, stack)
    return stack


def _at_once(app: cdk.App) -> bool:
    shift = app.node.try_get_context("shift") or Shift.CANARY
    if shift not in SHIFTS:
        raise StageError(f"context `shift` is {str(shift)[:60]!r}; allowed: {', '.join(SHIFTS)}")
    return SHIFTS[shift] is Shift.AT_ONCE


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
