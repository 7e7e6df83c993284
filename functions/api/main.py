"""The API's Lambda handler."""

from __future__ import annotations

from typing import Any

from mangum import Mangum

from functions.api.app import create_app
from tidegate import bootstrap, bootstrap_api
from tidegate.bootstrap import Handler
from tidegate.bootstrap_api import ApiServices


def make_handler(services: ApiServices) -> Handler:
    mangum = Mangum(create_app(services), lifespan="off")

    def handle(event: dict[str, Any], context: Any) -> Any:
        try:
            return mangum(event, context)
        finally:
            services.observer.flush()

    return handle


handler = bootstrap.lazily(make_handler, bootstrap_api.api_services)
