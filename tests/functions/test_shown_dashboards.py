"""What each caller is shown of a dashboard, in every answer that carries one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.functions.test_api import Api, admin, anonymous, broker, person  # noqa: F401 - fixtures

URL = "https://data.example.com/feed"
HEADERS = {"X-Plant": "north", "Accept": "text/event-stream"}


class Scene:
    """A dashboard with everything that is not for viewers, and who asks for it."""

    def __init__(self, admin: Api, anonymous: Api) -> None:  # noqa: F811
        self.admin, self.anonymous = admin, anonymous
        self.owner = person(admin, "editor")
        self.viewer, self.editor, self.manager, self.outsider = (
            self._person(name) for name in ("acl-viewer", "acl-editor", "acl-manager", "outsider")
        )
        secret = {"name": "key", "type": "bearer", "secret": {"token": "Members-secret"}, "allowPublicUse": True}
        secret |= {"destinations": ["https://data.example.com"]}
        self.credential = admin.ok("POST", "/api/credential-profiles", secret)["id"]
        self.broker = broker(admin)
        self.document = {
            "schemaVersion": 1,
            "title": "Plant",
            "panes": [{"id": "p", "title": "Boiler", "layout": {"x": 0, "y": 0, "w": 2, "h": 1}, "note": "of a pane"}],
            "datasources": [
                {
                    "id": "sse",
                    "title": "Feed",
                    "type": "sse",
                    "settings": {
                        "url": URL,
                        "headers": HEADERS,
                        "credentialProfileId": self.credential,
                        "staleAfterSeconds": 60,
                        "history": {"seconds": 3600, "everyMs": 2000},
                    },
                },
                {"id": "mqtt", "type": "mqtt", "settings": {"brokerProfileId": self.broker, "topic": "demo/topic"}},
            ],
        }
        made = self.owner.ok("POST", "/api/dashboards", {"document": self.document})
        self.path = f"/api/dashboards/{made['id']}"
        for name in ("viewer", "editor", "manager"):
            self.owner.ok("PUT", f"{self.path}/acl", {"email": f"acl-{name}@x.example", "level": name})
        self.owner_id = self.owner.ok("GET", "/api/users/me")["id"]

    def _person(self, name: str) -> Api:
        body = {"email": f"{name}@x.example", "role": "viewer", "password": "Long-enough-1"}
        self.admin.ok("POST", "/api/users", body)
        return Api(self.admin.handler, self.admin.env).login(f"{name}@x.example")

    def share(self, visibility: str) -> dict[str, Any]:
        shared: dict[str, Any] = self.owner.ok("PUT", f"{self.path}/visibility", {"visibility": visibility})
        return shared

    def not_for_viewers(self) -> tuple[str, ...]:
        ids = [entry["userId"] for entry in self.owner.ok("GET", self.path)["acl"]]
        return (URL, "north", "X-Plant", "demo/topic", self.credential, self.broker, self.owner_id, "of a pane", *ids)


@pytest.fixture
def scene(admin: Api, anonymous: Api) -> Scene:  # noqa: F811
    return Scene(admin, anonymous)


def leaks(answer: object, secrets: tuple[str, ...]) -> list[str]:
    return [secret for secret in secrets if secret in json.dumps(answer)]


#: Fields of an answer that only some callers get, each with those who get it.
FOR = {
    "ownerId": {"editor", "manager", "owner", "admin"},
    "acl": {"manager", "owner", "admin"},
    "shareToken": {"manager", "owner", "admin"},
    "shareTokenVersion": {"manager", "owner", "admin"},
}


def test_an_outsider_of_a_public_dashboard_sees_no_acl(scene: Scene) -> None:
    scene.share("public")
    assert not scene.outsider.ok("GET", scene.path)["acl"]


@pytest.mark.parametrize("visibility", ["private", "link", "public"])
def test_who_does_not_edit_sees_nothing_of_what_a_dashboard_connects_to(scene: Scene, visibility: str) -> None:
    shared, secrets = scene.share(visibility), scene.not_for_viewers()
    answers = {"ACL viewer": scene.viewer.ok("GET", scene.path), "its list": scene.viewer.ok("GET", "/api/dashboards")}
    if visibility != "private":
        answers["link"] = scene.anonymous.ok("GET", f"/api/share/{shared['shareToken']}")
        answers["link, signed in"] = scene.owner.ok("GET", f"/api/share/{shared['shareToken']}")
    if visibility == "public":
        answers |= {
            "anonymous": scene.anonymous.ok("GET", scene.path),
            "outsider": scene.outsider.ok("GET", scene.path),
        }
    secrets = (*secrets, shared["shareToken"])
    assert {who: found for who, answer in answers.items() if (found := leaks(answer, secrets))} == {}


@pytest.mark.parametrize("caller", ["viewer", "editor", "manager", "owner", "admin"])
def test_every_answer_with_a_dashboard_has_what_is_for_the_caller(scene: Scene, caller: str) -> None:
    api: Api = getattr(scene, caller)
    scene.share("link")
    answers = {"get": api.ok("GET", scene.path)}
    if caller in FOR["ownerId"]:
        answers["put"] = api.ok("PUT", scene.path, {"document": scene.document | {"title": "New"}}, if_match="1")
        assert answers["get"]["document"]["datasources"] == scene.document["datasources"]
        assert answers["put"]["document"]["datasources"] == scene.document["datasources"]
    if caller in FOR["acl"]:
        answers["visibility"] = api.ok("PUT", f"{scene.path}/visibility", {"visibility": "public"})
        answers["rotate"] = api.ok("POST", f"{scene.path}/share-token:rotate")
        grant = {"email": "outsider@x.example", "level": "viewer"}
        answers["grant"] = api.ok("PUT", f"{scene.path}/acl", grant)
        outsider = scene.outsider.ok("GET", "/api/users/me")["id"]
        answers["revoke"] = api.ok("DELETE", f"{scene.path}/acl/{outsider}")
    for name, answer in answers.items():
        given = {field for field in FOR if answer[field] is not None}
        assert given == {field for field, callers in FOR.items() if caller in callers}, name
    if caller in ("owner", "admin"):
        [listed] = api.ok("GET", "/api/dashboards")["dashboards"]
        assert listed["ownerId"] == scene.owner_id
    else:
        [listed] = api.ok("GET", "/api/dashboards")["shared"]
        assert listed["ownerId"] is None


def test_a_manager_who_leaves_is_shown_no_more_than_anybody(scene: Scene) -> None:
    """The answer to the call by which managers take their own right away is made for who they are then."""
    scene.share("public")
    me = scene.manager.ok("GET", "/api/users/me")["id"]
    left = scene.manager.ok("DELETE", f"{scene.path}/acl/{me}")
    assert left["acl"] is None and left["ownerId"] is None and URL not in json.dumps(left)


@pytest.mark.parametrize(
    "settings",
    [
        {"url": URL, "headers": {"X-Api-Key": "top-secret-7"}},
        {"url": "https://u:top-secret-7@data.example.com/feed"},
        {"url": f"{URL}?token=top-secret-7"},
    ],
)
def test_a_secret_in_a_document_is_refused_at_create_and_at_update(scene: Scene, settings: dict[str, object]) -> None:
    body = {"document": scene.document | {"datasources": [{"id": "sse", "type": "sse", "settings": settings}]}}
    for method, path in (("POST", "/api/dashboards"), ("PUT", scene.path)):
        status, answer = scene.owner(method, path, body, if_match="1")
        assert (status, answer["error"]["code"]) == (400, "invalid_document")
        assert "credentialProfileId" in answer["error"]["message"] and "top-secret-7" not in json.dumps(answer)
    assert scene.owner.ok("GET", scene.path)["revision"] == 1
