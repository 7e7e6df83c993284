"""Handles `$connect`. It is the only event with headers, so the client's address and origin are found out here."""

from __future__ import annotations

from typing import Any

from functions.gateway_connect.events import context_of, header_values
from functions.gateway_connect.wiring import ConnectServices, connect_services
from tidegate.domain.client_ip import ORIGIN_HEADER, client_ip, ip_key
from tidegate.errors import Denied, TidegateError
from tidegate.providers.process import Handler, lambda_handler
from tidegate.usecases.gateway.connect import Handshake


def make_handler(services: ConnectServices) -> Handler:
    def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        try:
            _refuse_around_the_edge(event, services)
            services.connect(_handshake(event, services))
            return {"statusCode": 200}
        except TidegateError as error:
            services.observer.count("handshakes_refused", code=error.code)
            services.observer.info("handshake refused", code=error.code)
            return {"statusCode": error.status}
        except Exception as error:  # the browser gets a 503 and no details
            services.observer.count("faults")
            services.observer.fault("handshake failed", error)
            return {"statusCode": 503}
        finally:
            services.observer.flush()

    return handle


def _refuse_around_the_edge(event: dict[str, Any], services: ConnectServices) -> None:
    """Raises `Denied`, and `Unavailable` when the origin's secret cannot be read."""
    given = next(iter(header_values(event, ORIGIN_HEADER)), "")
    if services.origin is not None and not services.origin.accepts(given):
        raise Denied("Use the public address", code="not_through_edge")


def _handshake(event: dict[str, Any], services: ConnectServices) -> Handshake:
    context = context_of(event, "CONNECT")
    source = (context.get("identity") or {}).get("sourceIp")
    client = client_ip(source, header_values(event, "x-forwarded-for"), services.trust_proxy_hops)
    if client.warning:
        services.observer.count("addresses_not_derived")
        services.observer.warning("client address not derived", reason=client.warning)
    query: dict[str, str] = event.get("queryStringParameters") or {}
    return Handshake(
        connection_id=context["connectionId"],
        ip_key=ip_key(client.address),
        origin=next(iter(header_values(event, "origin")), None),
        batch=query.get("batch") == "1",
    )


handler = lambda_handler(make_handler, connect_services)
