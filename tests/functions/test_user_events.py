"""What takes a user's right away is told as an event; what gives one is not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from functions.api.main import make_handler
from functions.api.wiring import api_services
from ops.admin import first_admin
from tests.functions.test_api import PASSWORD, Api, person
from tidegate.domain.revocations import RevocationReason
from tidegate.providers.control_plane import ControlPlaneProviders


@pytest.fixture
def admin(deployed: Mapping[str, str]) -> Api:
    first_admin(deployed, "admin@x.example", PASSWORD)
    return Api(make_handler(api_services(deployed)), deployed).login("admin@x.example")


def told(env: Mapping[str, str]) -> list[tuple[RevocationReason, str | None]]:
    """Why, and about which user, of every event there is."""
    page = ControlPlaneProviders(env).revocations.read(0, 100, 0)
    return [(event.revocation.reason, event.revocation.user_id) for event in page.events]


def test_a_lost_right_of_a_user_is_an_event(admin: Api) -> None:
    viewer = person(admin, "viewer")
    user_id = viewer.ok("GET", "/api/users/me")["id"]
    assert told(admin.env) == []
    viewer.ok("POST", "/api/users/me/password", {"currentPassword": PASSWORD, "newPassword": "Even-longer-2"})
    admin.ok("PATCH", f"/api/users/{user_id}", {"active": False})
    admin.ok("PATCH", f"/api/users/{user_id}", {"active": True})
    admin.ok("POST", f"/api/users/{user_id}/password:reset")
    assert told(admin.env) == [
        (RevocationReason.PASSWORD_RESET, user_id),
        (RevocationReason.USER_DEACTIVATED, user_id),
        (RevocationReason.PASSWORD_RESET, user_id),
    ]


def test_only_the_loss_of_admin_rights_is_an_event(admin: Api) -> None:
    user_id = person(admin, "editor").ok("GET", "/api/users/me")["id"]
    for role in ("viewer", "editor", "admin"):
        admin.ok("PATCH", f"/api/users/{user_id}", {"role": role})
    assert told(admin.env) == []
    admin.ok("PATCH", f"/api/users/{user_id}", {"role": "viewer"})
    assert told(admin.env) == [(RevocationReason.ROLE_LOWERED, user_id)]
