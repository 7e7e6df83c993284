"""The machine's clock and randomness."""

from __future__ import annotations

import secrets
import time

from tidegate.ports.runtime import Clock, Ids


class SystemClock(Clock):
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class SystemIds(Ids):
    """The machine's random numbers."""

    def new_id(self) -> str:
        return secrets.token_urlsafe(16)[:21]

    def new_uuid(self) -> str:
        from uuid import uuid4  # imports `platform`: 2 ms that the gateway's cold start does not need

        return str(uuid4())

    def new_share_token(self) -> str:
        return secrets.token_urlsafe(24)
