"""The API's Lambda handler."""

from __future__ import annotations

import logging
from typing import Any

from mangum import Mangum

from functions.api.app import create_app
from functions.api.wiring import ApiServices, api_services
from tidegate.providers.process import Handler, lambda_handler

# It logs the path of every request, and a path may hold a share token.
logging.getLogger("mangum.http").setLevel(logging.WARNING)


def make_handler(services: ApiServices) -> Handler:
    mangum = Mangum(create_app(services), lifespan="off")

    def handle(event: dict[str, Any], context: Any) -> Any:
        try:
            return mangum(event, context)
        finally:
            services.observer.flush()

    return handle


handler = lambda_handler(make_handler, api_services)
