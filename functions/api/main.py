"""The API's Lambda handler."""

from __future__ import annotations

from typing import Any

from mangum import Mangum

from functions.api.app import create_app
from functions.api.wiring import ApiServices, api_services
from tidegate.providers.process import Handler, lambda_handler


def make_handler(services: ApiServices) -> Handler:
    mangum = Mangum(create_app(services), lifespan="off")

    def handle(event: dict[str, Any], context: Any) -> Any:
        try:
            return mangum(event, context)
        finally:
            services.observer.flush()

    return handle


handler = lambda_handler(make_handler, api_services)
