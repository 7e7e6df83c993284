"""The whole product on this machine: real CDK deploy, real handlers, a real MQTT client, real WebSockets."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from local_stack.config import PORT_VARIABLES, ROOT, Config, StackError, free_ports, on_free_ports, read_config
from local_stack.deployment import client, secret
from local_stack.processes import Processes
from local_stack.smoke.rows import SAMPLES
from local_stack.smoke.stack import read_stack
from local_stack.up import down, up
from tidegate import tables
from tidegate.adapters.dynamodb.limits import DynamoCaps, DynamoRates
from tidegate.adapters.dynamodb.upstream_holds import DynamoUpstreamHolds
from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal
from tidegate.domain.budgets import ConnectionRoom
from tidegate.domain.subscriptions import Connection, Subscription, SubscriptionKey
from tidegate.ports.gateway import Reservation
from tidegate.providers.control_plane import ControlPlaneProviders

#: The last line of a fault by which a function says that the store was late.
_LATE = "tidegate.errors.Unavailable: The store did not answer in time"
#: What follows a fault that became another one.
_TRANSLATED = ("The above exception was", "During handling of the above")
LAST = "demo data as before, its share link works"


def smoke(config: Config, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code and results of a smoke run against this stack, and what it printed for people."""
    command = [sys.executable, "-m", "local_stack", "smoke", "--json", *arguments]
    env = {**os.environ, "TIDEGATE_STATE": str(config.state), "PYTHONPATH": f"{ROOT / 'layers/tidegate/python'}:{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    results: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    return done.returncode, results, done.stderr


def test_the_smoke_run_is_green_and_changes_no_demo_data(stack: Mapping[str, Any], config: Config) -> None:
    code, ran, table = smoke(config, "--quick")
    assert code == 0 and all(row["ok"] for row in ran["rows"]), table
    assert len(ran["rows"]) >= 42 and ran["rows"][-1]["name"] == LAST
    assert len(ran["latencies_ms"]) == SAMPLES
    link = read_stack(config.stack_file)["demo"]["link"]
    assert link == stack["demo"]["link"]
    body = {key: link[key] for key in ("dashboardId", "datasourceId", "shareToken")}
    assert httpx.post(f"{stack['api_url']}/datasource-sessions", json=body).status_code == 201


def test_a_row_runs_alone(stack: Mapping[str, Any], config: Config) -> None:
    code, ran, _ = smoke(config, "--row", "wildcard topic")
    assert code == 0 and [row["name"] for row in ran["rows"]] == ["wildcard topic"]


def test_a_share_token_that_does_not_work_fails_the_last_row(
    stack: Mapping[str, Any], config: Config, tmp_path: Path
) -> None:
    link = {**stack["demo"]["link"], "shareToken": "rotated-meanwhile"}
    (tmp_path / "stack.json").write_text(json.dumps({**stack, "demo": {**stack["demo"], "link": link}}))
    code, ran, _ = smoke(config, "--stack", str(tmp_path / "stack.json"), "--row", LAST)
    (row,) = ran["rows"]
    assert code == 1 and not ran["ok"] and not row["ok"] and "403" in row["detail"]
    assert "test_demo_data.py" in (config.log / "smoke.log").read_text()


def test_a_row_nobody_knows_is_named(stack: Mapping[str, Any], config: Config) -> None:
    code, ran, told = smoke(config, "--row", "no such row")
    assert code == 1 and not ran
    assert "No row is called 'no such row'. Rows: device to private dashboard" in told


def faults_in(lines: Iterable[str]) -> Iterator[str]:
    """What a function logged as a fault, by its last line: at level ERROR, or raised out of the handler.

    That the store was late is none here: it says that the machine is busy. Who asks is asked again, by a queue or by
    Lambda, and a store that is late for good fails the smoke run.
    """
    raised, in_traceback = "", False
    for line in (*filter(None, map(str.rstrip, lines)), "end"):
        if raised not in ("", _LATE) and not line.startswith(_TRANSLATED):
            yield raised
        raised = ""
        if line.startswith("Traceback "):
            in_traceback = True
        elif in_traceback and not line.startswith(" "):
            in_traceback, raised = False, line
        elif '"level":"ERROR"' in line or "Traceback" in line:
            logged = json.loads(line)
            raised = str(logged.get("exception", logged["message"])).rstrip().splitlines()[-1]


def test_faults_are_read_from_the_lines_of_a_log() -> None:
    late = ["Traceback (most recent call last):", '  File "a.py", line 1, in b', "TimeoutError: timed out", ""]
    late += ["The above exception was the direct cause of the following exception:", "", late[0], late[1]]
    started, error = "START RequestId: 1", {"level": "ERROR", "message": "catch-up failed"}
    assert list(faults_in([started, *late, _LATE, started])) == []
    assert list(faults_in([*late, "KeyError: 'x'", started, *late, _LATE])) == ["KeyError: 'x'"]
    assert list(faults_in([*late, "KeyError: 'x'"])) == ["KeyError: 'x'"]
    for last, found in ((_LATE, []), ("KeyError: 'x'", ["KeyError: 'x'"])):
        logged = error | {"exception": "\n".join([*late, last, ""])}
        assert list(faults_in([json.dumps(logged, separators=(",", ":"))])) == found
    assert list(faults_in([json.dumps(error, separators=(",", ":"))])) == ["catch-up failed"]


def test_no_function_logged_a_fault(stack: Mapping[str, Any], config: Config) -> None:
    """Faults that a viewer does not notice, such as a grant that is missing, show here. Runs after the smoke run."""
    logs = client(config, "logs")
    lines: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group in logs.describe_log_groups()["logGroups"]:
        for event in logs.filter_log_events(logGroupName=group["logGroupName"])["events"]:
            lines[group["logGroupName"], event["logStreamName"]].append(event["message"])
    assert any("START RequestId" in line for log in lines.values() for line in log), "the logs are those of functions"
    assert not [(name, fault) for (name, _), log in lines.items() for fault in faults_in(log)]


def test_the_worker_of_the_stack_gives_way_to_nobody(pytestconfig: pytest.Config) -> None:
    """Checks of the stack have times. A worker that ran another test before these has given way for good."""
    controller = os.getppid() if hasattr(pytestconfig, "workerinput") else os.getpid()
    assert os.getpriority(os.PRIO_PROCESS, 0) == os.getpriority(os.PRIO_PROCESS, controller)


def test_it_listens_on_loopback_only(stack: Mapping[str, Any], config: Config) -> None:
    """Who listens on every interface is also met at another address of this machine, here one of loopback."""
    for variable, name in PORT_VARIABLES.items():
        for address, met in (("127.0.0.1", True), ("127.0.0.2", False)):
            with socket.socket() as probe:
                assert (probe.connect_ex((address, getattr(config, name))) == 0) is met, (variable, address)


def test_a_stack_runs_once(stack: Mapping[str, Any], config: Config) -> None:
    with pytest.raises(StackError, match="running already"):
        up(config)


def test_pages_and_the_description_of_the_api_are_served(stack: Mapping[str, Any]) -> None:
    for path in ("/", f"/p/{stack['demo']['public']['board']['dashboardId']}"):
        page = httpx.get(stack["edge_url"] + path)
        (script,) = re.findall(r'<script type="module"[^>]* src="(/assets/[^"]+)"', page.text)
        assert httpx.get(stack["edge_url"] + script).headers["Cache-Control"].endswith("immutable")
    described = httpx.get(f"{stack['api_url']}/openapi.json").json()
    assert "/api/datasource-sessions" in described["paths"]


def test_the_internal_contract_answers_behind_the_edge(stack: Mapping[str, Any], config: Config) -> None:
    headers = {"Authorization": f"Bearer {secret(config, stack['secrets']['GATEWAY_SERVICE_TOKEN_ARN'])}"}
    url = f"{stack['internal_api_url']}/gateway/revoked-tokens"
    assert "nextCursor" in httpx.post(url, json={}, headers=headers).json()
    assert httpx.post(url, json={}).status_code == 401


# --- the emulator's tables under concurrency: what one process's fake cannot show ------------------------------


@pytest.fixture
def control_plane(stack: Mapping[str, Any], config: Config) -> ControlPlaneProviders:
    return ControlPlaneProviders({**config.aws_environment(), **stack["tables"], "TIDEGATE_ENV": "development"})


def test_limits_are_exact_on_a_real_table_api(control_plane: ControlPlaneProviders) -> None:
    rates = DynamoRates(control_plane.db, control_plane.table(tables.LIMITERS))
    caps = DynamoCaps(
        control_plane.db, control_plane.table(tables.LIMITERS), "e2e", control_plane.table(tables.CONNECTIONS)
    )
    holds = DynamoUpstreamHolds(control_plane.db, control_plane.table(tables.LIMITERS), "e2e")
    until = control_plane.clock.monotonic() + 60

    def count(number: int) -> bool:
        return rates.count("e2e", 37, 60_000, 60_000, f"r{number}", until).allowed

    def take(number: int) -> bool:
        return caps.take("e2e", 0, 23, f"h{number}")

    def hold(number: int) -> bool:
        return holds.hold("e2e", f"s{number % 100}", 2000 + number, 1000, 29, until) is None

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(count, range(200))).count(True) == 37
        assert list(pool.map(take, range(200))).count(True) == 23
        held = list(pool.map(hold, range(200)))
    assert len({number % 100 for number, was in enumerate(held) if was}) == 29


def test_transactions_keep_rows_and_keys_together(control_plane: ControlPlaneProviders) -> None:
    seen = Connection("e2e", "ip", int(control_plane.clock.now()))
    control_plane.connections.open(seen)
    keys = [SubscriptionKey("e2e-dash", "e2e", f"s{number}") for number in range(60)]

    def through(key: SubscriptionKey) -> Reservation:
        held = control_plane.connections.reserve(key, seen, ConnectionRoom(40, 0, 1000), "dash#e2e-dash#0")
        if held is Reservation.RESERVED:
            claim = Claim(key.dashboard_id, key.datasource_id, Principal(PUBLIC_SUBJECT, 1), "h", 100)
            row = Subscription(key, "a", claim, "e2e-stream#0")
            assert control_plane.subscriptions.put_hidden(row) and control_plane.subscriptions.make_visible(row)
            if key.datasource_id.endswith("0"):
                assert control_plane.subscriptions.remove(row)
        return held

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(through, keys))
    rows = {row.key.datasource_id for row in control_plane.subscriptions.of_dashboard("e2e-dash")}
    connection = control_plane.connections.get("e2e")
    assert connection is not None and set(connection.subscriptions) == rows
    assert len(rows) <= 40 <= results.count(Reservation.RESERVED)
    control_plane.subscriptions.remove_all_of(connection)
    control_plane.connections.remove("e2e")


# --- when something is wrong -------------------------------------------------------------------------------


def test_a_taken_port_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = replace(on_free_ports(tmp_path), edge_port=taken.getsockname()[1])
        with pytest.raises(StackError, match=r"Port \d+ is in use.*TIDEGATE_EDGE_PORT"):
            up(config)
    assert not Processes(config).alive()


def test_an_emulator_that_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    config = on_free_ports(tmp_path)
    with pytest.raises(StackError, match="did not start"):
        up(config)
    assert not Processes(config).alive() and not config.stack_file.exists()
    assert down(config) == []


def test_an_endpoint_where_nothing_answers(tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    config = replace(on_free_ports(tmp_path), endpoint=f"http://127.0.0.1:{nobody}")
    with pytest.raises(StackError, match="Nothing healthy answers"):
        up(config)


@pytest.mark.parametrize(
    "env",
    [
        {"TIDEGATE_EDGE_PORT": "http"},
        {"TIDEGATE_EDGE_PORT": "70000"},
        {"TIDEGATE_EDGE_PORT": "4566"},
        {"TIDEGATE_FAKE_UPSTREAMS_MQTTS_PORT": "8080"},
        {"TIDEGATE_ENDPOINT": "localhost:4566"},
    ],
)
def test_wrong_variables_are_named(env: dict[str, str]) -> None:
    with pytest.raises(StackError, match=next(iter(env))):
        read_config(env)
