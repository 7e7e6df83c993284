"""The commands of docs/start/your-first-device.md, run as they stand there: on the local stack, and those for AWS.

Those for AWS meet the emulator: `aws` is tests/aws_cli.py, and a few values are those of the emulator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_stack.config import ROOT
from tests.docs.pages import section
from tests.e2e.shell import run, with_aws

PAGE = (ROOT / "docs/start/your-first-device.md").read_text()
SHARED = (
    "2. Publish",
    "3. Make a broker profile",
    "4. Make a dashboard with a chart",
    "5. The same values in a program",
)


def blocks(text: str) -> list[str]:
    """The shell blocks of a part of the page."""
    return re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)


def script(where: str) -> str:
    """All commands of a reader, in their order. The last block but for AWS is not for the local stack."""
    (helpers,) = blocks(section(PAGE, "1. Make the device").partition("### On the local stack")[0])
    tidy, taken_away = blocks(section(PAGE, "6. Tidy up"))
    shared = [block for heading in SHARED for block in blocks(section(PAGE, heading))]
    last = [taken_away] if where == "On AWS" else []
    return "\n".join([helpers, *blocks(section(PAGE, where)), *shared, tidy, *last])


def expect(printed: str, stack: Mapping[str, Any], topic: str) -> None:
    assert "connected" in printed and topic in printed
    assert f"open: {stack['edge_url']}/s/" in printed
    assert len(re.findall(r"^value: \d+(\.\d+)?$", printed, re.M)) == 3, printed


def test_a_device_of_the_local_stack_is_seen(stack: Mapping[str, Any]) -> None:
    expect(run(script("On the local stack"), stack), stack, "demo/boiler-7/temperature")


def test_the_commands_for_aws_do_the_same_against_the_emulator(stack: Mapping[str, Any], tmp_path: Path) -> None:
    commands = script("On AWS")
    for there, here in (
        ("THING=boiler-7", "THING=boiler-8"),
        ("\nSTAGE=staging\n", "\nSTAGE=local\n"),
        # The emulator's endpoint is a name that nothing resolves.
        ("\nPORT=8883\n", f"\nENDPOINT={stack['mqtt']['host']}\nPORT={stack['mqtt']['port']}\n"),
        (
            "https://www.amazontrust.com/repository/AmazonRootCA1.pem",
            f"{stack['emulator_url']}/_ministack/iot/ca.pem",
        ),
        # The local stage's prefix is not its name, and it has no CloudFront.
        ("\nTOPIC=$STAGE/", "\nTOPIC=demo/"),
        ("\nEDGE=$(output EdgeUrl)\n", f"\nEDGE={stack['edge_url']}\n"),
    ):
        assert commands.count(there) == 1, there
        commands = commands.replace(there, here)
    admin = stack["users"]["admin"]
    printed = run(
        commands,
        stack,
        f"{admin['email']}\n{admin['password']}\n",
        **with_aws(tmp_path, stack),
    )
    expect(printed, stack, "demo/boiler-8/temperature")
