"""Where `make doctor STAGE=local` finds the stack of `make up`."""

from __future__ import annotations

from infra.stage import Stage, load_stage
from local_stack import deployment
from local_stack.config import REGION, Config, read_config
from local_stack.up import overrides
from ops.deploy_errors import LOCAL
from ops.doctor_facts import Target


def of(config: Config | None = None) -> tuple[Stage, Target]:
    """The stage as `make up` deploys it, and its emulator. Raises `StackError` for a wrong variable."""
    found = config or read_config()
    target = Target(
        client=lambda service: deployment.client(found, service),
        region=REGION,
        environment=found.aws_environment,
        edge_url=found.edge_url,
        address="127.0.0.1",
    )
    return load_stage(LOCAL, overrides(found, None)), target
