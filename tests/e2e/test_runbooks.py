"""The commands of the runbooks, run as they stand there against the running stack; `aws` is tests/aws_cli.py.

What cannot run here is no block of a page but a line of it: tests/docs/commands.py says what is run of each instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from local_stack.seed import Api, document, mqtt
from tests.docs.pages import name_of
from tests.docs.runbooks import RUNBOOKS, blocks, printed
from tests.e2e.shell import run, with_aws

_NUMBERS = count(1)
#: What comes between a backup and its use: one dashboard is deleted, another one is spoilt.
HARM = """
api DELETE "dashboards/$GONE"
api PUT "dashboards/$SPOILT" '{"document": {"schemaVersion": 1, "title": "spoilt"}}' -H 'If-Match: "1"' | field title
"""


#: Stands in for the CLI where a stage of a cloud account is asked for its outputs.
CLOUD = 'aws() { [ "$1 $4" = "cloudformation Tidegate-staging" ] && echo "$EDGE_HERE"; }\n'
#: The page whose shell asks for an admin; the others go on as somebody who has logged in.
LOGS_IN = "runbook-baseline.md"
#: What the pages name by examples.
PROFILE, DASHBOARD = "Uakgb_J5m9g-0JDMbcJqL", "V1StGXR8_Z5jdHi6B-myT"


@pytest.fixture(scope="module")
def admin(stack: Mapping[str, Any]) -> str:
    """An admin's token."""
    user = stack["users"]["admin"]
    return str(Api(stack["edge_url"]).call("POST", "/api/auth/login", user)["token"])


@pytest.fixture
def things(stack: Mapping[str, Any], admin: str) -> Mapping[str, str]:
    """A broker profile, and two dashboards that everybody with their links sees."""
    api, number = Api(stack["edge_url"], admin), next(_NUMBERS)
    broker = {"name": f"runbooks {number}", "transport": "iot-core", "topicAllowlist": ["demo/#"]}
    profile = str(api.call("POST", "/api/broker-profiles", broker | {"allowPublicUse": True})["id"])

    def shared(title: str) -> str:
        body = document(title, [mqtt("t", profile, "demo/runbooks")])
        dashboard_id = str(api.call("POST", "/api/dashboards", body)["id"])
        api.call("PUT", f"/api/dashboards/{dashboard_id}/visibility", {"visibility": "link"})
        return dashboard_id

    return {"PROFILE": profile, "SPOILT": shared("spoilt"), "GONE": shared("gone")}


@pytest.mark.parametrize("page", [page for page in RUNBOOKS if blocks(page)], ids=name_of)
def test_the_commands_of_a_runbook_do_what_it_says(
    page: Path, stack: Mapping[str, Any], admin: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    commands = blocks(page)
    if page.name == "runbook-restore.md":
        commands.insert(1, HARM)
    whole = "\n".join(commands).replace("STAGE=staging\n", "STAGE=local\n")
    whole = whole.replace("mqtts://broker.example.com:8883", stack["fake_upstreams"]["mqtt_url"])
    environment = with_aws(tmp_path, stack)
    if page.name != LOGS_IN:
        environment |= {"ADMIN": admin, "ADMIN_OF": "local"}
    if DASHBOARD in whole:
        things = request.getfixturevalue("things")
        whole = whole.replace(PROFILE, things["PROFILE"]).replace(DASHBOARD, things["SPOILT"])
        environment |= things
    upstreams = stack["fake_upstreams"]
    done = run(whole, stack, f"{upstreams['username']}\n{upstreams['secret']}\n", **environment)
    for line in printed(page):
        assert line.search(done), f"{line.pattern!r} is not in:\n{done}"


def test_the_shell_asks_for_the_admin_of_a_cloud_stage_once(stack: Mapping[str, Any]) -> None:
    user = stack["users"]["admin"]
    shell = "STAGE=staging\n. ops/shell.sh\n"
    twice = run(
        f"{CLOUD}{shell}{shell}api GET users/me | field role; output EdgeUrl",
        stack,
        f"{user['email']}\n{user['password']}\n",
        EDGE_HERE=stack["edge_url"],
    )
    assert twice.splitlines() == ["admin", stack["edge_url"]]
