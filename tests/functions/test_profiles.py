"""Profiles through the API: where a credential may go, who is refused it, and how a profile is replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from functions.api.main import make_handler
from functions.api.wiring import api_services
from local_stack.seed import document, mqtt
from ops.admin import first_admin
from tests.functions.events import request
from tests.functions.test_api import PASSWORD, Api, broker, code, dashboard, person
from tidegate.adapters.dynamodb.profiles import DynamoProfiles
from tidegate.domain.profiles import BROKER, CREDENTIAL
from tidegate.errors import SecretUnreadable
from tidegate.providers.control_plane import ControlPlaneProviders

SECRET = "S3cret-of-the-weather"
HOME = "https://api.example.com"


@pytest.fixture
def admin(deployed: Mapping[str, str]) -> Api:
    first_admin(deployed, "admin@x.example", PASSWORD)
    return Api(make_handler(api_services(deployed)), deployed).login("admin@x.example")


def bearer(**fields: object) -> dict[str, object]:
    return {"name": "Weather", "type": "bearer", "destinations": [HOME], **fields}


def made_bearer(admin: Api, **fields: object) -> str:
    body = bearer(secret={"token": SECRET}, **fields)
    return str(admin.ok("POST", "/api/credential-profiles", body)["id"])


def source(url: str, credential: str, kind: str = "sse", **settings: object) -> dict[str, Any]:
    return {"id": "s", "type": kind, "settings": {"url": url, "credentialProfileId": credential, **settings}}


def etag(api: Api, method: str, path: str, body: object, **headers: str) -> str | None:
    answer = api.handler(request(method, path, body, authorization=f"Bearer {api.token}", **headers), None)
    found: str | None = {name.lower(): value for name, value in answer["headers"].items()}.get("etag")
    return found


# --- where a credential may go ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.net/",
        "https://api.example.com.evil.net/",
        "https://evil-api.example.com/",
        "https://api.example.com:8443/",
        "http://api.example.com/",
        "https://\u0430pi.example.com/",
        "https://[2606:4700::1]/",
    ],
)
@pytest.mark.parametrize(
    "placement", [{}, {"authPlacement": "query", "queryParamName": "key"}], ids=["header", "query"]
)
def test_an_editor_does_not_get_a_secret_by_a_url_of_their_own(admin: Api, url: str, placement: dict[str, Any]) -> None:
    editor, credential = person(admin, "editor"), made_bearer(admin)
    refused = editor("POST", "/api/dashboards", document("T", [source(url, credential, **placement)]))
    assert code(refused) == (400, "datasource_unresolved") and SECRET not in json.dumps(refused)
    allowed = source("https://API.example.com.:443/feed", credential, **placement)
    path = f"/api/dashboards/{dashboard(editor, allowed)['id']}"
    refused = editor("PUT", path, document("T", [source(url, credential, **placement)]), if_match="1")
    assert code(refused) == (400, "datasource_unresolved")


@pytest.mark.parametrize("url", ["https://api.example.com@evil.net/", "https://evil.net\\@api.example.com/"])
def test_nor_by_a_url_that_hides_its_host(admin: Api, url: str) -> None:
    refused = admin("POST", "/api/dashboards", document("T", [source(url, made_bearer(admin))]))
    assert code(refused)[0] == 400 and SECRET not in json.dumps(refused)


def test_the_refusal_names_the_profile_and_what_is_allowed(admin: Api) -> None:
    credential = made_bearer(admin)
    message = admin("POST", "/api/dashboards", document("T", [source("https://evil.net/", credential)]))[1]["error"]
    for part in ("'Weather'", "https://evil.net:443", "https://api.example.com:443"):
        assert part in message["message"]


@pytest.mark.parametrize(
    "secret",
    [
        {"type": "bearer", "secret": {"token": SECRET}},
        {"type": "basic", "secret": {"username": "u", "password": SECRET}},
        {"type": "header", "headerName": "X-Key", "secret": {"headerValue": SECRET}},
    ],
    ids=lambda secret: secret["type"],
)
@pytest.mark.parametrize("kind", ["sse", "websocket"])
def test_without_destinations_a_credential_serves_no_url(admin: Api, secret: dict[str, Any], kind: str) -> None:
    credential = admin.ok("POST", "/api/credential-profiles", {"name": "n", **secret})["id"]
    url = "https://api.example.com/" if kind == "sse" else "wss://api.example.com/"
    refused = admin("POST", "/api/dashboards", document("T", [source(url, credential, kind)]))
    assert code(refused) == (400, "datasource_unresolved") and "no destinations" in refused[1]["error"]["message"]


def test_a_viewer_who_edits_one_dashboard_does_not_get_a_public_secret(admin: Api) -> None:
    viewer, credential = person(admin, "viewer"), made_bearer(admin, allowPublicUse=True)
    path = f"/api/dashboards/{dashboard(admin)['id']}"
    admin.ok("PUT", f"{path}/acl", {"email": "viewer@x.example", "level": "editor"})
    refused = viewer("PUT", path, document("T", [source("https://evil.net/", credential)]), if_match="1")
    assert code(refused) == (400, "datasource_unresolved") and SECRET not in json.dumps(refused)
    viewer.ok("PUT", path, document("T", [source(f"{HOME}/feed", credential)]), if_match="1")


def test_destinations_are_shown_in_one_form_and_checked(admin: Api) -> None:
    asked = bearer(destinations=["HTTPS://Api.Example.com.", "wss://*.example.com:8443", HOME], secret={"token": "t"})
    made = admin.ok("POST", "/api/credential-profiles", asked)
    assert made["destinations"] == ["https://api.example.com:443", "wss://*.example.com:8443"]
    for wrong in ("*", "https://*.com", "https://u:p4ss@h.example", "https://h.example/p4ss", "mqtts://h.example"):
        refused = admin("POST", "/api/credential-profiles", bearer(name="w", destinations=[wrong]))
        refused = admin("POST", "/api/credential-profiles", asked | {"name": "w", "destinations": [HOME, wrong]})
        assert code(refused) == (400, "invalid_input")
        assert "destinations[1]" in refused[1]["error"]["message"] and "p4ss" not in json.dumps(refused)


def test_a_destination_that_is_taken_away_ends_the_streams(admin: Api) -> None:
    """The other dashboard's URL is still covered. Its viewers need a new token, and get one."""
    credential = made_bearer(admin, destinations=[HOME, "https://old.example.com"])
    old, still = (dashboard(admin, source(url, credential)) for url in ("https://old.example.com/", HOME))
    tokens = []
    for made in (old, still):
        body = {"dashboardId": made["id"], "datasourceId": "s"}
        tokens.append(admin.ok("POST", "/api/datasource-sessions", body)["token"])
        assert admin.internal("datasource-introspect", {"sessionToken": tokens[-1]})[0] == 200
    admin.ok("PUT", f"/api/credential-profiles/{credential}", bearer(), if_match="1")
    for token in tokens:
        refused = admin.internal("datasource-introspect", {"sessionToken": token})
        assert refused[0] in (403, 404) and SECRET not in json.dumps(refused)
    gone = admin("POST", "/api/datasource-sessions", {"dashboardId": old["id"], "datasourceId": "s"})
    assert code(gone) == (404, "not_found")
    token = admin.ok("POST", "/api/datasource-sessions", {"dashboardId": still["id"], "datasourceId": "s"})["token"]
    assert admin.internal("datasource-introspect", {"sessionToken": token})[0] == 200
    # And back: the datasource has its stream again, without anybody touching the dashboard.
    both = bearer(destinations=[HOME, "https://old.example.com"])
    admin.ok("PUT", f"/api/credential-profiles/{credential}", both, if_match="2")
    admin.ok("POST", "/api/datasource-sessions", {"dashboardId": old["id"], "datasourceId": "s"})
    assert admin.internal("datasource-introspect", {"sessionToken": token})[0] == 200, "nobody else was disturbed"


def test_before_the_dashboards_have_followed_nobody_is_given_a_token(admin: Api) -> None:
    """The profile is read as it is now, at mint and at introspection, whatever intent is still stored."""
    credential = made_bearer(admin)
    body = {"dashboardId": dashboard(admin, source(HOME, credential))["id"], "datasourceId": "s"}
    token = admin.ok("POST", "/api/datasource-sessions", body)["token"]
    profiles = ControlPlaneProviders(admin.env).profiles
    item = profiles._db.get(profiles._table, {"kind": CREDENTIAL, "id": credential})
    assert item is not None
    profiles._db.put(profiles._table, item | {"destinations": ["https://other.example.com:443"]})
    assert code(admin("POST", "/api/datasource-sessions", body)) == (403, "destination_denied")
    status, answer = admin.internal("datasource-introspect", {"sessionToken": token})
    assert (status, answer) == (403, {"error": "Credential profile does not allow this URL"})


def test_a_changed_secret_changes_neither_intents_nor_dashboards(admin: Api) -> None:
    """Nor does its encryption under another key, or a new name, change what the relay looks at."""
    credential = made_bearer(admin)
    made = dashboard(admin, source(HOME, credential))
    path, profiles = f"/api/credential-profiles/{credential}", ControlPlaneProviders(admin.env).profiles
    dashboards = ControlPlaneProviders(admin.env).dashboards
    before, intents = dashboards.get(made["id"]), dashboards.intents(made["id"])

    def revisions() -> tuple[int, int, int]:
        profile = profiles.credential(credential)
        assert profile is not None
        return profile.revision, profile.secret_revision, profile.connection_revision

    assert revisions() == (1, 1, 1)
    same = {key: value for key, value in bearer().items() if key != "secret"}
    admin.ok("PUT", path, same | {"secret": {"token": SECRET + "2"}}, if_match="1")
    assert revisions() == (2, 2, 1)
    admin.ok("PUT", path, same | {"name": "renamed", "description": "d", "allowPublicUse": True}, if_match="2")
    assert revisions() == (3, 2, 1)
    sealed = profiles.sealed_secret(credential)
    assert sealed is not None and profiles.replace_sealed(credential, sealed, sealed + " ")
    assert revisions() == (3, 2, 1)
    assert dashboards.get(made["id"]) == before and dashboards.intents(made["id"]) == intents
    header = {"type": "header", "headerName": "X-Key"}
    admin.ok("PUT", path, same | header | {"secret": {"headerValue": SECRET}}, if_match="3")
    assert revisions() == (4, 3, 1)
    admin.ok("PUT", path, same | header | {"headerName": "X-Other"}, if_match="4")
    assert revisions() == (5, 4, 1) and dashboards.intents(made["id"]) == intents
    admin.ok("PUT", path, same | header | {"destinations": ["https://elsewhere.example"]}, if_match="5")
    assert revisions() == (6, 5, 2) and not dashboards.intents(made["id"])


def test_a_type_that_a_datasource_cannot_use_takes_its_intent(admin: Api) -> None:
    """A basic credential goes into no query parameter."""
    credential = made_bearer(admin)
    asked = source(HOME, credential)
    asked["settings"] |= {"authPlacement": "query", "queryParamName": "key"}
    made, dashboards = dashboard(admin, asked), ControlPlaneProviders(admin.env).dashboards
    assert dashboards.intents(made["id"])
    basic = bearer(type="basic", secret={"username": "u", "password": SECRET})
    admin.ok("PUT", f"/api/credential-profiles/{credential}", basic, if_match="1")
    assert not dashboards.intents(made["id"])
    admin.ok("PUT", f"/api/credential-profiles/{credential}", bearer(secret={"token": SECRET}), if_match="2")
    assert dashboards.intents(made["id"])


def test_the_audit_log_tells_which_destinations_came_and_went(admin: Api) -> None:
    credential = made_bearer(admin)
    changed = bearer(destinations=["https://new.example.com"], secret={"token": SECRET + "2"})
    admin.ok("PUT", f"/api/credential-profiles/{credential}", changed, if_match="1")
    admin.ok("PUT", f"/api/credential-profiles/{credential}", changed, if_match="2")
    events = admin.ok("GET", f"/api/operations/audit?target={credential}")["events"]
    added, removed = ["https://new.example.com:443"], ["https://api.example.com:443"]
    assert [event["metadata"] for event in events] == [
        {"allowPublicUse": False},
        {"allowPublicUse": False, "destinationsAdded": added, "destinationsRemoved": removed},
        {"allowPublicUse": False, "destinationsAdded": removed},
    ]
    assert SECRET not in json.dumps(events)


# --- user names with a colon ------------------------------------------------------------------------------


def test_a_user_name_with_a_colon_is_for_brokers_only(admin: Api) -> None:
    rabbit = {"name": "rabbit", "type": "basic", "secret": {"username": "vhost:user", "password": "p"}}
    made = admin.ok("POST", "/api/credential-profiles", rabbit)
    path = f"/api/credential-profiles/{made['id']}"
    external = {
        "name": "b",
        "transport": "external",
        "brokerUrl": "mqtts://h.example",
        "credentialProfileId": made["id"],
    }
    admin.ok("POST", "/api/broker-profiles", external)
    kept = {"name": "rabbit", "type": "basic", "destinations": [HOME]}
    for refused in (
        admin("POST", "/api/credential-profiles", rabbit | {"name": "http", "destinations": [HOME]}),
        admin("PUT", path, kept, if_match="1"),
        admin("PUT", path, kept | {"secret": rabbit["secret"]}, if_match="1"),
    ):
        assert code(refused) == (400, "invalid_input") and "colon" in refused[1]["error"]["message"]
        assert "vhost" not in refused[1]["error"]["message"]
    admin.ok("PUT", path, kept | {"secret": {"username": "user", "password": "p"}}, if_match="1")
    admin.ok("PUT", path, kept, if_match="2")


def test_a_kept_user_name_that_cannot_be_read_is_asked_for(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    basic = {"name": "n", "type": "basic", "secret": {"username": "u", "password": "p"}}
    path = f"/api/credential-profiles/{admin.ok('POST', '/api/credential-profiles', basic)['id']}"
    kept = {"name": "n", "type": "basic", "destinations": [HOME]}

    def damaged(*_: object) -> None:
        raise SecretUnreadable("damaged")

    monkeypatch.setattr("tidegate.adapters.aws.credential_cipher.KmsCredentialCipher.decrypt", damaged)
    refused = admin("PUT", path, kept, if_match="1")
    assert code(refused) == (400, "invalid_input") and "give the secret" in refused[1]["error"]["message"]
    admin.ok("PUT", path, kept | {"secret": basic["secret"]}, if_match="1")


# --- how a profile is replaced ----------------------------------------------------------------------------

PROFILES: list[tuple[str, dict[str, object], str]] = [
    ("/api/credential-profiles", {"name": "c", "type": "none", "destinations": []}, "destinations"),
    ("/api/broker-profiles", {"name": "b", "transport": "iot-core", "topicAllowlist": ["demo/#"]}, "topicAllowlist"),
]


@pytest.mark.parametrize(("collection", "body", "_list"), PROFILES)
def test_a_profile_is_replaced_by_revision(admin: Api, collection: str, body: dict[str, object], _list: str) -> None:
    made = admin.ok("POST", collection, body)
    path = f"{collection}/{made['id']}"
    assert made["revision"] == 1 and admin.ok("GET", collection)[0]["revision"] == 1
    for wrong in ("", "x", "0", "9" * 4301, '"1", "2"', "*"):
        refused = admin("PUT", path, body, **({"if_match": wrong} if wrong else {}))
        assert code(refused) == (400, "revision_required"), wrong[:9]
    assert admin.ok("PUT", path, body | {"description": "first"}, if_match='"1"')["revision"] == 2
    status, answer = admin("PUT", path, body | {"description": "second"}, if_match="1")
    assert (status, answer["error"]["code"], answer["error"]["currentRevision"]) == (409, "conflict", 2)
    assert admin.ok("GET", collection)[0]["description"] == "first"
    assert etag(admin, "PUT", path, body, if_match="2") == '"3"'
    assert etag(admin, "POST", collection, body | {"name": "another"}) == '"1"'


@pytest.mark.parametrize(("collection", "body", "list_name"), PROFILES)
def test_a_list_that_is_left_out_does_not_widen_a_profile(
    admin: Api, collection: str, body: dict[str, object], list_name: str
) -> None:
    made = admin.ok("POST", collection, body)
    renamed = {name: value for name, value in body.items() if name != list_name} | {"name": "renamed"}
    for wrong in (renamed, renamed | {list_name: None}):
        refused = admin("PUT", f"{collection}/{made['id']}", wrong, if_match="1")
        assert code(refused) == (400, "invalid_input") and list_name in refused[1]["error"]["message"]
    assert admin.ok("GET", collection)[0] == made


@pytest.mark.parametrize("kind", [BROKER, CREDENTIAL])
def test_of_two_admins_who_replace_a_profile_at_once_one_is_told(
    admin: Api, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have read revision 1. The second writes after the first, within the same moment."""
    collection, body, _ = PROFILES[kind == BROKER]
    path = f"{collection}/{admin.ok('POST', collection, body)['id']}"
    real = DynamoProfiles._write

    def write(self: DynamoProfiles, kind: str, before: Any, after: Any, item: Any, further: Any) -> None:
        real(self, kind, before, after, item | {"description": "of the other"}, further)
        real(self, kind, before, after, item, further)

    monkeypatch.setattr(DynamoProfiles, "_write", write)
    assert code(admin("PUT", path, body | {"description": "mine"}, if_match="1")) == (409, "conflict")
    assert admin.ok("GET", collection)[0]["description"] == "of the other"


def test_a_broker_keeps_its_topics_through_a_rename(admin: Api) -> None:
    profile = broker(admin)
    dashboard(admin, mqtt("t", profile, "demo/x"))
    body = {"name": "renamed", "transport": "iot-core", "allowPublicUse": True}
    assert code(admin("PUT", f"/api/broker-profiles/{profile}", body, if_match="1")) == (400, "invalid_input")
    assert admin.ok("GET", "/api/broker-profiles")[0]["topicAllowlist"] == ["demo/#"]
