"""Every call of the APIs and every message of the gateway, as eight kinds of caller make it.

Each `Example` below is one request that is right in itself, so that its answer tells who may make it. A new route needs
one: add it to `EXAMPLES`, and write docs/reference/callers.md again with `scripts/callers_doc.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, get_args

from functions.api.main import make_handler
from functions.api.wiring import api_services
from local_stack.seed import document, mqtt
from ops.admin import first_admin
from scripts import http_api_doc
from tests.deployment import SECRETS, deployment
from tests.functions.test_api import PASSWORD, Api
from tests.functions.test_gateway import Gateway, gateway_over
from tests.servers.management import ManagementServer
from tidegate.protocol.messages import ClientMessage

#: Each with the global role, and the level in the dashboard's ACL.
CALLERS: Mapping[str, tuple[str | None, str | None]] = {
    "anonymous": (None, None),
    "outsider": ("viewer", None),
    "ACL viewer": ("viewer", "viewer"),
    "ACL editor": ("viewer", "editor"),
    "ACL manager": ("viewer", "manager"),
    "other editor": ("editor", None),
    "owner": ("editor", None),
    "admin": ("admin", None),
}
VISIBILITIES = ("private", "link", "public")
#: No limit is what is looked at here. One address makes all calls, but each login comes from another one: how many an
#: address may have is no setting.
_PROXIES = {"API_TRUST_PROXY_HOPS": "1", "REALTIME_TRUST_PROXY_HOPS": "1"}
_RATES = dict.fromkeys(
    (
        "REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN",
        "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_IP_PER_MIN",
        "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN",
        "DATASOURCE_TOKEN_MINT_RATE_LIMIT_USER_PER_MIN",
        "DATASOURCE_TOKEN_MINT_RATE_LIMIT_PUBLIC_IP_PER_MIN",
        "DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN",
        "REALTIME_MAX_CLIENT_CONNECTIONS_PER_IP",
    ),
    "1000",
)
_LIMITS = {**_RATES, "REALTIME_MAX_CONNECTIONS_PER_DASHBOARD": "250"}
_NUMBERS, _ADDRESSES = count(1), count(1)


class World:
    """People who stay, and a dashboard that is made anew after every call that may have changed it.

    `spare_id`: a user who calls nothing, to whom things are done.
    """

    def __init__(self, moto_url: str, management: ManagementServer) -> None:
        env = {**deployment(moto_url), **_LIMITS, **_PROXIES}
        first_admin(env, "admin@x.example", PASSWORD)
        self.nobody = Api(make_handler(api_services(env)), env)
        self.gateway: Gateway = gateway_over(env, management)
        self.passwords = {caller: PASSWORD for caller, (role, _) in CALLERS.items() if role}
        self.people = {"anonymous": self.nobody, "admin": self.nobody.login("admin@x.example")}
        for caller, (role, _) in CALLERS.items():
            if caller not in self.people:
                body = {"email": email(caller), "role": role, "password": PASSWORD}
                self.admin.ok("POST", "/api/users", body)
                self.log_in(caller)
        spare = {"email": email("spare"), "password": PASSWORD}
        self.spare_id: str = self.admin.ok("POST", "/api/users", spare)["user"]["id"]
        self.broker = self.make_broker(public=True)
        self.members_broker = self.make_broker(public=False)
        self._dashboards: dict[str, dict[str, Any]] = {}

    @property
    def admin(self) -> Api:
        return self.people["admin"]

    def log_in(self, caller: str) -> None:
        """Give the caller a fresh login. Nothing for who has no account."""
        if caller in self.passwords:
            elsewhere = {"x-forwarded-for": f"203.0.113.{next(_ADDRESSES) % 256}"}
            there = Api(self.nobody.handler, self.nobody.env, headers=elsewhere)
            token = there.login(email(caller), self.passwords[caller]).token
            self.people[caller] = Api(self.nobody.handler, self.nobody.env, token)

    def make_broker(self, *, public: bool) -> str:
        body = {"name": f"b{next(_NUMBERS)}", "transport": "iot-core", "allowPublicUse": public}
        return str(self.admin.ok("POST", "/api/broker-profiles", body | {"topicAllowlist": ["demo/#"]})["id"])

    def make_credential(self) -> str:
        body = {"name": f"c{next(_NUMBERS)}", "type": "none"}
        return str(self.admin.ok("POST", "/api/credential-profiles", body)["id"])

    def document(self) -> dict[str, Any]:
        kept = mqtt("t", self.broker, "demo/x")
        kept["settings"]["history"] = {"seconds": 60, "everyMs": 1000}
        return document("T", [kept, mqtt("members", self.members_broker, "demo/y")])

    def dashboard(self, visibility: str) -> dict[str, Any]:
        """A dashboard of the owner, whose ACL has those whom `CALLERS` says and one more."""
        if visibility not in self._dashboards:
            made = self.people["owner"].ok("POST", "/api/dashboards", self.document())
            path = f"/api/dashboards/{made['id']}"
            for caller, (_, level) in CALLERS.items():
                if level:
                    made = self.people["owner"].ok("PUT", f"{path}/acl", {"email": email(caller), "level": level})
            made = self.people["owner"].ok("PUT", f"{path}/acl", {"email": email("spare"), "level": "viewer"})
            if visibility != "private":
                made = self.people["owner"].ok("PUT", f"{path}/visibility", {"visibility": visibility})
            self._dashboards[visibility] = made
        return self._dashboards[visibility]

    def forget(self, visibility: str) -> None:
        self._dashboards.pop(visibility, None)


def email(caller: str) -> str:
    return f"{caller.lower().replace(' ', '-')}@x.example"


@dataclass
class Call:
    """One caller, about to make one call."""

    world: World
    caller: str
    visibility: str = "private"

    @property
    def api(self) -> Api:
        return self.world.people[self.caller]

    @property
    def dashboard(self) -> dict[str, Any]:
        return self.world.dashboard(self.visibility)

    def session(self, datasource: str = "t", *, link: bool = False) -> dict[str, Any]:
        body = {"dashboardId": self.dashboard["id"], "datasourceId": datasource}
        return body | ({"shareToken": self.dashboard["shareToken"]} if link else {})

    def session_token(self) -> str | None:
        """What minting gives this caller, with the link where there is one; None when it refuses."""
        body = self.session(link=self.visibility != "private")
        status, answer = self.api("POST", "/api/datasource-sessions", body)
        return str(answer["token"]) if status == 201 else None

    def other_password(self) -> str:
        return f"{PASSWORD}-{next(_NUMBERS)}"


Body = Callable[[Call], Any]


@dataclass(frozen=True)
class Example:
    """One request.

    Attributes:
        body: made when the request is.
        path: values of the route's parameters; those of the dashboard and its share token are filled in.
        note: what is special, where a route has several examples.
        query: what follows the path, made when the request is.
        bearer: makes the token that is sent instead of the caller's login.
        by_dashboard: it is made for a dashboard of each visibility. It is, when the route names one.
        service: the service token is sent, instead of the caller's login.
        changes: what the call may change is made anew after it succeeded.
        ends_login: the caller needs a new login after it succeeded.
    """

    body: Body = lambda call: None
    path: Mapping[str, Callable[[Call], str]] = field(default_factory=dict)
    note: str = ""
    query: str = ""
    bearer: Callable[[Call], str | None] | None = None
    by_dashboard: bool = False
    service: bool = False
    changes: bool = True
    ends_login: bool = False


def _change_password(call: Call) -> dict[str, str]:
    return {
        "currentPassword": call.world.passwords.get(call.caller, PASSWORD),
        "newPassword": call.other_password(),
    }


_USER = {"user_id": lambda call: call.world.spare_id}
_CREDENTIAL = {"profile_id": lambda call: call.world.make_credential()}
_BROKER = {"profile_id": lambda call: call.world.make_broker(public=True)}


def _unsaved(call: Call, broker: str) -> dict[str, object]:
    """A datasource to preview. No rule feeds its topic, so the answer does not wait for messages."""
    settings = {"brokerProfileId": broker, "topic": "elsewhere/x"}
    return {"dashboardId": call.dashboard["id"], "type": "mqtt", "settings": settings}


def _named(**more: object) -> Body:
    return lambda call: {"name": f"n{next(_NUMBERS)}", **more}


#: Route -> its examples. Bodies are right, so that the answer tells about rights.
EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "POST /api/auth/login": (
        Example(lambda call: {"email": email(call.caller), "password": call.world.passwords.get(call.caller, "none")}),
    ),
    "POST /api/auth/renew": (Example(),),
    "POST /api/auth/logout": (Example(ends_login=True),),
    "POST /api/auth/logout-everywhere": (Example(ends_login=True),),
    "GET /api/users/me": (Example(),),
    "POST /api/users/me/password": (Example(_change_password, ends_login=True),),
    "GET /api/users": (Example(),),
    "POST /api/users": (Example(lambda call: {"email": f"new{next(_NUMBERS)}@x.example"}),),
    "PATCH /api/users/{user_id}": (Example(lambda call: {"role": "editor"}, _USER),),
    "POST /api/users/{user_id}/password:reset": (Example(path=_USER),),
    "GET /api/credential-profiles": (Example(),),
    "POST /api/credential-profiles": (Example(_named(type="none")),),
    "PUT /api/credential-profiles/{profile_id}": (Example(_named(type="none", destinations=[]), _CREDENTIAL),),
    "DELETE /api/credential-profiles/{profile_id}": (Example(path=_CREDENTIAL),),
    "GET /api/credential-profiles/{profile_id}/uses": (Example(path=_CREDENTIAL),),
    "GET /api/broker-profiles": (Example(),),
    "POST /api/broker-profiles": (Example(_named(transport="iot-core")),),
    "PUT /api/broker-profiles/{profile_id}": (Example(_named(transport="iot-core", topicAllowlist=["a"]), _BROKER),),
    "DELETE /api/broker-profiles/{profile_id}": (Example(path=_BROKER),),
    "GET /api/broker-profiles/{profile_id}/uses": (Example(path=_BROKER),),
    "GET /api/dashboards": (Example(),),
    "POST /api/dashboards": (Example(lambda call: call.world.document()),),
    "GET /api/dashboards/{dashboard_id}": (Example(),),
    "PUT /api/dashboards/{dashboard_id}": (
        Example(lambda call: document("T2", call.world.document()["document"]["datasources"])),
    ),
    "DELETE /api/dashboards/{dashboard_id}": (Example(),),
    "PUT /api/dashboards/{dashboard_id}/visibility": (Example(lambda call: {"visibility": "public"}),),
    "POST /api/dashboards/{dashboard_id}/share-token:rotate": (Example(),),
    "PUT /api/dashboards/{dashboard_id}/acl": (Example(lambda call: {"email": email("outsider"), "level": "viewer"}),),
    "DELETE /api/dashboards/{dashboard_id}/acl/{member_id}": (
        Example(path={"member_id": lambda call: call.world.spare_id}),
    ),
    "PUT /api/dashboards/{dashboard_id}/owner": (Example(lambda call: {"email": email("other editor")}),),
    "GET /api/share/{share_token}": (Example(),),
    "POST /api/datasource-sessions": (
        Example(Call.session, note="by id", by_dashboard=True, changes=False),
        Example(lambda call: call.session(link=True), note="with the share token", by_dashboard=True, changes=False),
        Example(
            lambda call: call.session("members", link=True),
            note="with the share token, of a profile for members",
            by_dashboard=True,
            changes=False,
        ),
    ),
    "POST /api/dashboards/{dashboard_id}/session": (
        Example(lambda call: {}, note="by id", by_dashboard=True, changes=False),
        Example(
            lambda call: {"shareToken": call.dashboard["shareToken"]},
            note="with the share token",
            by_dashboard=True,
            changes=False,
        ),
    ),
    "GET /api/realtime": (Example(),),
    "GET /api/dashboards/{dashboard_id}/history": (
        Example(query="?datasourceId=t", note="with the caller's login"),
        Example(query="?datasourceId=t", note="with the session token that the caller gets", bearer=Call.session_token),
    ),
    "GET /api/dashboards/{dashboard_id}/usable-profiles": (Example(),),
    "POST /api/topics:check": (
        Example(
            lambda call: {"brokerProfileId": call.world.broker, "topic": "demo/x"},
            note="without a dashboard",
            changes=False,
        ),
        Example(
            lambda call: {
                "brokerProfileId": call.world.broker,
                "topic": "demo/x",
                "dashboardId": call.dashboard["id"],
            },
            note="of a dashboard, at a broker for public use",
            by_dashboard=True,
            changes=False,
        ),
        Example(
            lambda call: {
                "brokerProfileId": call.world.members_broker,
                "topic": "demo/x",
                "dashboardId": call.dashboard["id"],
            },
            note="of a dashboard, at a broker for members",
            by_dashboard=True,
            changes=False,
        ),
    ),
    "POST /api/datasources:preview": (
        Example(lambda call: _unsaved(call, call.world.broker), note="at a broker for public use", by_dashboard=True),
        Example(
            lambda call: _unsaved(call, call.world.members_broker), note="at a broker for members", by_dashboard=True
        ),
    ),
    "POST /api/dashboards/{dashboard_id}/public-check": (Example(changes=False),),
    "GET /api/dashboards/{dashboard_id}/viewers": (Example(),),
    "POST /api/dashboards:validate": (Example(lambda call: call.world.document()),),
    "GET /api/operations/audit": (Example(),),
    "GET /api/operations/summary": (Example(),),
    "POST /api/operations/full-revalidation": (Example(),),
    "GET /api/operations/dead-letters": (Example(),),
    "POST /api/operations/dead-letters/{queue}:redrive": (Example(path={"queue": lambda call: "catch-ups"}),),
    "GET /api/healthz": (
        Example(),
        Example(query="?deep=true", note="deep, with the caller's login"),
        Example(query="?deep=true", note="deep, with the service token", service=True),
    ),
    "POST /internal/gateway/datasource-introspect": (
        Example(lambda call: {"sessionToken": "x"}, note="with the caller's login"),
        Example(
            lambda call: {"sessionToken": call.session_token() or "none"},
            note="with the service token, of the caller's session token",
            service=True,
            by_dashboard=True,
            changes=False,
        ),
    ),
    "POST /internal/gateway/revoked-tokens": (
        Example(lambda call: {}, note="with the caller's login"),
        Example(lambda call: {}, note="with the service token", service=True),
    ),
    "POST /internal/gateway/rate-limit/consume": (
        Example(lambda call: {}, note="with the caller's login"),
        Example(
            lambda call: {"scope": "realtime-connect-ip", "key": "k", "limitPerMinute": 100},
            note="with the service token",
            service=True,
        ),
    ),
}


def routes() -> list[str]:
    """Every route of the APIs, from their own description."""
    paths = http_api_doc.description()["paths"]
    return [f"{method.upper()} {path}" for path, operations in paths.items() for method in operations]


def message_kinds() -> list[str]:
    """Every kind of message that the gateway reads."""
    names = [kind.__name__.removesuffix("Message") for kind in get_args(ClientMessage)]
    return [name.removesuffix("Several").lower() for name in names]


#: Parts of the answer to `GET /api/dashboards/{dashboard_id}`, each with how it is found there.
PARTS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "datasources: id, title, type": lambda answer: [each["id"] for each in _sources(answer)] == ["t", "members"],
    "what datasources connect to": lambda answer: any("topic" in each["settings"] for each in _sources(answer)),
    "ownerId": lambda answer: answer["ownerId"] is not None,
    "acl": lambda answer: answer["acl"] is not None,
    "shareToken": lambda answer: answer["shareToken"] is not None,
}


def _sources(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(answer["document"]["datasources"])


Row = tuple[str, str, tuple[str, ...]]


def rows_of_route(world: World, route: str) -> list[Row]:
    """(call, dashboard, a cell for each caller) of each example. `any`: the visibility changes nothing."""
    return [row for example in EXAMPLES[route] for row in _rows_of_example(world, route, example)]


def _rows_of_example(world: World, route: str, example: Example) -> Iterator[Row]:
    name = f"`{route}`" + (f", {example.note}" if example.note else "")
    if not (example.by_dashboard or "{dashboard_id}" in route or "{share_token}" in route):
        yield name, "", tuple(_made(Call(world, caller), route, example) for caller in CALLERS)
        return
    yield from _by_visibility(name, lambda call: _made(call, route, example), world)


def _by_visibility(name: str, cell: Callable[[Call], str], world: World) -> Iterator[Row]:
    found = {each: tuple(cell(Call(world, caller, each)) for caller in CALLERS) for each in VISIBILITIES}
    if len(set(found.values())) == 1:
        yield name, "any", found["private"]
    else:
        yield from ((name, visibility, cells) for visibility, cells in found.items())


def _made(call: Call, route: str, example: Example) -> str:
    """Make the call, and return its status and error code."""
    method, _, path = route.partition(" ")
    values = {name: value(call) for name, value in example.path.items()}
    if "{dashboard_id}" in path:
        values["dashboard_id"] = call.dashboard["id"]
    if "{share_token}" in path:
        values["share_token"] = call.dashboard["shareToken"]
    body = example.body(call)
    service = Api(call.world.nobody.handler, call.world.nobody.env, SECRETS["GATEWAY_SERVICE_TOKEN_ARN"])
    api = service if example.service else call.api
    if example.bearer is not None:
        api = Api(api.handler, api.env, example.bearer(call))
    status, answer = api(method, path.format(**values) + example.query, body, if_match='"1"')
    if status < 400:
        if method != "GET" and example.changes:
            call.world.forget(call.visibility)
        if example.ends_login:
            if isinstance(body, dict) and "newPassword" in body:
                call.world.passwords[call.caller] = body["newPassword"]
            call.world.log_in(call.caller)
        return str(status)
    error = answer["error"]
    return f"{status} {error['code']}" if isinstance(error, dict) else str(status)


def _connect(call: Call) -> str:
    return str(call.world.gateway.open(f"c{next(_NUMBERS)}="))


def _said(call: Call, body: Mapping[str, object]) -> str:
    """Send one message over a new connection, and return its first answer."""
    gateway, connection_id = call.world.gateway, f"c{next(_NUMBERS)}="
    assert gateway.open(connection_id) == 200
    gateway.say(connection_id, body)
    first = gateway.frames(connection_id)[0]
    return str(first.get("errorCode", first["type"]))


def _subscribe(call: Call) -> str:
    token = call.session_token()
    if token is None:
        return "no token"
    return _said(call, {"type": "subscribe", "requestId": "r", "sessionToken": token, **_of(call)})


def _subscribe_to_both(call: Call) -> str:
    """What the datasource for everybody is answered, and the one for members."""
    link = {"shareToken": call.dashboard["shareToken"]} if call.visibility != "private" else {}
    status, answer = call.api("POST", f"/api/dashboards/{call.dashboard['id']}/session", link)
    if status != 201:
        return "no token"
    gateway, connection_id = call.world.gateway, f"c{next(_NUMBERS)}="
    assert gateway.open(connection_id) == 200
    asked = {"type": "subscribe", "requestId": "r", "dashboardId": call.dashboard["id"]}
    gateway.say(connection_id, asked | {"datasourceIds": ["t", "members"], "sessionToken": answer["token"]})
    acks = [frame for frame in gateway.frames(connection_id) if frame["type"] == "ack"]
    return ", ".join(str(ack.get("errorCode", "ack")) for ack in acks)


def _subscribe_with_login(call: Call) -> str:
    token = call.api.token or "none"
    return _said(call, {"type": "subscribe", "requestId": "r", "sessionToken": token, **_of(call)})


def _subscribe_with_owners_token(call: Call) -> str:
    token = Call(call.world, "owner", call.visibility).session_token()
    return _said(call, {"type": "subscribe", "requestId": "r", "sessionToken": token, **_of(call)})


def _of(call: Call) -> dict[str, str]:
    return {"dashboardId": call.dashboard["id"], "datasourceId": "t"}


#: Kind of message -> what is sent, by its note.
MESSAGES: Mapping[str, Mapping[str, Callable[[Call], str]]] = {
    "connect": {"": _connect},
    "subscribe": {
        "with the session token that the caller gets": _subscribe,
        "to two datasources, the second for members, with the session token for the dashboard": _subscribe_to_both,
        "with the caller's login": _subscribe_with_login,
        "with the owner's session token": _subscribe_with_owners_token,
    },
    "unsubscribe": {"": lambda call: _said(call, {"type": "unsubscribe", "requestId": "r", "datasourceId": "t"})},
    "ping": {"": lambda call: _said(call, {"type": "ping", "requestId": "r"})},
}


def rows_of_message(world: World, kind: str) -> list[Row]:
    """As `rows_of_route`, for a kind of message."""
    made: list[Row] = []
    for note, cell in MESSAGES[kind].items():
        name = f"`{kind}`" + (f", {note}" if note else "")
        if kind == "subscribe":
            made += _by_visibility(name, cell, world)
        else:
            made.append((name, "", tuple(cell(Call(world, caller)) for caller in CALLERS)))
    return made


def rows_of_parts(world: World) -> list[Row]:
    """As `rows_of_route`, for what each caller is shown of a public dashboard: `yes` or `no`."""
    calls = [Call(world, caller, "public") for caller in CALLERS]
    answers = [call.api.ok("GET", f"/api/dashboards/{call.dashboard['id']}") for call in calls]
    return [
        (name, "public", tuple("yes" if is_there(answer) else "no" for answer in answers))
        for name, is_there in PARTS.items()
    ]
