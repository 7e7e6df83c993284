"""Handles `$disconnect`. The platform sends it at best effort: it may be missing. A repetition is harmless."""

from __future__ import annotations

from typing import Any

from functions.gateway_connect.events import context_of
from functions.gateway_connect.wiring import DisconnectServices, disconnect_services
from tidegate.providers.process import Handler, lambda_handler


def make_handler(services: DisconnectServices) -> Handler:
    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        try:
            connection_id = context_of(event, "DISCONNECT")["connectionId"]
            ended = services.end_connection.disconnected(connection_id)
            services.observer.info("disconnected", connection_id=connection_id, known=ended)
        finally:
            services.observer.flush()
        return {"statusCode": 200}

    return handle


handler = lambda_handler(make_handler, disconnect_services)
