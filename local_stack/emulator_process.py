"""Runs the emulator, with its MQTT port as strict as AWS IoT Core's, and its SQS as AWS authorizes it.

By itself the emulator listens for MQTT on every interface, and lets a client without a certificate publish anything.
Here it listens where `BIND_HOST` says, and ends a TLS handshake that brings no certificate. It wants a right of its own
for `SendMessageBatch`, which AWS does not know.

This file runs in the emulator's own virtual environment. It imports nothing of the project.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from typing import Any

from ministack.app import main
from ministack.core import iam_actions
from ministack.services import iot


def require_certificates() -> None:
    """Refuse MQTT clients without a certificate. Raises `AttributeError` for an emulator that this does not fit."""
    build = iot._mtls_build_ssl_context

    def strict() -> ssl.SSLContext:
        context: ssl.SSLContext = build()
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    iot._mtls_build_ssl_context = strict


def authorize_batches_as_single_calls() -> None:
    """Authorize a batch by the right to the single call. Source: Service Authorization Reference, Amazon SQS."""
    action_of = iam_actions.extract_iam_action

    def of_one(service: str, *request: Any) -> str | None:
        action: str | None = action_of(service, *request)
        return action.removesuffix("Batch") if service == "sqs" and action else action

    iam_actions.extract_iam_action = of_one


def listen_on(host: str) -> None:
    """Listen on `host` wherever the emulator would listen on every interface."""
    listen = asyncio.BaseEventLoop.create_server

    async def narrow(loop: asyncio.BaseEventLoop, factory: Any, *args: Any, **options: Any) -> Any:
        if options.get("host") == "0.0.0.0":  # noqa: S104
            options["host"] = host
        return await listen(loop, factory, *args, **options)

    asyncio.BaseEventLoop.create_server = narrow  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    require_certificates()
    authorize_batches_as_single_calls()
    listen_on(os.environ["BIND_HOST"])
    sys.exit(main())
