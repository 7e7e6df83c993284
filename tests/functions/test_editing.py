"""What the console asks while somebody edits a dashboard, over real tables on moto."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import quote

import pytest

from functions.api.console_routes import PROFILES_PER_USER
from functions.api.main import make_handler
from functions.api.wiring import api_services
from local_stack.seed import document, mqtt
from ops.admin import first_admin
from tests.functions.test_api import PASSWORD, Api, code, person


class Workshop:
    """An owner, somebody who edits by the ACL only, profiles of both kinds of each kind, and a dashboard."""

    def __init__(self, env: Mapping[str, str]) -> None:
        first_admin(env, "admin@x.example", PASSWORD)
        self.admin = Api(make_handler(api_services(env)), env).login("admin@x.example")
        self.owner, self.helper = person(self.admin, "editor"), person(self.admin, "viewer")
        self.open = self._broker("b open", public=True)
        self.closed = self._broker("A closed", public=False)
        for name, public in (("open", True), ("closed", False)):
            self.admin.ok(
                "POST",
                "/api/credential-profiles",
                {
                    "name": name,
                    "type": "bearer",
                    "secret": {"token": f"secret-of-{name}"},
                    "destinations": ["https://api.example.com"],
                    "allowPublicUse": public,
                },
            )
        made = self.owner.ok("POST", "/api/dashboards", document("T", [mqtt("t", self.open, "demo/x")]))
        self.id, self.path = made["id"], f"/api/dashboards/{made['id']}"
        self.owner.ok("PUT", f"{self.path}/acl", {"email": "viewer@x.example", "level": "editor"})

    def _broker(self, name: str, *, public: bool) -> str:
        body = {
            "name": name,
            "transport": "external",
            "brokerUrl": "mqtts://broker.example.com",
            "topicAllowlist": ["demo/#"],
            "allowPublicUse": public,
        }
        return str(self.admin.ok("POST", "/api/broker-profiles", body)["id"])

    def check(self, by: Api, topic: str, broker: str, **more: str) -> tuple[int, Any]:
        return by("POST", "/api/topics:check", {"brokerProfileId": broker, "topic": topic, **more})


@pytest.fixture
def workshop(deployed: Mapping[str, str]) -> Workshop:
    return Workshop(deployed)


def test_an_author_is_shown_the_profiles_that_may_be_saved(workshop: Workshop) -> None:
    for author in (workshop.owner, workshop.admin):
        shown = author.ok("GET", f"{workshop.path}/usable-profiles")
        assert [each["name"] for each in shown["brokers"]] == ["A closed", "b open"]
        assert [each["name"] for each in shown["credentials"]] == ["closed", "open"]
    shown = workshop.helper.ok("GET", f"{workshop.path}/usable-profiles")
    assert shown == {
        "brokers": [
            {
                "id": workshop.open,
                "name": "b open",
                "transport": "external",
                "allowPublicUse": True,
                "topicAllowlist": ["demo/#"],
            }
        ],
        "credentials": [
            {
                "id": shown["credentials"][0]["id"],
                "name": "open",
                "type": "bearer",
                "allowPublicUse": True,
                "destinations": ["https://api.example.com:443"],
            }
        ],
    }
    for broker, status in ((workshop.open, 200), (workshop.closed, 403)):
        changed = document("T", [mqtt("t", broker, "demo/y")])
        revision = str(workshop.owner.ok("GET", workshop.path)["revision"])
        assert workshop.helper("PUT", workshop.path, changed, if_match=revision)[0] == status


def test_a_topic_is_checked(workshop: Workshop) -> None:
    status, found = workshop.check(workshop.helper, " demo/+ ", workshop.open, dashboardId=workshop.id)
    assert (status, found) == (
        200,
        {"valid": True, "problem": None, "wildcard": True, "coveredBy": "demo/#", "fedBy": None},
    )
    status, found = workshop.check(workshop.owner, "other", workshop.closed)
    assert (found["valid"], found["coveredBy"]) == (True, None) and "demo/#" in found["problem"]
    status, found = workshop.check(workshop.owner, "a/#/b", workshop.open)
    assert not found["valid"] and "'#'" in found["problem"]


def test_a_profile_that_may_not_be_used_is_as_one_that_is_not_there(workshop: Workshop) -> None:
    answers = [
        workshop.check(workshop.helper, "demo/x", broker, dashboardId=workshop.id)
        for broker in (workshop.closed, "no-such-profile")
    ]
    assert answers[0] == answers[1] and code(answers[0]) == (403, "denied")
    assert code(workshop.check(workshop.owner, "demo/x", "no-such-profile")) == (404, "not_found")


def test_each_user_has_a_limit_of_their_own(workshop: Workshop) -> None:
    ask = partial(workshop.owner, "GET", f"{workshop.path}/usable-profiles")
    answered = next(number for number in count() if ask()[0] == 429)
    assert PROFILES_PER_USER <= answered < 2 * PROFILES_PER_USER, "a minute may end in between"
    assert workshop.helper("GET", f"{workshop.path}/usable-profiles")[0] == 200


def test_who_shares_is_told_the_e_mails_of_members(workshop: Workshop) -> None:
    shown = workshop.owner.ok("GET", workshop.path)
    assert [(entry["email"], entry["level"]) for entry in shown["acl"]] == [("viewer@x.example", "editor")]
    assert workshop.helper.ok("GET", workshop.path)["acl"] is None
    assert "@" not in json.dumps(workshop.helper.ok("GET", workshop.path))


def test_lists_are_searched_and_sorted(workshop: Workshop) -> None:
    for title in ("Kiln east", "Boiler", "kiln west"):
        workshop.owner.ok("POST", "/api/dashboards", {"document": {"schemaVersion": 1, "title": title}})
    boiler = next(
        each for each in workshop.owner.ok("GET", "/api/dashboards")["dashboards"] if each["title"] == "Boiler"
    )
    workshop.owner.ok("PUT", f"/api/dashboards/{boiler['id']}/visibility", {"visibility": "public"})

    def titles(query: str, by: Api = workshop.owner) -> list[str]:
        return [each["title"] for each in by.ok("GET", f"/api/dashboards?{query}")["dashboards"]]

    assert titles("query=KILN&sort=title") == ["Kiln east", "kiln west"]
    assert titles("sort=updated")[0] == "Boiler", "its visibility was changed last"
    assert titles("visibility=public") == ["Boiler"]
    first = workshop.owner.ok("GET", "/api/dashboards?sort=title&limit=3")
    assert [each["title"] for each in first["dashboards"]] == ["Boiler", "Kiln east", "kiln west"]
    assert titles(f"sort=title&limit=3&cursor={quote(first['cursor'])}") == ["T"]
    assert not first["more"]
    for by, told in ((workshop.owner, "editor@x.example"), (workshop.admin, "editor@x.example")):
        (found,) = by.ok("GET", "/api/dashboards?query=boiler")["dashboards"]
        assert found["ownerEmail"] == told and found["updatedAt"].endswith("Z")
    shared = workshop.helper.ok("GET", "/api/dashboards?query=t")["shared"]
    assert [(each["title"], each["ownerId"], each["ownerEmail"]) for each in shared] == [("T", None, None)]
    assert workshop.helper.ok("GET", "/api/dashboards?query=none")["shared"] == []
    assert code(workshop.owner("GET", "/api/dashboards?query=t&cursor=x")) == (400, "invalid_input")
    assert code(workshop.owner("GET", "/api/dashboards?sort=size")) == (400, "invalid_input")


def test_a_document_is_validated_as_saving_does(workshop: Workshop) -> None:
    wrong = {"schemaVersion": 1, "title": "", "panes": [{"id": "p", "layout": {"w": 13}}, {"id": "p"}]}
    found = workshop.helper.ok("POST", "/api/dashboards:validate", {"document": wrong})
    assert [problem["path"] for problem in found["problems"]] == ["title", "panes[0].layout.w", "panes[1].id"]
    status, answer = workshop.owner("POST", "/api/dashboards", {"document": wrong})
    assert status == 400
    assert all(f"{each['path']}: {each['allowed']}" in answer["error"]["message"] for each in found["problems"])
    good = {"schemaVersion": 1, "title": "T", "panes": [{"id": "p", "widgets": [{"id": "w", "type": "map"}]}]}
    found = workshop.helper.ok("POST", "/api/dashboards:validate", {"document": good})
    assert found["problems"] == []
    assert [warning["path"] for warning in found["warnings"]] == ["panes[0].layout", "panes[0].widgets[0].type"]
