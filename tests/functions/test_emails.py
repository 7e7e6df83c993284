"""One e-mail address is one account for creating, logging in, granting, and the limits."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from functions.api.main import make_handler
from functions.api.wiring import api_services
from ops.admin import first_admin
from tests.functions.test_api import PASSWORD, Api, code, dashboard
from tidegate.errors import InvalidInput

SAME = ["\uff41dmin@x.example", " ADMIN@X.example ", "admin\uff20x.example"]
NONE = ["admin\u200b@x.example", "\u0430dmin@x.example", "admin@x\u200d.example", "ad min@x.example"]


@pytest.fixture
def anonymous(deployed: Mapping[str, str]) -> Api:
    first_admin(deployed, "\uff21dmin@x.example", PASSWORD)
    return Api(make_handler(api_services(deployed)), deployed)


@pytest.mark.parametrize("email", SAME, ids=ascii)
def test_it_is_the_same_account(anonymous: Api, email: str) -> None:
    admin = anonymous.login(email)
    assert admin.ok("GET", "/api/users/me")["email"] == "admin@x.example"
    assert code(admin("POST", "/api/users", {"email": email})) == (409, "email_taken")
    made = dashboard(admin)
    grant = {"email": email, "level": "viewer"}
    status, answer = admin("PUT", f"/api/dashboards/{made['id']}/acl", grant)
    assert (status, answer["error"]["message"]) == (400, "The owner needs no entry")


@pytest.mark.parametrize("email", NONE, ids=ascii)
def test_a_look_alike_is_no_account(anonymous: Api, email: str) -> None:
    admin = anonymous.login("admin@x.example")
    assert code(admin("POST", "/api/users", {"email": email})) == (400, "invalid_email")
    made = dashboard(admin)
    assert code(admin("PUT", f"/api/dashboards/{made['id']}/acl", {"email": email, "level": "viewer"})) == (
        400,
        "invalid_email",
    )
    answer = anonymous("POST", "/api/auth/login", {"email": email, "password": PASSWORD})
    assert code(answer) == (401, "invalid_credentials"), "nobody learns what an address could be"
    with pytest.raises(InvalidInput):
        first_admin(anonymous.env, email, PASSWORD)


def test_other_spellings_share_the_lock(anonymous: Api) -> None:
    for spelling in ["admin@x.example", *SAME, "admin@X.EXAMPLE"]:
        assert anonymous("POST", "/api/auth/login", {"email": spelling, "password": "no"})[0] == 401
    assert anonymous("POST", "/api/auth/login", {"email": "admin@x.example", "password": PASSWORD})[0] == 429


def test_what_is_no_address_shares_a_lock(anonymous: Api) -> None:
    """Otherwise every text would be a key of its own in the limiter's table."""
    for number in range(5):
        assert anonymous("POST", "/api/auth/login", {"email": f"\u200b{number}", "password": "no"})[0] == 401
    assert anonymous("POST", "/api/auth/login", {"email": "another", "password": "no"})[0] == 429
