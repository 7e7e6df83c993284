"""How soon an upstream is tried again whose credential cannot be opened, or could not be asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.doubles.platform import ManualClock, MemoryObserver
from tests.doubles.stores import MemoryLastValues
from tidegate.domain.profiles import CredentialProfile, CredentialType
from tidegate.domain.subscriptions import Stream
from tidegate.errors import SecretUnreadable, TidegateError, Unavailable
from tidegate.protocol.messages import ErrorCode
from tidegate.usecases.relay.reading import Readings
from tidegate.usecases.relay.upstream import Upstream
from tidegate.usecases.relay.upstream_requests import StoredUpstreamRequests

INTENT = {
    "protocol": "sse",
    "url": "https://up.example/",
    "authPlacement": "header",
    "credentialProfileId": "p",
    "credentialRevision": 1,
}
STREAM = Stream("stream", "sse", "json", None, None, last_requested_at=0, intent=INTENT)
DESTINATIONS = ("https://up.example:443",)
LEAST_MS, MOST_MS = 100, 10_000


class Profiles:
    def credential_and_secret(self, profile_id: str) -> tuple[CredentialProfile, str]:
        return CredentialProfile(profile_id, "p", CredentialType.BEARER, DESTINATIONS), "sealed"


class Cipher:
    def __init__(self, error: TidegateError) -> None:
        self._error = error

    def decrypt(self, profile_id: str, sealed: str) -> Mapping[str, str]:
        raise self._error


class Viewers:
    """In the place of a fan-out: what viewers are told."""

    def __init__(self) -> None:
        self.told: list[tuple[ErrorCode, str]] = []

    def notify(self, stream: Stream, code: ErrorCode, text: str, *, status: bool = False) -> None:
        self.told.append((code, text))


class Upstreams:
    def open(self, request: object, last_id: str) -> Any:
        raise AssertionError("there is nothing to connect to")


class Slept(BaseException):
    """The pause began: that is all the test waits for."""


@pytest.mark.parametrize(
    ("error", "told", "at_least_ms", "at_most_ms"),
    [
        (SecretUnreadable("x"), (ErrorCode.AUTH_FAILED, "The credential cannot be read"), MOST_MS // 2, MOST_MS),
        (Unavailable("x"), (ErrorCode.CONNECT_FAILED, "Upstream could not be prepared"), LEAST_MS, 2 * LEAST_MS),
    ],
    ids=["cannot be opened", "no answer"],
)
def test_the_pause_before_the_next_try(
    monkeypatch: pytest.MonkeyPatch,
    error: TidegateError,
    told: tuple[ErrorCode, str],
    at_least_ms: int,
    at_most_ms: int,
) -> None:
    parts: Any = Profiles(), Cipher(error), Viewers(), Upstreams()
    profiles, cipher, viewers, upstreams = parts
    requests = StoredUpstreamRequests(profiles=profiles, cipher=cipher)
    pauses: list[float] = []

    async def pause(_readings: Readings, seconds: float, *, refused: bool) -> None:
        pauses.append(seconds)
        raise Slept

    async def request() -> Any:
        return requests(STREAM)

    async def in_order(work: Callable[[], object]) -> object:
        return work()

    upstream = Upstream(
        STREAM,
        upstreams=upstreams,
        request=request,
        last_values=MemoryLastValues(),
        fan_out=viewers,
        in_order=in_order,
        note=lambda _connected, _fault: True,
        reconnect_ms=(LEAST_MS, MOST_MS),
        per_second=0,
        chance=lambda: 0.5,
        clock=ManualClock(),
        observer=MemoryObserver(),
    )
    monkeypatch.setattr(Readings, "pause", pause)
    with pytest.raises(BaseExceptionGroup) as ended:
        asyncio.run(upstream.run(standby=False))
    assert ended.group_contains(Slept)
    assert viewers.told == [told]
    assert at_least_ms <= pauses[0] * 1000 <= at_most_ms
