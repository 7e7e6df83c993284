"""The relay as Lambda runs it: real tables on moto, a real source, a stand-in for the platform."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web

from functions.relay.wiring import relay_services
from functions.relay.worker import bring_threads, make_handler, work
from functions.revalidate.wiring import revalidate_services
from functions.revalidate.worker import make_handler as make_revalidation
from local_stack.seed import document
from tests.deployment import aws
from tests.functions.test_api import Api
from tests.functions.test_gateway import Demo, Gateway, demo, gateway_over
from tests.functions.test_revalidation import Context
from tests.servers.management import ManagementServer
from tests.servers.numbers import SOURCES, make_app
from tests.settling import settle
from tidegate.domain.partitions import partition_of
from tidegate.domain.relay import CLAIM_AFTER_S, LEASE_S, Kind, worker_version
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.tables import ALL_TABLES
from tidegate.usecases.relay.check_credentials import CHECK_S
from tidegate.usecases.relay.reading import REPLACE_S

__all__ = ["demo"]

SECRET = "Fj3-the-secret-of-the-source-9Q"
NEW = "Kp7-the-secret-after-it-2X"


class Served:
    """The sources, on a thread of their own."""

    def __init__(self) -> None:
        self.port = 0
        self.app = make_app(SECRET)
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def _run(self, ready: threading.Event) -> None:
        async def serve() -> web.AppRunner:
            runner = web.AppRunner(self.app, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            ready.set()
            return runner

        runner = self._loop.run_until_complete(serve())
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@pytest.fixture
def served() -> Iterator[Served]:
    server = Served()
    yield server
    server.close()


@pytest.fixture
def relay_env(deployed: Mapping[str, str], management: ManagementServer, served: Served) -> Mapping[str, str]:
    return {**deployed, **relay_settings(management, served.port)}


def relay_settings(management: ManagementServer, port: int) -> dict[str, str]:
    """For sources on a port of this machine. The same stand-in takes the invocations that start relays."""
    management.answer = lambda _method, target, _nth: 202 if target == "invocations" else 200
    return {
        "EGRESS_ALLOWED_PORTS": str(port),
        "EGRESS_ALLOW_PRIVATE_DESTINATIONS": "true",
        "AWS_ENDPOINT_URL_LAMBDA": management.url.removesuffix("/live"),
        "REALTIME_RECONNECT_MIN_MS": "100",
        "REALTIME_RECONNECT_MAX_MS": "200",
    }


@contextmanager
def relay_workers(env: Mapping[str, str], *, newest: bool = False) -> Iterator[None]:
    """A worker of each shard in this process, cancelled in the end. `newest`: as the platform starts them."""
    services, ended, loop = relay_services(env), asyncio.Event(), asyncio.new_event_loop()

    async def hold() -> None:
        bring_threads()
        workers = [
            asyncio.create_task(work(services, partition, float("inf"), newest=newest))
            for partition in range(services.partitions)
        ]
        await ended.wait()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        services.observer.flush()

    thread = threading.Thread(target=loop.run_until_complete, args=(hold(),))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def watch(gateway: Gateway, admin: Api, source: dict[str, Any]) -> dict[str, Any]:
    made = admin.ok("POST", "/api/dashboards", document("R", [source]))
    body = {"dashboardId": made["id"], "datasourceId": source["id"]}
    token = admin.ok("POST", "/api/datasource-sessions", body)["token"]
    gateway.open("c1=")
    gateway.say("c1=", {"type": "subscribe", "requestId": "r1", **body, "sessionToken": token})
    return gateway.frames("c1=")[0]


def watched(env: Mapping[str, str], management: ManagementServer, demo: Demo, url: str) -> Gateway:
    """A gateway with a viewer of the events of this URL."""
    gateway = gateway_over(env, management)
    assert watch(gateway, demo.api, {"id": "t", "type": "sse", "settings": {"url": url}})["ok"]
    return gateway


@contextmanager
def relay_process(env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m functions.relay`; killed in the end without a word."""
    whole = {**os.environ, **env}
    with subprocess.Popen([sys.executable, "-m", "functions.relay"], env=whole, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def numbers(gateway: Gateway) -> list[int]:
    return [frame["payload"]["n"] for frame in gateway.frames("c1=") if frame["type"] == "data"]


def errors(gateway: Gateway) -> list[dict[str, Any]]:
    return [frame for frame in gateway.frames("c1=") if frame["type"] == "error"]


def test_an_invocation_ends_before_its_time_does_and_leaves_the_partition_free(
    relay_env: Mapping[str, str], management: ManagementServer, demo: Demo, served: Served
) -> None:
    gateway = watched(relay_env, management, demo, f"http://127.0.0.1:{served.port}/stream")
    services = relay_services(gateway.env)
    ((partition,),) = [[partition_of(stream) for stream in services.container.streams.of_source(None).streams]]
    handle = make_handler(services)
    assert handle({"partition": partition}, Context(5.5)) == {"ended": "out of time"}
    assert handle({"partition": 1 - partition}, Context()) == {"ended": "nobody listens"}
    leases = services.container.relay_leases
    assert not [
        leases.current(partition_id) for partition_id in range(services.partitions) if leases.current(partition_id)
    ]
    assert served.app[SOURCES].open["/stream"] == 0


def test_a_killed_relay_is_replaced_when_its_lease_ends(
    relay_env: Mapping[str, str], management: ManagementServer, demo: Demo, served: Served
) -> None:
    gateway = watched(relay_env, management, demo, f"http://127.0.0.1:{served.port}/stream?rate=20")
    with relay_process(gateway.env) as holder:
        settle(lambda: len(numbers(gateway)) >= 5, 30)
        with relay_process(gateway.env):
            holder.kill()
            holder.wait(10)
            killed, until_then = time.monotonic(), len(numbers(gateway))
            # A second worker looks every few seconds; nothing is sent before the dead one's lease has ended.
            settle(lambda: len(numbers(gateway)) >= until_then + 5, LEASE_S + CLAIM_AFTER_S + 30)
            assert time.monotonic() - killed > LEASE_S / 2 + CLAIM_AFTER_S
            got = numbers(gateway)
            assert got == sorted(set(got)), "in order and none twice"
            assert served.app[SOURCES].open["/stream"] == 1, "the dead worker's upstream is gone, the other's is one"


def test_a_worker_of_other_code_takes_over_within_its_start(
    relay_env: Mapping[str, str], management: ManagementServer, demo: Demo, served: Served
) -> None:
    """The partition goes to the newest code while the old one runs, and back again by a way back."""
    gateway = watched(relay_env, management, demo, f"http://127.0.0.1:{served.port}/stream?rate=20")
    container = relay_services(gateway.env).container
    ((partition,),) = [[partition_of(stream) for stream in container.streams.of_source(None).streams]]

    def owner() -> str:
        lease = container.relay_leases.current(partition)
        return "" if lease is None else lease.owner.partition(".")[0]

    versions = [worker_version(container.settings.digest, code, Kind.FUNCTION) for code in ("old", "new")]
    assert len({container.settings.digest, *versions}) == 3
    with relay_workers({**gateway.env, "RELAY_CODE": "old"}):
        settle(lambda: len(numbers(gateway)) >= 5 and owner() == versions[0], 30)
        with relay_workers({**gateway.env, "RELAY_CODE": "new"}, newest=True):
            settle(lambda: owner() == versions[1], 30)
            until_then = len(numbers(gateway))
            settle(lambda: len(numbers(gateway)) >= until_then + 5, 30)
            with relay_workers({**gateway.env, "RELAY_CODE": "old"}, newest=True):
                settle(lambda: owner() == versions[0], 30)
                until_then = len(numbers(gateway))
                settle(lambda: len(numbers(gateway)) >= until_then + 5, 30)
    assert not errors(gateway)


CREDENTIALS = [
    ("bearer", {"token": SECRET}, {}),
    ("basic", {"username": "user", "password": SECRET}, {}),
    ("header", {"headerValue": SECRET}, {}),
    ("header", {"headerValue": SECRET}, {"authPlacement": "query", "queryParamName": "key"}),
]


@pytest.mark.parametrize(("kind", "secret", "placement"), CREDENTIALS)
def test_a_credential_opens_the_source_and_is_nowhere_else(
    relay_env: Mapping[str, str],
    management: ManagementServer,
    demo: Demo,
    served: Served,
    kind: str,
    secret: dict[str, str],
    placement: dict[str, str],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    profile = {"name": "source", "type": kind, "secret": secret} | ({"headerName": "X-Key"} if kind == "header" else {})
    profile |= {"destinations": [f"http://127.0.0.1:{served.port}"]}
    credential = demo.api.ok("POST", "/api/credential-profiles", profile)["id"]
    url = f"http://127.0.0.1:{served.port}/protected?rate=50"
    source = {"id": "t", "type": "sse", "settings": {"url": url, "credentialProfileId": credential, **placement}}
    gateway = gateway_over(relay_env, management)
    assert watch(gateway, demo.api, source)["ok"]
    assert management.starts("relay") == 1, "a worker was asked for"
    with relay_workers(gateway.env):
        settle(lambda: numbers(gateway))
    frames = gateway.frames("c1=")
    assert [frame["status"] for frame in frames if frame["type"] == "status"][:2] == ["connecting", "connected"]
    assert [frame["payload"]["n"] for frame in frames if frame["type"] == "data"], frames
    written = capfd.readouterr()
    everything = [written.out, written.err, caplog.text, json.dumps(frames)]
    client = aws(relay_env["AWS_ENDPOINT_URL"], "dynamodb")
    everything += [str(client.scan(TableName=relay_env[table.variable])["Items"]) for table in ALL_TABLES]
    assert not [text for text in everything if SECRET in text]


def test_a_wrong_secret_is_told_without_it_and_the_worker_leaves_nothing(
    relay_env: Mapping[str, str],
    management: ManagementServer,
    demo: Demo,
    served: Served,
    capfd: pytest.CaptureFixture[str],
) -> None:
    wrong = {"name": "wrong", "type": "bearer", "secret": {"token": "wr0ng-" + SECRET}}
    wrong |= {"destinations": [f"http://127.0.0.1:{served.port}"]}
    credential = demo.api.ok("POST", "/api/credential-profiles", wrong)["id"]
    url = f"http://127.0.0.1:{served.port}/protected"
    gateway = gateway_over(relay_env, management)
    watch(gateway, demo.api, {"id": "t", "type": "sse", "settings": {"url": url, "credentialProfileId": credential}})
    with relay_workers(gateway.env):
        settle(lambda: errors(gateway))
    assert {frame["errorCode"] for frame in errors(gateway)} == {"STREAM_AUTH_FAILED"}
    assert SECRET not in json.dumps(gateway.frames("c1=")) and SECRET not in "".join(capfd.readouterr())


def with_a_secret(
    demo: Demo, served: Served, **body: Any
) -> tuple[Callable[[dict[str, Any], str], None], dict[str, Any]]:
    """What changes the profile, from the revision it has, and a datasource that uses it."""
    body = {"name": "source", "type": "bearer", "destinations": [f"http://127.0.0.1:{served.port}"], **body}
    profile = demo.api.ok("POST", "/api/credential-profiles", body | {"secret": {"token": SECRET}})["id"]
    settings = {"url": f"http://127.0.0.1:{served.port}/protected", "credentialProfileId": profile}

    def change(changes: dict[str, Any], revision: str) -> None:
        demo.api.ok("PUT", f"/api/credential-profiles/{profile}", body | changes, if_match=revision)

    return change, {"id": "t", "type": "sse", "settings": settings}


def evaluate_all(gateway: Gateway) -> None:
    """Full revalidation: whoever is to be ended is ended."""
    work_off = make_revalidation(revalidate_services(gateway.env))
    record = {"messageId": "m1", "body": json.dumps({"kind": "full", "target": ""})}
    assert work_off({"Records": [record]}, Context()) == {"batchItemFailures": []}


CHANGED: dict[str, dict[str, Any]] = {
    "bearer": {"secret": {"token": NEW}},
    "basic": {"type": "basic", "secret": {"username": "user", "password": NEW}},
    "header": {"type": "header", "headerName": "X-Key", "secret": {"headerValue": NEW}},
}


@pytest.mark.parametrize("changes", CHANGED.values(), ids=CHANGED)
def test_a_changed_secret_changes_the_connection_and_ends_nobody(
    relay_env: Mapping[str, str], management: ManagementServer, demo: Demo, served: Served, changes: dict[str, Any]
) -> None:
    """The viewer has every value once: first from the connection with the old secret, then from that with the new."""
    change, source = with_a_secret(demo, served)
    env = {**relay_env, "REALTIME_MAX_UPDATES_PER_SECOND": "0"}  # conflation may leave out any value
    gateway, sources = gateway_over(env, management), served.app[SOURCES]
    assert watch(gateway, demo.api, source)["ok"]
    with relay_workers(gateway.env):
        settle(lambda: len(numbers(gateway)) >= 2, 30)
        sources.secrets.append(NEW)
        change(changes, "1")
        evaluate_all(gateway)
        settle(lambda: sources.shown[NEW] == 1 and sources.shown[SECRET] == 0, CHECK_S + REPLACE_S + 5)
        until_then = len(numbers(gateway))
        settle(lambda: len(numbers(gateway)) >= until_then + 5, 30)
    statuses = [frame["status"] for frame in gateway.frames("c1=") if frame["type"] == "status"]
    assert not errors(gateway) and statuses == ["connecting", "connected"]
    got = numbers(gateway)
    assert got == list(range(got[0], got[0] + len(got))), "none is missing, and none came twice"


def test_a_wrong_new_secret_is_a_fault_and_the_right_one_mends_it_for_who_stayed(
    relay_env: Mapping[str, str], management: ManagementServer, demo: Demo, served: Served
) -> None:
    change, source = with_a_secret(demo, served)
    env = {**relay_env, "REALTIME_RECONNECT_MAX_MS": "120000"}  # so it is the change that has it tried again
    gateway, sources = gateway_over(env, management), served.app[SOURCES]
    assert watch(gateway, demo.api, source)["ok"]
    with relay_workers(gateway.env):
        settle(lambda: numbers(gateway), 30)
        change({"secret": {"token": "wr0ng"}}, "1")
        evaluate_all(gateway)
        settle(lambda: errors(gateway), CHECK_S + REPLACE_S + 5)
        settle(lambda: sources.shown[SECRET] == 0)  # it is not kept for want of a better one
        assert [frame["errorCode"] for frame in errors(gateway)] == ["STREAM_AUTH_FAILED"]
        sources.secrets.append(NEW)
        change({"secret": {"token": NEW}}, "2")
        evaluate_all(gateway)
        until_then = len(numbers(gateway))
        settle(lambda: len(numbers(gateway)) > until_then, CHECK_S + 30)
    statuses = [frame["status"] for frame in gateway.frames("c1=") if frame["type"] == "status"]
    assert statuses == ["connecting", "connected", "error", "connected"] and len(errors(gateway)) == 1


def test_a_destination_that_is_taken_away_with_the_secret_ends_the_subscription(
    relay_env: Mapping[str, str], management: ManagementServer, demo: Demo, served: Served
) -> None:
    change, source = with_a_secret(demo, served)
    gateway = gateway_over(relay_env, management)
    assert watch(gateway, demo.api, source)["ok"]
    change({"secret": {"token": NEW}, "destinations": ["https://elsewhere.example"]}, "1")
    evaluate_all(gateway)
    connection = ControlPlaneProviders(gateway.env).connections.get("c1=")
    assert errors(gateway) and connection is not None and not connection.subscriptions


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"REALTIME_SSE_ENABLED": "false"}, "http://127.0.0.1:{port}/stream"),
        ({"EGRESS_ALLOWED_PORTS": "443"}, "http://127.0.0.1:{port}/stream"),
        ({"EGRESS_ALLOW_PRIVATE_DESTINATIONS": "false"}, "http://127.0.0.1:{port}/stream"),
        ({"EGRESS_ALLOWED_HOSTS": "example.com"}, "http://127.0.0.1:{port}/stream"),
    ],
)
def test_policies_refuse_before_anything_is_connected_to(
    relay_env: Mapping[str, str],
    management: ManagementServer,
    demo: Demo,
    served: Served,
    settings: dict[str, str],
    url: str,
) -> None:
    gateway = gateway_over({**relay_env, **settings}, management)
    source = {"id": "t", "type": "sse", "settings": {"url": url.format(port=served.port)}}
    ack = watch(gateway, demo.api, source)
    assert (ack["ok"], ack["errorCode"]) == (False, "STREAM_POLICY_BLOCKED")
    assert not management.starts("relay")


@pytest.mark.parametrize(
    ("switch", "text"),
    [("REALTIME_SSE_ENABLED", "SSE protocol is disabled"), ("REALTIME_ENABLED", "Realtime is disabled")],
)
def test_viewers_of_a_connected_stream_are_told_which_switch_it_was(
    relay_env: Mapping[str, str], management: ManagementServer, demo: Demo, served: Served, switch: str, text: str
) -> None:
    gateway = watched(relay_env, management, demo, f"http://127.0.0.1:{served.port}/stream")
    streams = ControlPlaneProviders(gateway.env).streams
    (stream,) = streams.of_source(None).streams
    streams.note_status(stream, True)
    with relay_workers({**gateway.env, switch: "false"}):
        settle(lambda: errors(gateway), 10)
    assert [(frame["errorCode"], frame["message"]) for frame in errors(gateway)] == [("STREAM_POLICY_BLOCKED", text)]


def test_introspection_places_the_credential_too(demo: Demo, served: Served) -> None:
    """Another gateway gets what our relay makes of it."""
    profile = {"name": "source", "type": "bearer", "secret": {"token": SECRET}}
    profile |= {"destinations": [f"http://127.0.0.1:{served.port}"]}
    credential = demo.api.ok("POST", "/api/credential-profiles", profile)["id"]
    url = f"http://127.0.0.1:{served.port}/protected"
    source = {"id": "t", "type": "sse", "settings": {"url": url, "credentialProfileId": credential}}
    made = demo.api.ok("POST", "/api/dashboards", document("R", [source]))
    body = {"dashboardId": made["id"], "datasourceId": "t"}
    token = demo.api.ok("POST", "/api/datasource-sessions", body)["token"]
    shown = demo.api.internal("datasource-introspect", {"sessionToken": token})[1]["intent"]
    assert shown["headers"] == {"Authorization": f"Bearer {SECRET}"}
