"""The API as Lambda runs it: recorded HTTP API events, real tables, secrets and keys on moto."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import jwt
import pytest

from functions.api.app import create_app
from functions.api.main import make_handler
from functions.api.wiring import api_services
from local_stack.seed import document, mqtt
from ops.admin import first_admin
from tests.deployment import SECRETS
from tests.functions.events import request
from tidegate.adapters.aws.json_client import JsonClient

PASSWORD = "Long-enough-1"


@dataclass
class Api:
    """Calls the handler; `token` is sent when set."""

    handler: Callable[..., Any]
    env: Mapping[str, str]
    token: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        sent = {**self.headers, **headers}
        if self.token:
            sent["authorization"] = f"Bearer {self.token}"
        answer = self.handler(request(method, path, body, **sent), None)
        text = answer.get("body")
        try:
            return answer["statusCode"], json.loads(text) if text else None
        except ValueError:
            return answer["statusCode"], text

    def ok(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        status, answer = self(method, path, body, **headers)
        assert status < 300, (status, answer)
        return answer

    def login(self, email: str, password: str = PASSWORD) -> Api:
        token = self.ok("POST", "/api/auth/login", {"email": email, "password": password})["token"]
        return Api(self.handler, self.env, token, dict(self.headers))

    def internal(self, path: str, body: object, token: str = SECRETS["GATEWAY_SERVICE_TOKEN_ARN"]) -> tuple[int, Any]:
        return Api(self.handler, self.env, token)("POST", f"/internal/gateway/{path}", body)


@pytest.fixture
def anonymous(deployed: Mapping[str, str]) -> Api:
    return Api(make_handler(api_services(deployed)), deployed)


@pytest.fixture
def admin(anonymous: Api) -> Api:
    first_admin(anonymous.env, "admin@x.example", PASSWORD)
    return anonymous.login("admin@x.example")


def person(admin: Api, role: str) -> Api:
    admin.ok("POST", "/api/users", {"email": f"{role}@x.example", "role": role, "password": PASSWORD})
    return Api(admin.handler, admin.env).login(f"{role}@x.example")


def broker(admin: Api, *, public: bool = True, name: str = "core") -> str:
    body = {"name": name, "transport": "iot-core", "allowPublicUse": public, "topicAllowlist": ["demo/#"]}
    return str(admin.ok("POST", "/api/broker-profiles", body)["id"])


def dashboard(api: Api, *sources: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = api.ok("POST", "/api/dashboards", document("T", list(sources)))
    return made


def code(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1]["error"]["code"]


# --- login and users ---------------------------------------------------------------------------------------


def test_login_and_who_one_is(admin: Api, anonymous: Api) -> None:
    me = admin.ok("GET", "/api/users/me")
    assert (me["email"], me["role"], me["mustChangePassword"]) == ("admin@x.example", "admin", False)
    assert code(anonymous("GET", "/api/users/me")) == (401, "unauthenticated")
    assert code(Api(anonymous.handler, anonymous.env, "forged")("GET", "/api/users/me")) == (401, "unauthenticated")


def test_a_wrong_login_is_never_the_public_flow(admin: Api, anonymous: Api) -> None:
    made = dashboard(admin, mqtt("t", broker(admin), "demo/x"))
    admin.ok("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": "public"})
    body = {"dashboardId": made["id"], "datasourceId": "t"}
    assert anonymous("POST", "/api/datasource-sessions", body)[0] == 201
    assert Api(anonymous.handler, anonymous.env, "old")("POST", "/api/datasource-sessions", body)[0] == 401


def test_the_fifth_failure_locks(admin: Api, anonymous: Api) -> None:
    wrong = {"email": "admin@x.example", "password": "no"}
    for _ in range(5):
        assert code(anonymous("POST", "/api/auth/login", wrong)) == (401, "invalid_credentials")
    status, answer = anonymous("POST", "/api/auth/login", {"email": " ADMIN@x.example", "password": PASSWORD})
    assert status == 429 and "seconds" in answer["error"]["message"] and answer["error"]["retryAfterMs"] > 0
    elsewhere = Api(anonymous.handler, anonymous.env, headers={"x-forwarded-for": "9.9.9.9"})
    assert elsewhere("POST", "/api/auth/login", wrong)[0] == 429, "no trusted hop: the header changes nothing"
    user_id = admin.ok("GET", "/api/users/me")["id"]
    for action, target in (("auth.login.locked", user_id), ("auth.login.blocked", "unknown")):
        (event,) = admin.ok("GET", f"/api/operations/audit?action={action}")["events"]
        assert (event["targetId"], event["count"]) == (target, 1 if target == user_id else 2)


@pytest.mark.parametrize(("mode", "status"), [("fail-closed", 503), ("fail-open", 200)])
def test_a_salt_that_cannot_be_read_is_for_the_failure_mode(
    admin: Api, deployed: Mapping[str, str], mode: str, status: int
) -> None:
    """It is the limiter that cannot answer then, both for rates and for guesses."""
    env = {**deployed, "LIMITER_HASH_SALT_ARN": "gone", "SECURITY_LIMITER_FAILURE_MODE": mode}
    answer = Api(make_handler(api_services(env)), env)(
        "POST", "/api/auth/login", {"email": "admin@x.example", "password": PASSWORD}
    )
    assert answer[0] == status and (status == 200 or code(answer) == (503, "limiter_unavailable"))


def audit_query(admin: Api, **query: str | int) -> tuple[int, Any]:
    return admin("GET", f"/api/operations/audit?{urlencode(query)}")


def test_the_audit_log_is_read_page_by_page_and_through_filters(admin: Api) -> None:
    profile = broker(admin)
    ids = [dashboard(admin, mqtt("t", profile, "demo/x"))["id"] for _ in range(3)]
    admin.ok("PUT", f"/api/dashboards/{ids[1]}/visibility", {"visibility": "link"})
    everything = admin.ok("GET", "/api/operations/audit")
    assert everything["cursor"] is None
    paged: list[Any] = []
    cursor: dict[str, str | int] = {}
    while len(paged) < 50:
        _, page = audit_query(admin, limit=2, **cursor)
        paged += page["events"]
        if page["cursor"] is None:
            break
        cursor = {"cursor": page["cursor"]}
    assert paged == everything["events"]
    actor = admin.ok("GET", "/api/users/me")["id"]

    def found(**query: str | int) -> list[tuple[str, str]]:
        status, page = audit_query(admin, **query)
        assert status == 200, page
        return [(event["action"], event["targetId"]) for event in page["events"]]

    assert found(action="dashboard.created") == [("dashboard.created", each) for each in reversed(ids)]
    assert found(target=ids[1]) == [("dashboard.visibility.updated", ids[1]), ("dashboard.created", ids[1])]
    assert found(target=ids[1], action="dashboard.created", actor=actor) == [("dashboard.created", ids[1])]
    assert found(actor="nobody") == found(target=ids[1], actor="nobody") == []
    assert len(found(actor=actor)) >= 4
    created = paged[-1]["at"]
    assert found(to=created) == [] and len(found(**{"from": created})) == len(paged)


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": "x"},
        {"cursor": "1700000000000.a#b"},
        {"cursor": "١700000000000.a"},
        {"from": "yesterday"},
        {"from": "2026-02-30T00:00:00Z"},
        {"to": "2026-01-01T00:00:00"},
        {"from": "2026-01-02T00:00:00Z", "to": "2026-01-02T00:00:00.000Z"},
        {"limit": 201},
        {"action": ""},
        {"target": "x" * 201},
    ],
)
def test_a_question_to_the_audit_log_that_is_none_is_refused(admin: Api, query: dict[str, str | int]) -> None:
    assert audit_query(admin, **query)[0] == 400


def test_users_are_managed_by_admins_only(admin: Api) -> None:
    viewer = person(admin, "viewer")
    for method, path, body in (
        ("GET", "/api/users", None),
        ("POST", "/api/users", {"email": "a@b.example"}),
        ("GET", "/api/operations/audit", None),
        ("POST", "/api/broker-profiles", {"name": "x", "transport": "iot-core"}),
        ("GET", "/api/broker-profiles", None),
        ("POST", "/api/dashboards", document("T", [])),
    ):
        assert code(viewer(method, path, body)) == (403, "denied"), path
    made = admin.ok("POST", "/api/users", {"email": "New@X.example", "role": "editor"})
    assert made["user"]["mustChangePassword"] and made["oneTimePassword"]
    assert code(admin("POST", "/api/users", {"email": "new@x.example"})) == (409, "email_taken")
    assert code(admin("POST", "/api/users", {"email": "no"})) == (400, "invalid_email")
    assert [user["email"] for user in admin.ok("GET", "/api/users?limit=2")["users"]] == [
        "admin@x.example",
        "new@x.example",
    ]


def test_what_ends_a_login(admin: Api) -> None:
    viewer = person(admin, "viewer")
    user_id = viewer.ok("GET", "/api/users/me")["id"]
    change = {"currentPassword": PASSWORD, "newPassword": "Even-longer-2"}
    assert code(viewer("POST", "/api/users/me/password", change | {"currentPassword": "no"})) == (403, "wrong_password")
    viewer.ok("POST", "/api/users/me/password", change)
    assert viewer("GET", "/api/users/me")[0] == 401, "older logins end with a password change"
    again = Api(admin.handler, admin.env).login("viewer@x.example", "Even-longer-2")
    admin.ok("PATCH", f"/api/users/{user_id}", {"active": False})
    assert again("GET", "/api/users/me")[0] == 401
    assert code(
        Api(admin.handler, admin.env)(
            "POST", "/api/auth/login", {"email": "viewer@x.example", "password": "Even-longer-2"}
        )
    ) == (401, "invalid_credentials")
    admin.ok("PATCH", f"/api/users/{user_id}", {"active": True})
    password = admin.ok("POST", f"/api/users/{user_id}/password:reset")["oneTimePassword"]
    assert (
        Api(admin.handler, admin.env)
        .login("viewer@x.example", password)
        .ok("GET", "/api/users/me")["mustChangePassword"]
    )


# --- profiles ----------------------------------------------------------------------------------------------


def test_secrets_go_in_and_never_out(admin: Api) -> None:
    body = {"name": "up", "type": "basic", "secret": {"username": "u", "password": "top-secret-7"}}
    made = admin.ok("POST", "/api/credential-profiles", body)
    assert made["secret"] == {"username": "***", "password": "***"}
    assert "top-secret-7" not in json.dumps(admin.ok("GET", "/api/credential-profiles"))
    path, renamed = f"/api/credential-profiles/{made['id']}", {"name": "renamed", "type": "basic", "destinations": []}
    kept = admin.ok("PUT", path, renamed, if_match="1")
    assert kept["secret"] == {"username": "***", "password": "***"}
    assert code(admin("POST", "/api/credential-profiles", body | {"name": "Renamed "})) == (409, "name_taken")
    for wrong in (
        {"type": "bearer", "secret": {}},
        {"type": "basic", "secret": {"username": "u"}},
        {"type": "header", "secret": {"headerValue": "v"}},
        {"type": "none", "secret": {"x": "y"}},
    ):
        assert admin("POST", "/api/credential-profiles", {"name": "w", **wrong})[0] == 400
    admin.ok("DELETE", f"/api/credential-profiles/{made['id']}")
    assert admin.ok("GET", "/api/credential-profiles") == []


@pytest.mark.parametrize(
    "body",
    [
        {"transport": "external"},
        {"transport": "external", "brokerUrl": "http://h"},
        {"transport": "external", "brokerUrl": "mqtt://u:p@h"},
        {"transport": "external", "brokerUrl": "mqtt://h:99999"},
        {"transport": "external", "brokerUrl": "mqtt://h.example", "credentialProfileId": "none"},
        {"transport": "iot-core", "brokerUrl": "mqtt://h"},
        {"transport": "iot-core", "topicAllowlist": ["a/#/b"]},
        {"transport": "external", "brokerUrl": "mqtts://h.example", "tls": {"rejectUnauthorized": "false"}},
        {"transport": "external", "brokerUrl": "mqtts://h.example", "tls": {"ca": "pem"}},
        {"transport": "external", "brokerUrl": "mqtts://h.example", "tls": {"ca": ""}},
        {"transport": "iot-core", "tls": {"ca": "pem"}},
        {"transport": "external", "brokerUrl": "mqtts://h.example", "credentialProfileId": ""},
        {"transport": "iot-core", "credentialProfileId": ""},
        {"transport": "external", "brokerUrl": "mqtts://h.example", "credentialProfileId": "x" * 3000},
        {"transport": "carrier-pigeon"},
        {"transport": "iot-core", "unknown": 1},
    ],
)
def test_broker_profiles_that_are_refused(admin: Api, body: dict[str, object]) -> None:
    status, answer = admin("POST", "/api/broker-profiles", {"name": "b", **body})
    assert status == 400 and answer["error"]["message"]


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("mqtt://h.example:1", "brokerUrl: port 1 is not allowed; EGRESS_ALLOWED_PORTS has 80, 443, 1883, 8883"),
        ("mqtts://10.0.0.1", "Egress destination is not allowed; EGRESS_ALLOWED_HOSTS and EGRESS_ALLOW_PRIVATE"),
        ("mqtts://broker.internal", "Egress destination is not allowed; EGRESS_ALLOWED_HOSTS and"),
        ("mqtts://0x7f.1", "Egress host is not a valid address"),
    ],
)
def test_a_broker_that_nobody_may_connect_to_is_not_saved(admin: Api, url: str, rule: str) -> None:
    body = {"name": "b", "transport": "external", "brokerUrl": "mqtts://h.example"}
    made = admin.ok("POST", "/api/broker-profiles", body)
    for method, path in (("POST", "/api/broker-profiles"), ("PUT", f"/api/broker-profiles/{made['id']}")):
        status, answer = admin(method, path, body | {"brokerUrl": url, "topicAllowlist": []}, if_match="1")
        assert status == 400 and rule in answer["error"]["message"]


def test_topics_of_ones_own_broker_have_the_limits_of_mqtt(admin: Api) -> None:
    deep = "a/b/c/d/e/f/g/h/i/j/+/k/#"
    for transport, url, status in (("external", "mqtts://h.example", 201), ("iot-core", None, 400)):
        body = {"name": transport, "transport": transport, "brokerUrl": url, "topicAllowlist": [deep]}
        assert admin("POST", "/api/broker-profiles", body)[0] == status
    own = admin.ok("GET", "/api/broker-profiles")[0]["id"]
    assert dashboard(admin, mqtt("t", own, deep.replace("#", "x" * 300)))["id"]
    for shared in ("$share/g/a/b/c/d/e/f/g/h/i/j/+/k/x", "$queue/a"):
        status, answer = admin("POST", "/api/dashboards", document("T", [mqtt("t", own, shared)]))
        assert status == 400 and "shared subscriptions" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"type": "header", "headerName": "Host: x\t", "secret": {"headerValue": "v"}}, "headerName"),
        ({"type": "header", "headerName": "X-A\r\nHost", "secret": {"headerValue": "v"}}, "headerName"),
        ({"type": "bearer", "headerName": "a b", "secret": {"token": "t"}}, "headerName"),
        ({"type": "header", "headerName": "X-A", "secret": {"headerValue": "v\r\nHost: x"}}, "secret.headerValue"),
        ({"type": "header", "headerName": "X-A", "secret": {"headerValue": "v "}}, "secret.headerValue"),
        ({"type": "bearer", "secret": {"token": "t\n"}}, "secret.token"),
        (
            {
                "type": "basic",
                "secret": {"username": "a:b", "password": "p"},
                "destinations": ["https://h.example"],
            },
            "secret.username",
        ),
        ({"type": "basic", "secret": {"username": "a\n", "password": "p"}}, "secret.username"),
        ({"type": "basic", "secret": {"username": "a", "password": "p\0"}}, "secret.password"),
    ],
    ids=ascii,
)
def test_credentials_that_cannot_be_sent_are_refused(admin: Api, body: dict[str, object], named: str) -> None:
    status, answer = admin("POST", "/api/credential-profiles", {"name": "w", **body})
    assert status == 400 and named in answer["error"]["message"]
    assert "v\r" not in answer["error"]["message"] and "a:b" not in answer["error"]["message"], "a secret is not shown"


def test_a_header_that_cannot_be_sent_is_named(admin: Api) -> None:
    source = {"id": "s", "type": "sse", "settings": {"url": "https://example.com", "headers": {"Host: a\t": "x"}}}
    status, answer = admin("POST", "/api/dashboards", document("T", [source]))
    assert status == 400 and "'Host: a'" in answer["error"]["message"]


# --- dashboards --------------------------------------------------------------------------------------------


def test_documents_change_by_revision(admin: Api) -> None:
    made = dashboard(admin, mqtt("t", broker(admin), "demo/x"))
    path = f"/api/dashboards/{made['id']}"
    changed = document("T2", [mqtt("t", made["document"]["datasources"][0]["settings"]["brokerProfileId"], "demo/y")])
    assert code(admin("PUT", path, changed)) == (400, "revision_required")
    assert admin.ok("PUT", path, changed, if_match='"1"')["revision"] == 2
    status, answer = admin("PUT", path, changed, if_match="1")
    assert status == 409 and answer["error"]["currentRevision"] == 2
    assert admin("PUT", path, document("", []), if_match="2")[0] == 400
    bad = document("T", [mqtt("t", "no such", "demo/x")])
    assert code(admin("PUT", path, bad, if_match="2")) == (400, "datasource_unresolved")


def test_shared_dashboards_come_by_title(admin: Api) -> None:
    """A batch read of DynamoDB returns them in any order."""
    editor, viewer = person(admin, "editor"), person(admin, "viewer")
    for title in ("c", "B", "a", "d", "E"):
        made = editor.ok("POST", "/api/dashboards", document(title, []))
        editor.ok("PUT", f"/api/dashboards/{made['id']}/acl", {"email": "viewer@x.example", "level": "viewer"})
    shared = viewer.ok("GET", "/api/dashboards")["shared"]
    assert [each["title"] for each in shared] == ["a", "B", "c", "d", "E"]


def test_who_sees_what(admin: Api, anonymous: Api) -> None:
    editor, viewer = person(admin, "editor"), person(admin, "viewer")
    made = dashboard(editor, mqtt("t", broker(admin), "demo/x"))
    path = f"/api/dashboards/{made['id']}"
    assert code(anonymous("GET", path)) == code(viewer("GET", path)) == (404, "not_found")
    assert viewer.ok("GET", "/api/dashboards")["shared"] == []
    editor.ok("PUT", f"{path}/acl", {"email": "viewer@x.example", "level": "viewer"})
    seen = viewer.ok("GET", path)
    assert (seen["canEdit"], seen["canShare"], seen.get("shareToken")) == (False, False, None)
    assert [dashboard["id"] for dashboard in viewer.ok("GET", "/api/dashboards")["shared"]] == [made["id"]]
    assert code(viewer("PUT", f"{path}/visibility", {"visibility": "public"})) == (403, "denied")
    assert code(viewer("PUT", path, document("T", []), if_match="1")) == (403, "denied")
    shared = editor.ok("PUT", f"{path}/visibility", {"visibility": "link"})
    assert anonymous.ok("GET", f"/api/share/{shared['shareToken']}")["id"] == made["id"]
    rotated = editor.ok("POST", f"{path}/share-token:rotate")
    assert anonymous("GET", f"/api/share/{shared['shareToken']}")[0] == 404
    assert rotated["shareTokenVersion"] == shared["shareTokenVersion"] + 1
    user_id = viewer.ok("GET", "/api/users/me")["id"]
    editor.ok("DELETE", f"{path}/acl/{user_id}")
    assert viewer("GET", path)[0] == 404 and viewer.ok("GET", "/api/dashboards")["shared"] == []
    editor.ok("DELETE", path)
    assert editor("GET", path)[0] == 404 and anonymous("GET", f"/api/share/{rotated['shareToken']}")[0] == 404


def test_an_untrusted_author_attaches_public_profiles_only(admin: Api) -> None:
    viewer = person(admin, "viewer")
    public, members = broker(admin), broker(admin, public=False, name="members")
    made = dashboard(admin, mqtt("keep", members, "demo/x"))
    path = f"/api/dashboards/{made['id']}"
    admin.ok("PUT", f"{path}/acl", {"email": "viewer@x.example", "level": "editor"})
    keep = mqtt("keep", members, "demo/x")
    allowed = document("T", [dict(reversed(keep.items())), mqtt("new", public, "demo/y")])
    viewer.ok("PUT", path, allowed, if_match="1")
    refused = viewer("PUT", path, document("T", [mqtt("keep", members, "demo/other")]), if_match="2")
    assert refused[0] == 403 and "index 0" in refused[1]["error"]["message"]


# --- sessions and the internal API --------------------------------------------------------------------


def test_mint_and_introspect(admin: Api, anonymous: Api) -> None:
    made = dashboard(admin, mqtt("t", broker(admin), "demo/x"))
    body = {"dashboardId": made["id"], "datasourceId": "t"}
    assert code(anonymous("POST", "/api/datasource-sessions", body)) == (403, "denied")
    token = admin.ok("POST", "/api/datasource-sessions", body)["token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["scope"] == "datasource:stream" and claims["shareTokenVersion"] is None and claims["sv"] == 1
    assert claims["exp"] - claims["iat"] == 300 and claims["iss"] == "tidegate-api"
    status, answer = anonymous.internal("datasource-introspect", {"sessionToken": token, **body})
    assert status == 200 and answer["intent"]["topic"] == "demo/x" and answer["scope"] == "datasource:stream"
    for wrong, expected in (
        ({}, 400),
        ({"sessionToken": "x"}, 401),
        ({"sessionToken": token, "dashboardId": "other"}, 403),
        ("{", 400),
        ("[]", 400),
        ("x" * (256 * 1024 + 1), 413),
    ):
        status, answer = anonymous.internal("datasource-introspect", wrong)
        assert status == expected and isinstance(answer["error"], str)
    assert anonymous.internal("datasource-introspect", {}, token="no") == (401, {"error": "Unauthorized"})
    for method, path in (("GET", "revoked-tokens"), ("PUT", "datasource-introspect"), ("GET", "rate-limit/consume")):
        assert anonymous(method, f"/internal/gateway/{path}") == (405, {"error": "Method not allowed"})
    assert code(anonymous("GET", "/internal/gateway/nothing")) == (404, "not_found"), "no answer about a dashboard"


def test_credentials_are_placed_for_trusted_callers(admin: Api, anonymous: Api) -> None:
    credential = admin.ok(
        "POST",
        "/api/credential-profiles",
        {"name": "c", "type": "bearer", "destinations": ["https://up.example"], "secret": {"token": "s3cret value"}},
    )["id"]
    settings = {"url": "https://up.example/s?a=1", "credentialProfileId": credential}
    query = settings | {"authPlacement": "query", "queryParamName": "key"}
    made = dashboard(
        admin, {"id": "h", "type": "sse", "settings": settings}, {"id": "q", "type": "sse", "settings": query}
    )
    intents = {}
    for datasource in ("h", "q"):
        body = {"dashboardId": made["id"], "datasourceId": datasource}
        token = admin.ok("POST", "/api/datasource-sessions", body)["token"]
        intents[datasource] = anonymous.internal("datasource-introspect", {"sessionToken": token})[1]["intent"]
    assert intents["h"]["headers"] == {"Authorization": "Bearer s3cret value"}
    assert intents["q"]["url"] == "https://up.example/s?a=1&key=s3cret%20value"


def test_a_viewer_who_is_known_does_not_spend_the_budget_of_new_ones(admin: Api, anonymous: Api) -> None:
    """Known by a token of the same dashboard, whichever of its datasources that is for."""
    profile = broker(admin)
    made = dashboard(admin, mqtt("t", profile, "demo/x"), mqtt("u", profile, "demo/y"))
    admin.ok("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": "public"})
    body = {"dashboardId": made["id"], "datasourceId": "t"}
    limited = {**anonymous.env, "DATASOURCE_TOKEN_MINT_RATE_LIMIT_PUBLIC_IP_PER_MIN": "3"}
    anonymous = Api(make_handler(api_services(limited)), limited)
    token = anonymous.ok("POST", "/api/datasource-sessions", body)["token"]
    answers = [anonymous("POST", "/api/datasource-sessions", body) for _ in range(7)]  # a minute may end in between
    status, answer = next(refused for refused in answers if refused[0] != 201)
    assert status == 429 and answer["error"]["retryAfterMs"] >= 1
    for datasource in ("t", "u"):
        known = body | {"currentToken": token, "datasourceId": datasource}
        assert anonymous("POST", "/api/datasource-sessions", known)[0] == 201
    assert anonymous("POST", "/api/datasource-sessions", body | {"currentToken": "forged"})[0] == 429


def test_the_feed_tells_every_revocation_in_order(admin: Api, anonymous: Api) -> None:
    status, start = anonymous.internal("revoked-tokens", {"sinceCursor": None, "limit": 10})
    assert status == 200 and start["events"] == [] and not start["cursorExpired"]
    profile = broker(admin)
    made = dashboard(admin, mqtt("t", profile, "demo/x"))
    path = f"/api/dashboards/{made['id']}"
    person(admin, "viewer")
    admin.ok("PUT", f"{path}/acl", {"email": "viewer@x.example", "level": "viewer"})
    admin.ok("PUT", f"{path}/visibility", {"visibility": "link"})
    admin.ok("POST", f"{path}/share-token:rotate")
    admin.ok(
        "PUT",
        f"/api/broker-profiles/{profile}",
        {"name": "core", "transport": "iot-core", "topicAllowlist": ["demo/#"]},
        if_match='"1"',
    )
    admin.ok("DELETE", path)
    seen, cursor = [], start["nextCursor"]
    for _ in range(6):
        page = anonymous.internal("revoked-tokens", {"sinceCursor": cursor, "limit": 1})[1]
        seen += page["events"]
        cursor = page["nextCursor"]
    assert [event["shareTokenVersion"] for event in seen] == [1, 2, 3, 4]
    assert [event["eventId"] for event in seen] == ["1", "2", "3", "4"]
    assert anonymous.internal("revoked-tokens", {"sinceCursor": "garbage"})[1]["cursorExpired"] is True
    replay = anonymous.internal("revoked-tokens", {"sinceCursor": None})[1]
    assert replay["events"] == seen and replay["nextCursor"] == cursor


def test_withdrawn_profiles_close_the_mint(admin: Api, anonymous: Api) -> None:
    profile = broker(admin)
    made = dashboard(admin, mqtt("t", profile, "demo/x"))
    admin.ok("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": "public"})
    body = {"dashboardId": made["id"], "datasourceId": "t"}
    token = anonymous.ok("POST", "/api/datasource-sessions", body)["token"]
    narrowed = {"name": "core", "transport": "iot-core", "allowPublicUse": False, "topicAllowlist": ["demo/#"]}
    admin.ok("PUT", f"/api/broker-profiles/{profile}", narrowed, if_match="1")
    assert code(anonymous("POST", "/api/datasource-sessions", body)) == (403, "public_use_denied")
    assert anonymous.internal("datasource-introspect", {"sessionToken": token})[1]["error"] == "Share token is stale"
    admin.ok("POST", "/api/datasource-sessions", body)
    admin.ok("DELETE", f"/api/broker-profiles/{profile}")
    assert code(admin("POST", "/api/datasource-sessions", body)) == (404, "not_found")


def test_a_profile_for_members_only_is_minted_and_introspected_for_members_only(admin: Api, anonymous: Api) -> None:
    """A signed-in outsider of a public dashboard is a guest like anybody without a login."""
    outsider, member = person(admin, "editor"), person(admin, "viewer")
    secret = {"name": "key", "type": "bearer", "secret": {"token": "Members-secret"}, "allowPublicUse": False}
    secret |= {"destinations": ["https://data.example.com"]}
    credential = admin.ok("POST", "/api/credential-profiles", secret)["id"]
    settings = {"url": "https://data.example.com/feed", "credentialProfileId": credential}
    relayed = {"id": "sse", "type": "sse", "settings": settings}
    made = dashboard(admin, mqtt("mqtt", broker(admin, public=False), "demo/x"), relayed)
    path = f"/api/dashboards/{made['id']}"
    shared = admin.ok("PUT", f"{path}/visibility", {"visibility": "public"})
    admin.ok("PUT", f"{path}/acl", {"email": "viewer@x.example", "level": "viewer"})
    for datasource in ("mqtt", "sse"):
        body = {"dashboardId": made["id"], "datasourceId": datasource}
        for guest in (anonymous, outsider):
            for asked in (body, body | {"shareToken": shared["shareToken"]}):
                assert code(guest("POST", "/api/datasource-sessions", asked)) == (403, "public_use_denied")
        for allowed in (admin, member):
            token = allowed.ok("POST", "/api/datasource-sessions", body)["token"]
            assert anonymous.internal("datasource-introspect", {"sessionToken": token})[0] == 200
    # A token that a member still holds after leaving names nobody who is a member.
    token = member.ok("POST", "/api/datasource-sessions", {"dashboardId": made["id"], "datasourceId": "sse"})["token"]
    admin.ok("DELETE", f"{path}/acl/{member.ok('GET', '/api/users/me')['id']}")
    status, answer = anonymous.internal("datasource-introspect", {"sessionToken": token})
    assert status == 403 and "Members-secret" not in json.dumps(answer)


def test_withdrawn_public_use_ends_signed_in_guests_too(admin: Api, anonymous: Api) -> None:
    outsider, profile = person(admin, "viewer"), broker(admin)
    made = dashboard(admin, mqtt("t", profile, "demo/x"))
    admin.ok("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": "public"})
    token = outsider.ok("POST", "/api/datasource-sessions", {"dashboardId": made["id"], "datasourceId": "t"})["token"]
    assert anonymous.internal("datasource-introspect", {"sessionToken": token})[0] == 200
    narrowed = {"name": "core", "transport": "iot-core", "allowPublicUse": False, "topicAllowlist": ["demo/#"]}
    admin.ok("PUT", f"/api/broker-profiles/{profile}", narrowed, if_match="1")
    assert anonymous.internal("datasource-introspect", {"sessionToken": token})[0] == 403


def test_withdrawn_public_use_ends_the_datasources_that_use_the_profile_and_no_other(
    admin: Api, anonymous: Api
) -> None:
    outsider, withdrawn, kept = person(admin, "viewer"), broker(admin), broker(admin, name="kept")
    made = dashboard(admin, mqtt("t", withdrawn, "demo/x"), mqtt("u", kept, "demo/y"))
    admin.ok("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": "public"})

    def minted(api: Api, datasource_id: str, **more: str) -> str:
        body = {"dashboardId": made["id"], "datasourceId": datasource_id, **more}
        return str(api.ok("POST", "/api/datasource-sessions", body)["token"])

    def introspected(token: str) -> int:
        return anonymous.internal("datasource-introspect", {"sessionToken": token})[0]

    asked = {"anonymous": anonymous, "outsider": outsider, "member": admin}
    tokens = {(name, source): minted(who, source) for name, who in asked.items() for source in ("t", "u")}
    narrowed = {"name": "core", "transport": "iot-core", "allowPublicUse": False, "topicAllowlist": ["demo/#"]}
    admin.ok("PUT", f"/api/broker-profiles/{withdrawn}", narrowed, if_match="1")
    for name in asked:
        assert introspected(tokens[name, "u"]) == 200, "nothing happened to the other datasource"
    assert [introspected(tokens[name, "t"]) for name in asked] == [403, 403, 200]
    # Who holds a token from before is no new viewer when the page asks for the next.
    held = tokens["anonymous", "u"]
    assert claims(minted(anonymous, "u", currentToken=held))["viewerId"] == claims(held)["viewerId"]
    # What another gateway reads ends more than it must: the contract knows whole dashboards only.
    event = anonymous.internal("revoked-tokens", {"sinceCursor": None})[1]["events"][-1]
    assert event["shareTokenVersion"] == claims(held)["shareTokenVersion"] + 1
    # A public profile that is withdrawn and allowed again does not bring old tokens back.
    admin.ok("PUT", f"/api/broker-profiles/{withdrawn}", narrowed | {"allowPublicUse": True}, if_match="2")
    assert introspected(tokens["anonymous", "t"]) == 403 and introspected(minted(anonymous, "t")) == 200
    # A rotation ends all that was left.
    admin.ok("POST", f"/api/dashboards/{made['id']}/share-token:rotate")
    assert introspected(held) == 403


def claims(token: str) -> dict[str, Any]:
    """What a session token says, unverified."""
    middle = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))))


def test_the_id_of_a_session_token_is_a_uuid(admin: Api) -> None:
    made = dashboard(admin, mqtt("t", broker(admin), "demo/x"))
    body = {"dashboardId": made["id"], "datasourceId": "t"}
    ids = [claims(admin.ok("POST", "/api/datasource-sessions", body)["token"])["jti"] for _ in range(2)]
    assert [str(UUID(each)) for each in ids] == ids and ids[0] != ids[1]


def test_rates_for_other_gateways(anonymous: Api) -> None:
    body = {"scope": "realtime-connect-ip", "key": "k", "limitPerMinute": 2}
    answers = [anonymous.internal("rate-limit/consume", body)[1] for _ in range(3)]
    assert [answer["allowed"] for answer in answers] == [True, True, False]
    assert [answer["remaining"] for answer in answers] == [1, 0, 0] and answers[2]["reason"] == "limited"
    assert anonymous.internal("rate-limit/consume", {"scope": "x", "key": "k"})[1] == {
        "error": "scope is not supported"
    }
    assert anonymous.internal("rate-limit/consume", {})[1] == {"error": "scope and key are required"}


def test_a_limiter_that_is_down_says_so(deployed: Mapping[str, str]) -> None:
    first_admin(deployed, "admin@x.example", PASSWORD)
    broken = {
        **deployed,
        "TIDEGATE_TABLE_LIMITERS": "there-is-no-such-table",
        "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:9",
        "GATEWAY_LIMITER_TIMEOUT_MS": "500",
    }
    api = Api(make_handler(api_services(broken)), broken)
    status, answer = api("POST", "/api/auth/login", {"email": "a@b.example", "password": "x"})
    assert (status, answer["error"]["code"]) == (503, "limiter_unavailable")
    status, answer = api.internal("rate-limit/consume", {"scope": "realtime-connect-ip", "key": "k"})
    assert (status, answer["reason"]) == (503, "backend_fail_closed")


# --- hostile input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '"\\ud800"', "9" * 4301, '{"\\udfff": 1}'])
def test_bodies_that_are_not_json_are_refused(admin: Api, value: str) -> None:
    made = dashboard(admin)
    for method, path, body in (
        ("POST", "/api/dashboards", '{"document": {"schemaVersion": 1, "title": "T", "settings": {"a": VALUE}}}'),
        ("PUT", f"/api/dashboards/{made['id']}", '{"document": {"schemaVersion": 1, "title": "T", "panes": [VALUE]}}'),
        ("POST", "/api/auth/login", '{"email": "a@b.example", "password": VALUE}'),
        ("POST", "/api/broker-profiles", '{"name": VALUE, "transport": "iot-core"}'),
        ("POST", "/api/broker-profiles", '{"name": "n", "transport": "iot-core", "more": VALUE}'),
        ("POST", "/api/datasource-sessions", '{"dashboardId": "d", "datasourceId": VALUE}'),
    ):
        assert code(admin(method, path, body.replace("VALUE", value), if_match="1")) == (400, "invalid_input"), path
    for path in ("datasource-introspect", "revoked-tokens", "rate-limit/consume"):
        answer = admin.internal(path, f'{{"limit": {value}}}')
        assert answer == (400, {"error": "Invalid JSON payload"}), path
    deep = '{"document": ' + "[" * 100_000
    assert code(admin("POST", "/api/dashboards", deep)) == (400, "invalid_input")


def test_numbers_are_whole_and_decimal(admin: Api) -> None:
    made = dashboard(admin)
    path = f"/api/dashboards/{made['id']}"
    for wrong in ("9" * 4301, "9" * 19, "\u00b2", "\u0661", "0", "-1", "1.0", "true", '""', "0" * 4301):
        refused = admin("PUT", path, document("U", []), if_match=wrong)
        assert code(refused) == (400, "revision_required"), wrong[:9]
    for flag in ({"schemaVersion": True, "title": "T"}, {"schemaVersion": 1, "title": "T", "columns": True}):
        assert code(admin("POST", "/api/dashboards", {"document": flag})) == (400, "invalid_document")
    assert admin.ok("PUT", path, document("U", []), if_match=' "01" ')["revision"] == 2
    for limit in ("%C2%B2", "true", "9" * 4301, "NaN", "1e999"):
        assert code(admin("GET", f"/api/dashboards?limit={limit}")) == (400, "invalid_input"), limit[:9]


@pytest.mark.parametrize(
    "fields",
    [
        {"eventId": "\u00b2"},
        {"eventId": "9" * 4301},
        {"eventId": True},
        {"eventId": {"a": 1}},
        [],
        "NaN",
        "[" * 100_000,
    ],
    ids=lambda fields: ascii(fields)[:20],
)
def test_a_cursor_that_cannot_be_read_has_expired(anonymous: Api, fields: object) -> None:
    text = fields if isinstance(fields, str) else json.dumps(fields)
    cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    status, answer = anonymous.internal("revoked-tokens", {"sinceCursor": cursor})
    assert (status, answer.get("cursorExpired"), answer.get("events")) == (200, True, [])


def test_what_no_identifier_can_be_is_not_there(admin: Api) -> None:
    made = dashboard(admin)
    for name in ("x" * 3000, "%F0%9F%98%80" * 300, "%ED%A0%80", "%00", "%20", "%2E%2E"):
        for method, path, body in (
            ("GET", f"/api/dashboards/{name}", None),
            ("PUT", f"/api/dashboards/{name}", document("T", [])),
            ("DELETE", f"/api/dashboards/{name}", None),
            ("PUT", f"/api/dashboards/{name}/visibility", {"visibility": "public"}),
            ("POST", f"/api/dashboards/{name}/share-token:rotate", None),
            ("PUT", f"/api/dashboards/{name}/acl", {"email": "a@b.example", "level": "viewer"}),
            ("GET", f"/api/share/{name}", None),
            ("PATCH", f"/api/users/{name}", {"role": "viewer"}),
            ("POST", f"/api/users/{name}/password:reset", None),
            ("PUT", f"/api/broker-profiles/{name}", {"name": "n", "transport": "iot-core", "topicAllowlist": []}),
            ("PUT", f"/api/credential-profiles/{name}", {"name": "n", "type": "none", "destinations": []}),
            ("DELETE", f"/api/broker-profiles/{name}", None),
            ("DELETE", f"/api/credential-profiles/{name}", None),
        ):
            assert code(admin(method, path, body, if_match="1")) == (404, "not_found"), (method, path[:60])
        assert admin("DELETE", f"/api/dashboards/{made['id']}/acl/{name}")[0] in (200, 404)
        for path in ("/api/dashboards", "/api/users"):
            assert admin("GET", f"{path}?cursor={name}")[0] in (200, 400), (path, name[:9])
        assert admin("POST", "/api/datasource-sessions", {"dashboardId": name, "datasourceId": name})[0] in (400, 404)


def test_the_stores_are_not_asked_for_what_they_cannot_hold(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = JsonClient.call

    def call(self: JsonClient, operation: str, request: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        asked.append(json.dumps(request))
        return real(self, operation, request, *args, **options)

    monkeypatch.setattr(JsonClient, "call", call)
    name = "x" * 3000
    source = {"id": "s", "type": "sse", "settings": {"url": "https://example.com", "credentialProfileId": name}}
    assert admin("GET", f"/api/dashboards/{name}")[0] == 404
    assert code(admin("POST", "/api/dashboards", document("T", [source]))) == (400, "invalid_document")
    assert code(admin("POST", "/api/dashboards", document("T", [mqtt("m", name, "a")]))) == (400, "invalid_document")
    body = {"name": "b", "transport": "external", "brokerUrl": "mqtts://h.example", "credentialProfileId": name}
    assert code(admin("POST", "/api/broker-profiles", body)) == (400, "invalid_input")
    assert asked and not [request for request in asked if name in request]


def test_a_login_of_any_characters_is_refused(anonymous: Api) -> None:
    for token in (
        "\u00b2",
        "a.b.c",
        "\u00e9." * 3,
        "x" * 9000,
        "eyJhbGciOiJIUzI1NiJ9.W10.x",
        "eyJhbGciOiAiXHVkODAwIn0.e30.x",
    ):
        assert code(Api(anonymous.handler, anonymous.env, token)("GET", "/api/users/me")) == (401, "unauthenticated")
        assert anonymous.internal("revoked-tokens", {}, token) == (401, {"error": "Unauthorized"})
        introspected = anonymous.internal("datasource-introspect", {"sessionToken": token})
        assert introspected == (401, {"error": "Invalid or expired datasource session token"})


def test_everything_is_described(deployed: Mapping[str, str]) -> None:
    described = create_app(api_services(deployed)).openapi()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation["tags"] and "503" in operation["responses"], (method, path)
            bodiless = (":rotate", ":reset", ":redrive", "/renew", "/logout", "/logout-everywhere", "/public-check")
            alone = path.endswith((*bodiless, "/full-revalidation"))
            assert method in ("get", "delete") or alone or operation["requestBody"]
            for status, answer in operation["responses"].items():
                if status not in ("204", "304", "422"):
                    assert answer["content"]["application/json"]["schema"] != {}, (method, path, status)
