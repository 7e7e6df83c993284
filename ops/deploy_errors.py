"""Which stages an operator may name, and how a command that cannot go on says so."""

from __future__ import annotations

from infra.stage import load_stage, names

#: The stage of the local stack, which `make up` starts.
LOCAL = "local"


class DeployError(Exception):
    """One clear sentence that says what to do."""


def cloud_stage(name: str) -> str:
    """A checked stage for a cloud account. Raises `DeployError` or `StageError`."""
    if not name or name == LOCAL:
        others = ", ".join(stage for stage in names() if stage != LOCAL)
        raise DeployError(f"STAGE is missing; use STAGE=<one of: {others}>. The local stage is `make up`.")
    load_stage(name)
    return name


def any_stage(name: str) -> str:
    """A checked stage, the local one included. Raises `DeployError` or `StageError`."""
    if not name:
        raise DeployError(f"STAGE is missing; use STAGE=<one of: {', '.join(names())}>.")
    load_stage(name)
    return name
