"""A request through the edge, as anybody may make it, and whom the limits counted it for.

The request is `GET /api/realtime`, which needs no login and is counted by address. It writes an address of its own into
`X-Forwarded-For`. The table of limits then says which address was derived.
"""

from __future__ import annotations

import http.client
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from infra.stage import Stage
from ops.answers import Answer
from ops.doctor_checks import Probed
from tidegate.domain.client_ip import ip_key, normalise
from tidegate.domain.limits import REALTIME_ASKED_SCOPE, WINDOW_MS, FailureMode
from tidegate.errors import TidegateError
from tidegate.providers.limits import LimitProviders

#: Which address a request comes from, of AWS's own: <https://checkip.amazonaws.com> answers with it, and nothing else.
WHO_AM_I = "https://checkip.amazonaws.com/"
#: Seconds.
_PATIENCE_S = 15.0
#: So many entries are made up: as many as hops may be trusted.
_ENTRIES = 16


class Probe:
    """Requests to a stage."""

    def __init__(self, stage: Stage, address: str | None, environment: Callable[[], Mapping[str, str]]) -> None:
        """
        Args:
            address: of whoever asks, as the edge sees it; None to ask AWS for it.
            environment: what the function of the API sees of its table of limits, and of their salt.
        """
        self._stage = stage
        self._address = address
        self._environment = environment

    def status(self, base_url: str) -> Answer:
        """The status of an answer to a request that needs no login."""
        return _asked(lambda: get(f"{base_url}/api/realtime")[0])

    def counted(self, base_url: str) -> Answer:
        """A `Probed`."""
        if self._stage.settings.limiter_backend == "memory":
            return Answer(code="NoTable", message="limits are counted in memory, where nobody sees whose they are")
        return _asked(lambda: self._counted(base_url))

    def _counted(self, base_url: str) -> Probed:
        address = self._address or normalise(get(WHO_AM_I)[1])
        if address is None:
            raise _Failed(f"{WHO_AM_I} answers with no address; give yours with OPTIONS=--address=…")
        counts = _Counts(LimitProviders(self._environment()))
        # Nobody has an address of this network (RFC 3849), and it is another one each time.
        forged = f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}::1"
        began = counts.now_ms()
        before = counts.of(address, began, began)
        status, _ = get(f"{base_url}/api/realtime", {"X-Forwarded-For": ", ".join([forged] * _ENTRIES)})
        if status != 200:
            raise _Failed(f"{base_url}/api/realtime answers with {status}, and not with 200")
        ended = counts.now_ms()
        return Probed(address, counts.of(address, began, ended) - before, counts.of(forged, began, ended))


class _Failed(Exception):
    """What went otherwise than it should, in a sentence without a full stop."""


class _Counts:
    """What the table of limits has counted."""

    def __init__(self, providers: LimitProviders) -> None:
        self._rates = providers.rates(FailureMode.CLOSED)
        self._store = providers.rate_store
        self._clock = providers.clock

    def now_ms(self) -> int:
        return int(self._clock.now() * 1000)

    def of(self, address: str, began_ms: int, ended_ms: int) -> int:
        """Calls of an address, in the windows of these moments."""
        key = self._rates.key(REALTIME_ASKED_SCOPE, ip_key(address))
        moments = {moment // WINDOW_MS: moment for moment in (began_ms, ended_ms)}
        deadline = time.monotonic() + _PATIENCE_S
        return sum(self._store.spent(key, moment, WINDOW_MS, deadline) for moment in moments.values())


def get(url: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Status and text of an answer. It is asked for over IPv4, so that all see the same address of ours.

    Raises `OSError` and `http.client.HTTPException`.
    """
    parts = urlsplit(url)
    made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    any_of_ours = ("0.0.0.0", 0)  # noqa: S104  # it is where calls leave from; nothing listens there
    connection = made(parts.netloc, timeout=_PATIENCE_S, source_address=any_of_ours)
    try:
        connection.request("GET", parts.path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read(65_536).decode("utf-8", "replace").strip()
    finally:
        connection.close()


def _asked(call: Callable[[], Any]) -> Answer:
    """As `ops.answers.ask`, of what is not asked with boto3."""
    try:
        return Answer(call())
    except TidegateError as error:
        denied = "dynamodb:GetItem and secretsmanager:GetSecretValue" if "denied" in error.code else ""
        return Answer(code=error.code, message=error.message, denied=denied)
    except _Failed as failed:
        return Answer(code="NotAnswered", message=str(failed))
    except (OSError, http.client.HTTPException) as error:
        return Answer(code=type(error).__name__, message=str(error))
