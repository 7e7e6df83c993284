"""The fake upstreams in this process, and small clients of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import aiomqtt

from fixtures.fake_upstreams.credentials import Credentials
from fixtures.fake_upstreams.server import Addresses, FakeUpstreams, Options

CREDENTIALS = Credentials("fixture", "s3cret-for-tests")
#: Nothing here takes longer, seconds.
WAIT_S = 10.0
FAST = {"rate": "200"}


@dataclass
class RunningUpstreams:
    """Running fake upstreams and an HTTP client."""

    at: Addresses
    http: aiohttp.ClientSession

    async def fault(self, upstream: str, fault: str, **more: object) -> dict[str, Any]:
        async with self.http.post(self.at.control_url, json={"upstream": upstream, "fault": fault, **more}) as answer:
            assert answer.status == 200, await answer.text()
            found: dict[str, Any] = await answer.json()
            return found

    async def report(self, upstream: str) -> dict[str, Any]:
        async with self.http.get(self.at.control_url) as answer:
            found: dict[str, dict[str, Any]] = await answer.json()
            return found[upstream]

    async def until(self, upstream: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The report that meets the condition."""
        while True:
            found = await self.report(upstream)
            if condition(found):
                return found
            await asyncio.sleep(0.005)

    @asynccontextmanager
    async def sse(
        self, query: Mapping[str, str] | None = None, *, last: int | None = None, path: str = "/stream"
    ) -> AsyncIterator[aiohttp.StreamReader]:
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        url = self.at.sse_url.replace("/stream", path)
        async with self.http.get(url, params=FAST if query is None else query, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "text/event-stream"
            yield answer.content

    async def sse_numbers(self, query: Mapping[str, str], last: int | None = None) -> list[int]:
        """The numbers of a stream that ends."""
        async with self.sse(query, last=last) as stream:
            return [number for number, _ in parse(await stream.read())]

    def client(
        self, name: str | None = None, password: str | None = None, *, tls: bool = False, identifier: str | None = None
    ) -> aiomqtt.Client:
        address = urlsplit(self.at.mqtts_url if tls else self.at.mqtt_url)
        return aiomqtt.Client(
            str(address.hostname),
            int(address.port or 0),
            username=name,
            password=password,
            identifier=identifier,
            tls_params=aiomqtt.TLSParameters(ca_certs=self.at.ca) if tls else None,
            timeout=WAIT_S,
        )


def parse(raw: bytes) -> list[tuple[int, bytes]]:
    """Event ids and data of an SSE body, comments left out."""
    blocks = [block.split(b"\n") for block in raw.split(b"\n\n") if block and not block.startswith(b":")]
    return [(int(first.removeprefix(b"id: ")), data.removeprefix(b"data: ")) for first, data in blocks]


async def one_event(stream: aiohttp.StreamReader) -> tuple[int, Any]:
    """The next event's id and its data, read as JSON."""
    raw = await stream.readuntil(b"\n\n")
    while raw.startswith(b":"):
        raw = await stream.readuntil(b"\n\n")
    ((number, data),) = parse(raw)
    return number, json.loads(data)


def run(
    folder: Path, test: Callable[[RunningUpstreams], Awaitable[None]], *, interval: float = 0.01, **options: Any
) -> None:
    """Run a test in fresh fake upstreams; MQTT topics are published every `interval` seconds. `options`: `Options`."""

    async def whole() -> None:
        upstreams = FakeUpstreams(Options(CREDENTIALS, folder, interval=interval, **options))
        async with asyncio.timeout(WAIT_S), upstreams as addresses, aiohttp.ClientSession() as http:
            await test(RunningUpstreams(addresses, http))

    asyncio.run(whole())
