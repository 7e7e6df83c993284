"""What rows drive a stack with: people of the demo, viewers, a device, and the fake upstreams."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import jwt

from local_stack import deployment
from local_stack.checks import expect
from local_stack.config import Config
from local_stack.publisher import Publisher
from local_stack.seed import Api, document
from local_stack.viewer import Viewer

#: Takes what a row has to say for itself; it is shown behind the row's name.
Note = Callable[[str], None]
#: Collections of the API, in the order in which what a row made there is deleted: dashboards use profiles.
_COLLECTIONS = ("/api/dashboards", "/api/broker-profiles", "/api/credential-profiles")


class RowApi(Api):
    """The API as a signed-in user sees it. What a row makes through it is remembered, and deleted after the row."""

    made: list[tuple[str, str]]

    @classmethod
    def signed_in(cls, base_url: str, who: Mapping[str, str]) -> RowApi:
        """`who` is one of the `users` of `stack.json`."""
        token = Api(base_url).call("POST", "/api/auth/login", {"email": who["email"], "password": who["password"]})
        api = cls(base_url, token["token"])
        api.made = []
        return api

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        answer = super().call(method, path, body, headers)
        if method == "POST" and path in _COLLECTIONS:
            self.made.append((path, str(answer["id"])))
        return answer

    def delete_what_was_made(self, collection: str) -> None:
        """Delete what was made in a collection, the last first. What a row deleted itself is gone already."""
        for path, made_id in [made for made in reversed(self.made) if made[0] == collection]:
            answer = self.request("DELETE", f"{path}/{made_id}")
            gone = answer.status_code in (204, 404)
            expect(gone, f"{path}/{made_id} is still there: {answer.status_code} {answer.text}")
            self.made.remove((path, made_id))


class Smoke:
    """One stack and one device, for all rows of a run. `stack` is what `stack.json` holds."""

    def __init__(self, stack: Mapping[str, Any]) -> None:
        self.stack = stack
        # Every client of its own address, so that the limits of one row do not meet another's.
        self._next_host = 1 + int(time.time()) % 200
        self._next_number = 0
        self._signed_in: dict[str, RowApi] = {}
        self._viewers: list[Viewer] = []
        self._faults = False
        self._device: Publisher | None = None
        self._open = ExitStack()

    # --- people and devices -------------------------------------------------------------------------------

    def address(self) -> str:
        """A loopback address nobody here used before."""
        self._next_host += 1
        return f"127.{10 + self._next_host // 250}.{int(time.time() / 60) % 250}.{1 + self._next_host % 250}"

    def user(self, role: str) -> RowApi:
        """The role's user, signed in once: sign-ins are limited, and these are no attack."""
        if role not in self._signed_in:
            self._signed_in[role] = RowApi.signed_in(self.stack["edge_url"], self.stack["users"][role])
        return self._signed_in[role]

    def sign_out_everywhere(self, role: str) -> None:
        """End every login of the role's user. The next row that needs the user signs in anew."""
        self.user(role).call("POST", "/api/auth/logout-everywhere")
        del self._signed_in[role]

    def made(self) -> list[tuple[str, str]]:
        """What is there now because a row made it: who made it, by role, and its path in the API."""
        return [(role, f"{path}/{made_id}") for role, api in self._signed_in.items() for path, made_id in api.made]

    def anonymous(self) -> Api:
        return Api(self.stack["edge_url"], address=self.address())

    def dashboard(self, datasource: dict[str, Any], visibility: str = "private") -> dict[str, Any]:
        """A dashboard of the editor with this one datasource; returns what `mint` needs, as the demo's parts are."""
        editor = self.user("editor")
        made = editor.call("POST", "/api/dashboards", document("Smoke", [datasource]))
        if visibility != "private":
            made = editor.call("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": visibility})
        own = {"dashboardId": made["id"]}
        return own | ({"shareToken": made["shareToken"]} if visibility == "link" else {})

    def mint(self, api: Api, demo: Mapping[str, Any], datasource: str = "telemetry") -> str:
        """A session token for a datasource of the dashboard; with the share token, where `demo` has one."""
        return str(api.call("POST", "/api/datasource-sessions", _session(demo, datasource))["token"])

    def mint_status(self, api: Api, demo: Mapping[str, Any], datasource: str = "telemetry") -> int:
        """The HTTP status with which the API answers whoever asks for such a token."""
        return api.request("POST", "/api/datasource-sessions", _session(demo, datasource)).status_code

    def forge(self, **claims: Any) -> str:
        """A token as the API would sign it, with claims of the row's choosing."""
        now = int(time.time())
        payload = {
            "iss": "tidegate-api",
            "aud": "tidegate-gateway",
            "datasourceId": "telemetry",
            "scope": "datasource:stream",
            "iat": now,
            "exp": now + 300,
            "jti": f"smoke-{now}",
            **claims,
        }
        return jwt.encode(payload, self.secret("JWT_GATEWAY_SECRET_ARN"), algorithm="HS256")

    def payload(self) -> dict[str, Any]:
        """A payload nobody published before."""
        self._next_number += 1
        return {"n": self._next_number, "at": time.time_ns(), "text": "grüße"}

    async def publish(self, topic: str, payload: object) -> None:
        raw = payload if isinstance(payload, bytes | str) else json.dumps(payload)
        await asyncio.to_thread(self._publish, topic, raw)

    def _publish(self, topic: str, raw: bytes | str) -> None:
        if self._device is None:
            self._device = self._open.enter_context(Publisher(self.stack["mqtt"]))
        self._device.publish(topic, raw)

    # --- viewers ------------------------------------------------------------------------------------------

    async def viewer(self, *, batch: bool = False, address: str | None = None) -> Viewer:
        """A connection; it is closed after the row if the row does not close it."""
        opened = await Viewer.open(self.stack["websocket_url"], address=address or self.address(), batch=batch)
        self._viewers.append(opened)
        return opened

    async def subscribed(self, token: str, demo: Mapping[str, Any], datasource: str = "telemetry") -> Viewer:
        """A viewer whose datasource is connected."""
        viewer = await self.viewer()
        ack = await viewer.subscribe(demo["dashboardId"], datasource, token)
        expect(ack["ok"], f"subscribe refused: {ack}")
        await viewer.until(lambda frame: frame["type"] == "status" and frame["status"] == "connected")
        return viewer

    async def watching(self, visibility: str, datasource: str) -> Viewer:
        """A viewer of a demo dashboard that has received data."""
        demo = self.stack["demo"][visibility]
        api = self.user("viewer") if visibility == "private" else self.anonymous()
        viewer = await self.viewer()
        ack = await viewer.subscribe(demo["dashboardId"], datasource, self.mint(api, demo, datasource))
        expect(ack["ok"], f"subscribe refused: {ack}")
        await viewer.until(lambda frame: frame["type"] == "data" and not frame.get("retained"))
        return viewer

    async def own(self, datasource: dict[str, Any], *, refused: bool = False) -> Viewer:
        """The editor's view of a dashboard with this one datasource, called `telemetry`."""
        demo, viewer = self.dashboard(datasource), await self.viewer()
        ack = await viewer.subscribe(demo["dashboardId"], "telemetry", self.mint(self.user("editor"), demo))
        expect(ack["ok"] is not refused, f"{ack}")
        if refused:
            expect(ack["errorCode"] == "STREAM_POLICY_BLOCKED", f"{ack}")
        return viewer

    async def refused(self, token: str, dashboard_id: str, datasource: str = "telemetry") -> dict[str, Any]:
        """The ack of a subscribe that must be refused."""
        viewer = await self.viewer()
        ack = await viewer.subscribe(dashboard_id, datasource, token)
        await viewer.close()
        expect(not ack["ok"], f"was accepted: {ack}")
        return ack

    # --- the stack itself ---------------------------------------------------------------------------------

    @property
    def upstreams(self) -> Mapping[str, str]:
        """Where the fake upstreams are, and the user name and secret they take."""
        addresses: Mapping[str, str] = self.stack["fake_upstreams"]
        return addresses

    def control(self, order: Mapping[str, Any] | None = None) -> Any:
        """The counters of the fake upstreams; with an order, a fault first. Faults end with the row."""
        self._faults = self._faults or order is not None
        data = json.dumps(order).encode() if order else None
        request = urllib.request.Request(self.upstreams["control_url"], data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    def config(self) -> Config:
        """Where the stack's AWS is, for `deployment.client`."""
        return Config(endpoint=self.stack["emulator_url"])

    def secret(self, variable: str) -> str:
        """The current value of one of the stack's `secrets`. It is read each time: a rotation may have changed it."""
        return deployment.secret(self.config(), self.stack["secrets"][variable])

    def environment(self) -> dict[str, str]:
        """What a function of the stack would see of tables and queue."""
        tables, queues = self.stack["tables"], self.stack["queues"]
        return {**self.config().aws_environment(), **tables, **queues, "TIDEGATE_ENV": "development"}

    # --- after a row --------------------------------------------------------------------------------------

    async def close_viewers(self) -> None:
        """Close what a row left open, which is what a row that failed does."""
        viewers, self._viewers = self._viewers, []
        await asyncio.gather(*(viewer.close() for viewer in viewers))

    def clean_up(self) -> None:
        """Delete what the row made, and end the faults it ordered. Raises `CheckFailed` for what cannot be deleted."""
        for collection in _COLLECTIONS:
            for api in self._signed_in.values():
                api.delete_what_was_made(collection)
        if self._faults:
            for name in self.control():
                self.control({"upstream": name, "fault": "none"})
            self._faults = False

    def close(self) -> None:
        self._open.close()


def _session(demo: Mapping[str, Any], datasource: str) -> dict[str, Any]:
    body = {"dashboardId": demo["dashboardId"], "datasourceId": datasource}
    return body | ({"shareToken": demo["shareToken"]} if "shareToken" in demo else {})
