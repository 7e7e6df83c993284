"""A deactivated owner's dashboards show nothing to guests, however many there are, and members keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from functions.api.main import make_handler
from functions.api.wiring import api_services
from functions.revalidate.wiring import revalidate_services
from local_stack.seed import mqtt
from ops.admin import first_admin
from tests.functions.test_api import PASSWORD, Api, broker, code, dashboard, person


@pytest.fixture
def anonymous(deployed: Mapping[str, str]) -> Api:
    first_admin(deployed, "admin@x.example", PASSWORD)
    return Api(make_handler(api_services(deployed)), deployed)


def shared(owner: Api, profile: str, visibility: str) -> Any:
    made = dashboard(owner, mqtt("t", profile, "demo/x"))
    return owner.ok("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": visibility})


def test_what_ends_with_the_owner_and_comes_back(anonymous: Api) -> None:
    admin = anonymous.login("admin@x.example")
    owner, member = person(admin, "editor"), person(admin, "viewer")
    outsider = admin.ok("POST", "/api/users", {"email": "out@x.example", "role": "editor", "password": PASSWORD})
    assert outsider["user"]["active"]
    stranger = anonymous.login("out@x.example")
    profile = broker(admin)
    public, linked = shared(owner, profile, "public"), shared(owner, profile, "link")
    for made in (public, linked):
        grant = {"email": "viewer@x.example", "level": "manager"}
        owner.ok("PUT", f"/api/dashboards/{made['id']}/acl", grant)
    of_public = {"dashboardId": public["id"], "datasourceId": "t"}
    of_link = {"dashboardId": linked["id"], "datasourceId": "t", "shareToken": linked["shareToken"]}
    tokens = [anonymous.ok("POST", "/api/datasource-sessions", body)["token"] for body in (of_public, of_link)]
    tokens.append(stranger.ok("POST", "/api/datasource-sessions", of_public)["token"])

    def guests() -> list[int]:
        """The status of everything that guests may do."""
        asked = [
            anonymous("GET", f"/api/dashboards/{public['id']}"),
            stranger("GET", f"/api/dashboards/{public['id']}"),
            anonymous("GET", f"/api/share/{public['shareToken']}"),
            anonymous("GET", f"/api/share/{linked['shareToken']}"),
            anonymous("POST", "/api/datasource-sessions", of_public),
            anonymous("POST", "/api/datasource-sessions", of_link),
            stranger("POST", "/api/datasource-sessions", of_public),
            *(anonymous.internal("datasource-introspect", {"sessionToken": token}) for token in tokens),
        ]
        return [status for status, _ in asked]

    before = guests()
    assert all(status < 300 for status in before), before
    owner_id = owner.ok("GET", "/api/users/me")["id"]
    admin.ok("PATCH", f"/api/users/{owner_id}", {"active": False})
    assert guests() == [404, 404, 404, 404, 403, 403, 403, 403, 403, 403]
    assert code(stranger("DELETE", f"/api/dashboards/{public['id']}")) == (404, "not_found")
    for made in (public, linked):
        assert member.ok("GET", f"/api/dashboards/{made['id']}")["canShare"]
        member.ok("POST", "/api/datasource-sessions", {"dashboardId": made["id"], "datasourceId": "t"})
    admin.ok("PATCH", f"/api/users/{owner_id}", {"active": True})
    assert guests() == before, "what was shown is shown again"
    assert owner("GET", "/api/users/me")[0] == 401, "the owner's old logins stay ended"


def test_every_shared_dashboard_of_an_owner_is_found(anonymous: Api) -> None:
    owner = person(anonymous.login("admin@x.example"), "editor")
    owner_id = owner.ok("GET", "/api/users/me")["id"]
    made = [dashboard(owner)["id"] for _ in range(3)]
    for dashboard_id, visibility in zip(made, ("public", "link"), strict=False):
        owner.ok("PUT", f"/api/dashboards/{dashboard_id}/visibility", {"visibility": visibility})
    found = revalidate_services({**anonymous.env}).revalidate._shown_by
    assert found is not None
    assert set(found(owner_id)) == set(made[:2]) and list(found("nobody")) == []
