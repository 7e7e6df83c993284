"""Asking the API: for a session token, for a history, and whether a connect or a subscribe would be refused.

HTTP is the standard library's, in a thread: it is a call every few minutes.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from tidegate_client.errors import Refused

#: How long one call may take, seconds. The API itself gives up before 30 seconds.
_CALL_S = 30.0
#: Too many requests. As a status of 500 or more it says nothing about whether one may.
_LIMITED = 429


@dataclass(frozen=True, slots=True)
class Source:
    """Where a dashboard is, and who watches it.

    Attributes:
        url: the origin of the edge, such as `https://live.example.com`.
        share_token: of a viewer by link.
        login: returns the login token of a member; it is asked at each call.
    """

    url: str
    dashboard_id: str
    share_token: str | None = None
    login: Callable[[], str] | None = None

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError(f"url is {self.url!r}: it must begin with http:// or https://")

    @property
    def origin(self) -> str:
        """Of the edge, as a page of it would send it."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, slots=True)
class Session:
    """A session token for all datasources of a dashboard. Times are by the server's clock."""

    token: str
    expires_at: datetime
    refresh_after: datetime
    server_time: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the server would say now: `allowed`, or why not. Times are seconds."""

    allowed: bool
    code: str = ""
    message: str = ""
    retryable: bool = True
    retry_after: float = 0.0


async def mint(source: Source, current_token: str | None = None) -> Session:
    """A new session token. `current_token`: the one before, so that it is the same viewer. Raises `Refused`."""
    body = {"shareToken": source.share_token, "currentToken": current_token}
    given = {name: value for name, value in body.items() if value is not None}
    login = source.login() if source.login else None
    answer = await _call(source, "POST", f"/api/dashboards/{quote(source.dashboard_id, safe='')}/session", given, login)
    times = [datetime.fromisoformat(answer[name]) for name in ("expiresAt", "refreshAfter", "serverTime")]
    return Session(answer["token"], *times)


async def read_history(
    source: Source, token: str, datasource_id: str, topic: str | None = None
) -> list[Mapping[str, Any]]:
    """The newest points of a history, at most 2,000, the newest first. Raises `Refused`."""
    query = urlencode({"datasourceId": datasource_id} | ({} if topic is None else {"topic": topic}))
    path = f"/api/dashboards/{quote(source.dashboard_id, safe='')}/history?{query}"
    points: list[Mapping[str, Any]] = (await _call(source, "GET", path, None, token))["points"]
    return points


async def would_refuse(source: Source, token: str | None = None) -> Verdict:
    """Whether a connect, and with a session token a subscribe, would be refused now. Raises `Refused`."""
    query = "?" + urlencode({"dashboardId": source.dashboard_id}) if token else ""
    answer = await _call(source, "GET", f"/api/realtime{query}", None, token)
    said = answer["subscribe" if token else "connect"]
    if said is None or said["state"] == "allowed":
        return Verdict(allowed=True)
    retryable = said["retryable"] is not False
    return Verdict(False, said["errorCode"], said["message"], retryable, (said["retryAfterMs"] or 0) / 1000)


async def _call(
    source: Source, method: str, path: str, body: Mapping[str, object] | None, token: str | None
) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Origin": source.origin} | (
        {"Authorization": f"Bearer {token}"} if token else {}
    )
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(source.url.rstrip("/") + path, data, headers, method=method)
    return await asyncio.to_thread(_send, request)


def _send(request: urllib.request.Request) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(request, timeout=_CALL_S) as answer:
            read: dict[str, Any] = json.load(answer)
            return read
    except urllib.error.HTTPError as error:
        raise _refusal(error) from None
    except (OSError, HTTPException, ValueError):
        raise Refused("network", "The server could not be reached", retryable=True) from None


def _refusal(answer: urllib.error.HTTPError) -> Refused:
    retryable = answer.code >= 500 or answer.code == _LIMITED
    try:
        with answer:
            said = json.load(answer)
        fault = said.get("error", said)
        after = (fault.get("retryAfterMs") or 0) / 1000
        return Refused(fault.get("code", "refused"), fault["message"], retryable=retryable, retry_after=after)
    except (OSError, HTTPException, ValueError, AttributeError, KeyError, TypeError):
        # Not of the API: a proxy's page, or half an answer. That decides nothing.
        return Refused("network", f"The server answered {answer.code}", retryable=True)
