"""Connections to the outside against real servers on loopback, with faults; and against a resolver that lies."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.servers.numbers import SOURCES, make_app, message
from tests.settling import run_within
from tidegate.adapters.upstreams.aiohttp_streams import AiohttpUpstreams
from tidegate.adapters.upstreams.resolving import Resolve, resolve
from tidegate.domain.credentials import placement_of
from tidegate.domain.destinations import check_destinations
from tidegate.domain.egress import EgressPolicy
from tidegate.domain.profiles import CredentialProfile, CredentialType
from tidegate.errors import PolicyBlocked
from tidegate.ports.relay import (
    Opened,
    Oversize,
    RetryAfter,
    UpstreamEvent,
    UpstreamFault,
    UpstreamMessage,
    UpstreamRequest,
)
from tidegate.protocol.messages import ErrorCode

SECRET = "s3cret-of-the-sources"
TARGET: web.AppKey[str] = web.AppKey("target")


@asynccontextmanager
async def sources(app: web.Application | None = None) -> AsyncIterator[tuple[int, web.Application]]:
    """(port, app) while it serves."""
    app = app or make_app(SECRET)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1], app
    finally:
        await runner.cleanup()


@asynccontextmanager
async def upstreams(port: int, *, resolver: Resolve = resolve, private: bool = True) -> AsyncIterator[AiohttpUpstreams]:
    policy = EgressPolicy((), (port,), allow_private=private, production=False)
    made = AiohttpUpstreams(policy, connect_timeout_s=2, ping_interval_s=5, max_bytes=50_000, resolve=resolver)
    try:
        yield made
    finally:
        await made.close()


def request(url: str, protocol: str = "sse", **options: Any) -> UpstreamRequest:
    return UpstreamRequest(protocol, url, options.pop("headers", {}), **options)


async def take(made: AiohttpUpstreams, asked: UpstreamRequest, count: int, last_id: str = "") -> list[UpstreamEvent]:
    """The first events; raises what ends it before."""
    found: list[UpstreamEvent] = []
    async for event in made.open(asked, last_id):
        found.append(event)
        if len(found) == count:
            break
    return found


async def fault_of(made: AiohttpUpstreams, asked: UpstreamRequest) -> UpstreamFault:
    with pytest.raises(UpstreamFault) as fault:
        async with asyncio.timeout(10):
            await take(made, asked, 10_000)
    return fault.value


def run(work: Callable[[], Awaitable[None]]) -> None:
    run_within(30, work)


def test_server_sent_events_and_where_they_go_on() -> None:
    async def work() -> None:
        async with sources() as (port, _), upstreams(port) as made:
            url = f"http://127.0.0.1:{port}/stream?rate=500&from=1"
            found = await take(made, request(url), 5)
            assert found[:2] == [Opened(), RetryAfter(200)]
            assert found[2:] == [UpstreamMessage(message(n).encode(), str(n)) for n in (1, 2, 3)]
            found = await take(made, request(f"{url[:-6]}from=10"), 4, last_id="7")
            assert [event.message_id for event in found if isinstance(event, UpstreamMessage)] == ["8", "9"]

    run(work)


def test_websockets() -> None:
    async def work() -> None:
        async with sources() as (port, _), upstreams(port) as made:
            url = f"ws://127.0.0.1:{port}/ws?rate=500&from=1"
            found = await take(made, request(url, "websocket", protocols=("numbers",)), 3)
            assert found == [Opened(), UpstreamMessage(message(1).encode()), UpstreamMessage(message(2).encode())]

    run(work)


@pytest.mark.parametrize("protocol", ["sse", "websocket"])
def test_faults_have_their_codes(protocol: str) -> None:
    async def work() -> None:
        async with sources() as (port, app), upstreams(port) as made:
            scheme, path = ("http", "stream") if protocol == "sse" else ("ws", "ws")
            base = f"{scheme}://127.0.0.1:{port}"
            secret = path.replace("stream", "protected").replace("ws", "ws-protected")
            wrong = await fault_of(made, request(f"{base}/{secret}", protocol, headers={"Authorization": "Bearer no"}))
            assert (wrong.code, wrong.refused) == (ErrorCode.AUTH_FAILED, True)
            missing = await fault_of(made, request(f"{base}/nowhere", protocol))
            assert (missing.code, missing.refused) == (ErrorCode.CONNECT_REFUSED, True)
            app[SOURCES].set_fault("refuse", 60)
            down = await fault_of(made, request(f"{base}/{path}", protocol))
            assert (down.code, down.refused) == (ErrorCode.CONNECT_REFUSED, False)
            app[SOURCES].set_fault("stall", 60)
            silent = await fault_of(made, request(f"{base}/{path}", protocol, idle_timeout_s=0.3))
            assert silent.code is ErrorCode.IDLE_TIMEOUT
            app[SOURCES].set_fault("none", 0)
            before = app[SOURCES].ever[f"/{path}"]
            asked = asyncio.create_task(fault_of(made, request(f"{base}/{path}", protocol)))
            while app[SOURCES].ever[f"/{path}"] == before:
                await asyncio.sleep(0.01)
            app[SOURCES].set_fault("drop", 0)
            assert (await asked).code is ErrorCode.CONNECT_FAILED
        async with upstreams(port) as made:
            gone = await fault_of(made, request(f"{base}/{path}", protocol))
            assert gone.code is ErrorCode.CONNECT_FAILED and str(port) not in gone.text

    run(work)


def test_what_is_too_large_is_told_and_an_event_stream_goes_on() -> None:
    async def work() -> None:
        async with sources() as (port, app), upstreams(port) as made:
            app[SOURCES].set_fault("oversize", 60)
            found = await take(made, request(f"http://127.0.0.1:{port}/stream?rate=100"), 4)
            assert found[2:] == [Oversize(), Oversize()]
            found = []
            with pytest.raises(UpstreamFault):
                async for event in made.open(request(f"ws://127.0.0.1:{port}/ws?rate=100", "websocket"), ""):
                    found.append(event)
            assert found == [Opened(), Oversize()]

    run(work)


def test_a_connect_that_hangs() -> None:
    async def work() -> None:
        async def hang(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
            await asyncio.sleep(60)

        server = await asyncio.start_server(hang, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with upstreams(port) as made:
            for url, protocol in ((f"http://127.0.0.1:{port}/", "sse"), (f"ws://127.0.0.1:{port}/", "websocket")):
                assert (await fault_of(made, request(url, protocol))).code is ErrorCode.CONNECT_TIMEOUT
        server.close()

    run(work)


# --- egress ------------------------------------------------------------------------------------------------


class Trap:
    """A server nobody may connect to: it counts who did."""

    def __init__(self) -> None:
        self.connections = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            writer.close()

        server = await asyncio.start_server(count, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


@pytest.mark.parametrize("protocol", ["sse", "websocket"])
def test_a_name_that_turns_out_to_be_inside_is_not_connected_to(protocol: str) -> None:
    """Also one of several addresses, and one that was outside when it was asked before."""

    async def work() -> None:
        trap, answers = Trap(), [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], []]

        async def lying(_host: str, _port: int) -> list[str]:
            return answers.pop(0)

        async with trap.open() as port, upstreams(port, resolver=lying, private=False) as made:
            scheme = "http" if protocol == "sse" else "ws"
            while answers:
                fault = await fault_of(made, request(f"{scheme}://rebinding.example.com:{port}/", protocol))
                assert (fault.code, fault.refused) == (ErrorCode.POLICY_BLOCKED, True)
        assert trap.connections == 0

    run(work)


def test_the_address_checked_is_the_address_connected_to() -> None:
    """One question to the resolver a connect; the host's own name is what the server sees."""

    async def work() -> None:
        asked: list[str] = []

        async def here(host: str, _port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"]

        seen: list[str] = []

        async def handle(asking: web.Request) -> web.Response:
            seen.append(asking.host)
            raise web.HTTPNotFound

        app = web.Application()
        app.router.add_get("/", handle)
        async with sources(app) as (port, _), upstreams(port, resolver=here) as made:
            for _ in range(3):
                await fault_of(made, request(f"http://source.example.com:{port}/"))
        assert asked == ["source.example.com"] * 3, "asked again at every reconnect"
        assert seen == [f"source.example.com:{port}"] * 3

    run(work)


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "fd00:ec2::254", "::ffff:169.254.169.254", "here"])
def test_where_nothing_may_connect_no_socket_is_made(address: str) -> None:
    """The last check asks what the first one asks, also where private addresses are allowed."""

    async def work() -> None:
        async with upstreams(80, private=True) as made:
            with pytest.raises(PolicyBlocked):
                made._checked_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 80)))

    run(work)


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://localhost:{port}/stream",
        "http://2130706433:{port}/stream",
        "file:///etc/passwd",
        "//127.0.0.1:1/",
    ],
)
def test_redirects_are_checked_like_the_first_url(target: str) -> None:
    async def work() -> None:
        trap = Trap()
        async with trap.open() as trapped:
            public = "public.example.com"

            async def elsewhere(host: str, _port: int) -> list[str]:
                return ["127.0.0.1"] if host == public else ["10.0.0.1"]

            async with sources() as (port, _):
                # Private addresses are allowed so that the first hop can be this machine; ports are not.
                policy = EgressPolicy((public,), (port,), allow_private=True, production=False)
                made = AiohttpUpstreams(policy, connect_timeout_s=2, ping_interval_s=5, max_bytes=1, resolve=elsewhere)
                url = f"http://{public}:{port}/redirect?to={target.format(port=trapped)}"
                fault = await fault_of(made, request(url))
                await made.close()
        assert fault.code is ErrorCode.POLICY_BLOCKED and trap.connections == 0

    run(work)


def test_a_credential_does_not_follow_to_another_origin() -> None:
    async def work() -> None:
        seen: list[dict[str, str]] = []

        async def handle(asking: web.Request) -> web.Response:
            seen.append(dict(asking.headers))
            raise web.HTTPNotFound

        app = web.Application()
        app.router.add_get("/", handle)

        async def here(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        async with sources(app) as (other, _), sources() as (port, _):
            policy = EgressPolicy((), (port, other), allow_private=True, production=False)
            made = AiohttpUpstreams(policy, connect_timeout_s=2, ping_interval_s=5, max_bytes=1, resolve=here)
            url = f"http://a.example.com:{port}/redirect?to=http://b.example.com:{other}/"
            await fault_of(made, request(url, headers={"Authorization": f"Bearer {SECRET}", "X-Key": SECRET}))
            await made.close()
        assert len(seen) == 1 and SECRET not in str(seen)

    run(work)


WHERE = ["same", "covered", "other host", "other port"]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("how", ["header", "query", "basic"])
@pytest.mark.parametrize("repeats", [False, True], ids=["plain", "repeats the query"])
def test_a_redirected_credential_goes_where_its_destinations_allow(where: str, how: str, repeats: bool) -> None:
    """`repeats`: the source puts the query that it was asked with, secret included, into the `Location`."""

    async def work() -> None:
        seen: list[web.Request] = []

        async def end(asking: web.Request) -> web.Response:
            seen.append(asking)
            raise web.HTTPNotFound

        async def start(asking: web.Request) -> web.Response:
            further = asking.app[TARGET] + (f"?{asking.query_string}" if repeats else "")
            return web.Response(status=307, headers={"Location": further})

        def served() -> web.Application:
            app = web.Application()
            app.router.add_get("/start", start)
            app.router.add_get("/end", end)
            return app

        async def here(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        one, two = served(), served()
        async with sources(one) as (port, _), sources(two) as (other, _):
            host = {"covered": "b.example.com", "other host": "b.example.com.evil.net"}.get(where, "a.example.com")
            to = other if where == "other port" else port
            one[TARGET] = f"http://{host}:{to}/end"
            policy = EgressPolicy((), (port, other), allow_private=True, production=False)
            made = AiohttpUpstreams(policy, connect_timeout_s=2, ping_interval_s=5, max_bytes=1, resolve=here)
            kind = CredentialType.BASIC if how == "basic" else CredentialType.BEARER
            home = check_destinations([f"http://a.example.com:{port}", f"http://b.example.com:{port}"], policy)
            profile = CredentialProfile("p", "p", kind, home)
            secret = {"username": "u", "password": SECRET} if how == "basic" else {"token": SECRET}
            credential = placement_of(profile, secret, how, "key")
            url = f"http://a.example.com:{port}/start?a=1"
            await fault_of(made, request(url, headers={"X-Further": "f"}, credential=credential))
            await made.close()
        (arrived,) = seen
        shown = f"{arrived.raw_path} {dict(arrived.headers)}"
        assert "Referer" not in arrived.headers and (arrived.query.get("a") == "1") is repeats
        if where in ("same", "covered"):
            assert arrived.query.getall("key", []) == ([SECRET] if how == "query" else [])
            assert ("Authorization" in arrived.headers) is (how != "query")
        else:
            encoded = base64.b64encode(f"u:{SECRET}".encode()).decode()
            assert SECRET not in shown and encoded not in shown and "Authorization" not in shown
        assert ("X-Further" in arrived.headers) is (where == "same")

    run(work)


def test_a_location_that_hides_the_secret_is_not_followed() -> None:
    async def work() -> None:
        trap = Trap()
        async with trap.open() as trapped, sources() as (port, _):
            policy = EgressPolicy((), (port, trapped), allow_private=True, production=False)
            made = AiohttpUpstreams(policy, connect_timeout_s=2, ping_interval_s=5, max_bytes=1)
            home = check_destinations([f"http://127.0.0.1:{port}"], policy)
            profile = CredentialProfile("p", "p", CredentialType.BEARER, home)
            credential = placement_of(profile, {"token": SECRET}, "header", None)
            url = f"http://127.0.0.1:{port}/redirect?to=http://127.0.0.1:{trapped}/{SECRET}"
            fault = await fault_of(made, request(url, credential=credential))
            await made.close()
        assert (fault.code, fault.refused) == (ErrorCode.POLICY_BLOCKED, True) and SECRET not in fault.text
        assert trap.connections == 0

    run(work)


@pytest.mark.parametrize("how", ["header", "query"])
def test_a_websocket_gets_the_credential_only_at_a_destination(how: str) -> None:
    async def work() -> None:
        async with sources() as (port, _), upstreams(port) as made:
            url = f"ws://127.0.0.1:{port}/ws-protected"
            policy = EgressPolicy((), (port,), allow_private=True, production=False)
            for destination, opens in ((f"ws://127.0.0.1:{port}", True), (f"http://127.0.0.1:{port}", False)):
                home = check_destinations([destination], policy)
                profile = CredentialProfile("p", "p", CredentialType.BEARER, home)
                asked = request(url, "websocket", credential=placement_of(profile, {"token": SECRET}, how, "key"))
                if opens:
                    assert (await take(made, asked, 1)) == [Opened()]
                else:
                    assert (await fault_of(made, asked)).code is ErrorCode.AUTH_FAILED

    run(work)


def test_websocket_handshakes_are_not_redirected() -> None:
    async def work() -> None:
        trap = Trap()
        async with trap.open() as trapped, sources() as (port, _), upstreams(port) as made:
            url = f"ws://127.0.0.1:{port}/redirect?to=http://127.0.0.1:{trapped}/"
            fault = await fault_of(made, request(url, "websocket"))
        assert fault.code is ErrorCode.CONNECT_REFUSED and trap.connections == 0

    run(work)
