"""Handles `subscribe`, `unsubscribe`, `ping` and `$default`.

Answers are sent through the management API only. The object that the handler returns has no body: the platform would
need a route response to send it.
"""

from __future__ import annotations

from typing import Any

from functions.gateway_connect.events import context_of
from functions.gateway_connect.wiring import MessageServices, message_services
from tidegate.providers.process import Handler, lambda_handler


def make_handler(services: MessageServices) -> Handler:
    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        try:
            context = context_of(event, "MESSAGE")
            services.handle_message(context["connectionId"], event.get("body") or "")
            services.observer.info("message", route=context.get("routeKey"), connection_id=context["connectionId"])
        finally:
            services.observer.flush()
        return {"statusCode": 200}

    return handle


handler = lambda_handler(make_handler, message_services)
