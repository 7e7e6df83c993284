"""What a right is taken away from: a dashboard of its own, watched by a guest and by its owner."""

from __future__ import annotations

import time
from typing import Any

from local_stack.seed import OWN, mqtt
from local_stack.smoke.client import Smoke


class Scene:
    """A dashboard of its own with a broker profile of its own, watched by a guest and by its owner."""

    def __init__(self, smoke: Smoke, visibility: str) -> None:
        self.smoke = smoke
        self.admin, self.owner = smoke.user("admin"), smoke.user("editor")
        self.broker_body = {"name": f"scene {time.time_ns()}", "transport": "iot-core", "allowPublicUse": True}
        self.broker_body["topicAllowlist"] = [f"{OWN}/#"]
        self.broker_id = self.admin.call("POST", "/api/broker-profiles", self.broker_body)["id"]
        self.topic = f"{OWN}/scene/{time.time_ns()}"
        self.demo = smoke.dashboard(mqtt("telemetry", self.broker_id, self.topic), visibility)

    def change(self, method: str, what: str, body: dict[str, Any] | None = None) -> Any:
        """Ask for a part of the dashboard, or for the whole with an empty `what`."""
        path = f"/api/dashboards/{self.demo['dashboardId']}"
        return self.owner.call(method, f"{path}/{what}" if what else path, body)

    def share_with_viewer(self) -> str:
        """Give the demo's viewer the right to see it; returns the viewer's id."""
        email = self.smoke.stack["users"]["viewer"]["email"]
        self.change("PUT", "acl", {"email": email, "level": "viewer"})
        return str(self.smoke.user("viewer").call("GET", "/api/users/me")["id"])
