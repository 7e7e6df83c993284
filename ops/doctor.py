"""Hold a stage to what production needs: its file, what is deployed of it, and a request through its edge.

`make doctor STAGE=…`. Nothing is changed. Exit codes: 0 when nothing is to be mended, 1 when something is, 3 when
nothing is but something could not be checked. Warnings change none of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace

import botocore.exceptions

from infra.stage import Stage, StageError, load_stage
from local_stack.config import StackError
from ops import doctor_local, preflight
from ops.account_answers import CERTIFICATES, PATIENCE
from ops.deploy_errors import LOCAL, DeployError, any_stage
from ops.doctor_checks import REASONS, findings
from ops.doctor_facts import Target, collect
from ops.readiness import exit_code
from tidegate.domain.client_ip import normalise


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ops.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", default="")
    parser.add_argument("--json", action="store_true", help="a JSON object instead of lines")
    parser.add_argument(
        "--address", type=_address, help="the IPv4 address that requests from here come from; else AWS is asked for it"
    )
    options = parser.parse_args(arguments)
    try:
        stage, target = of(options.stage)
        if options.address:
            target = replace(target, address=options.address)
        found = findings(stage, collect(stage, target), target.region)
    except (DeployError, StageError, StackError, botocore.exceptions.BotoCoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        told = [
            {"check": line.check, "state": line.state, "found": line.found, "do": line.do, "why": REASONS[line.check]}
            for line in found
        ]
        print(json.dumps({"stage": stage.name, "lines": told}, indent=1))
    else:
        print(preflight.shown(found))
    return exit_code(found)


def of(name: str) -> tuple[Stage, Target]:
    """A stage, and where it is. Raises `DeployError`, `StageError` and `StackError`."""
    if any_stage(name) == LOCAL:
        return doctor_local.of()
    stage = load_stage(name)
    session = preflight.session_of(stage)
    region = session.region_name or CERTIFICATES
    client = lambda service: session.client(service, region_name=region, config=PATIENCE)  # noqa: E731
    return stage, Target(client, session.region_name, lambda: preflight.aws_environment(session))


def _address(text: str) -> str:
    address = normalise(text)
    if address is None or ":" in address:
        raise argparse.ArgumentTypeError(f"{text!r} is no IPv4 address; allowed: one such as 203.0.113.7")
    return address


if __name__ == "__main__":
    sys.exit(main())
