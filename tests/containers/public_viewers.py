"""A link dashboard, and public viewers who mint, connect, subscribe and refresh, over the real use cases.

The limits are those of given settings. The clock stands until a test moves it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from functions.api.wiring import mint_policy
from tests.containers.gateway import DASHBOARD, GatewayContainer
from tidegate.domain.subscriptions import SubscriptionKey
from tidegate.providers.limits import connect_policy, subscribe_policy
from tidegate.settings import Settings, load
from tidegate.usecases.control_plane.mint import Mint, MintRequest
from tidegate.usecases.gateway.connect import Handshake

LINK = "the-link"
#: How long before the end of a token a page gets a new one, seconds.
LEAD_S = 60


def default_settings() -> Settings:
    return load({"TIDEGATE_ENV": "test"})


@dataclass
class Viewer:
    """A page that shows datasources. `tokens`: what it holds of each."""

    name: str
    address: str
    tokens: dict[str, str] = field(default_factory=dict)


class PublicViewers:
    """The API and the gateway, with one dashboard of `datasources`."""

    def __init__(self, datasources: int, settings: Settings | None = None, audit: Any = None) -> None:
        self.settings = settings or default_settings()
        self.gateway = GatewayContainer(
            connect_policy=connect_policy(self.settings)._replace(enabled=True),
            subscribe_policy=subscribe_policy(self.settings),
        )
        self.clock = self.gateway.clock
        self.datasources = [f"source-{number}" for number in range(datasources)]
        for datasource_id in self.datasources:
            self.gateway.add_datasource(datasource_id, "a/b")
        self.mint = Mint(
            policy=mint_policy(self.settings),
            dashboards=SimpleNamespace(get=self._dashboard),
            access=self.gateway.access,
            profiles=self.gateway.profiles,  # type: ignore[arg-type]
            tokens=self.gateway.tokens,
            rates=self.gateway.rates,
            audit=audit or SimpleNamespace(record=lambda _event: None),
            clock=self.clock,
            ids=self.gateway.ids,
        )

    def _dashboard(self, dashboard_id: str) -> Any:
        return SimpleNamespace(share_token=LINK) if dashboard_id == DASHBOARD else None

    def request(self, address: str, datasource_id: str, current: str | None = None, link: str = LINK) -> MintRequest:
        return MintRequest(None, address, DASHBOARD, datasource_id, link, current)

    def token(self, viewer: Viewer, datasource_id: str) -> str:
        """A token for this datasource, with one that the viewer holds already, as the protocol says."""
        held = viewer.tokens.get(datasource_id) or next(iter(viewer.tokens.values()), None)
        viewer.tokens[datasource_id] = self.mint(self.request(viewer.address, datasource_id, held)).token
        return viewer.tokens[datasource_id]

    def subscribe(self, viewer: Viewer, datasource_id: str) -> dict[str, Any]:
        """Returns the ack."""
        message = {
            "type": "subscribe",
            "requestId": "r",
            "dashboardId": DASHBOARD,
            "datasourceId": datasource_id,
            "sessionToken": viewer.tokens[datasource_id],
        }
        sent = self.gateway.sender.sent.setdefault(viewer.name, [])
        sent.clear()
        self.gateway.handle(viewer.name, json.dumps(message))
        return next(frame for frame in sent if frame["type"] == "ack")

    def connect(self, viewer: Viewer) -> None:
        self.gateway.connect(Handshake(viewer.name, viewer.address, None, False))

    def watch(self, viewer: Viewer) -> None:
        """Mint and subscribe each datasource: new, or as a refresh."""
        for datasource_id in self.datasources:
            self.token(viewer, datasource_id)
            ack = self.subscribe(viewer, datasource_id)
            assert ack["ok"], ack

    def alive(self, viewers: list[Viewer]) -> int:
        """How many subscriptions of these viewers are live, and not expired."""
        rows, now = self.gateway.subscriptions.rows, self.clock.now()
        keys = (SubscriptionKey(DASHBOARD, viewer.name, name) for viewer in viewers for name in self.datasources)
        return sum(1 for key in keys if key in rows and rows[key].live and rows[key].claim.expires_at > now)

    def minutes_of_refresh(self, seconds: int) -> Iterator[int]:
        """Moves the clock from one refresh to the next, for so many seconds, and then to their end."""
        step, passed = self.settings.datasource_session_ttl_seconds - LEAD_S, 0
        while passed + step <= seconds:
            self.clock.advance(step)
            passed += step
            yield passed
        self.clock.advance(seconds - passed)
