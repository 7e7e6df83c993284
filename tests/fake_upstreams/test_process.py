"""The fake upstreams as a process of their own, and as part of the local stack."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fixtures.fake_upstreams.__main__ import read_options
from local_stack import fake_upstreams
from local_stack.config import Config, StackError
from local_stack.processes import Processes

ROOT = Path(__file__).resolve().parents[2]
SECRET = "of-the-environment"


@contextmanager
def process(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "fixtures.fake_upstreams", "--state", str(folder), *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TIDEGATE_FAKE_UPSTREAMS_SECRET": SECRET}
    running = subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with running:
        try:
            assert running.stdout is not None
            yield running, json.loads(running.stdout.readline())
        finally:
            running.kill()


def read(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        found: bytes = answer.read()
        return found


def test_two_runs_send_the_same(tmp_path: Path) -> None:
    runs = []
    for _ in range(2):
        with process(tmp_path) as (_, addresses):
            url = f"{addresses['sse_protected_url']}?rate=1000&count=300"
            runs.append(read(url, **{"Last-Event-ID": "0", "Authorization": f"Bearer {SECRET}"}))
    assert runs[0] == runs[1]
    assert runs[0].count(b"\n\n") == 300


def test_sigterm_ends_it_though_clients_are_connected(tmp_path: Path) -> None:
    with process(tmp_path) as (running, addresses):
        with socket.create_connection(("127.0.0.1", int(urlsplit(addresses["mqtt_url"]).port or 0))) as client:
            client.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
            assert client.recv(4) == b"\x20\x02\x00\x00"
            with urllib.request.urlopen(addresses["sse_url"], timeout=10):
                running.send_signal(signal.SIGTERM)
                assert running.wait(10) == 0
        assert running.stderr is not None and running.stderr.read() == ""


def test_a_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "fixtures.fake_upstreams", "--state", str(tmp_path)]
        command += ["--mqtt-port", str(taken.getsockname()[1])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the fake upstreams cannot listen") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("argument", ["--port=http", "--port=70000", "--interval-ms=0"])
def test_wrong_arguments_are_named(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_options([argument])
    assert "allowed: " in capsys.readouterr().err


def test_the_stack_starts_them_with_a_secret_of_its_own_and_stops_them(tmp_path: Path) -> None:
    config = Config(state=tmp_path, fake_upstreams_port=0, fake_upstreams_mqtt_port=0, fake_upstreams_mqtts_port=0)
    processes = Processes(config)
    try:
        fixtures = fake_upstreams.start(config, processes)
        body = read(f"{fixtures['sse_protected_url']}?rate=100&count=1", **{"X-Api-Key": fixtures["secret"]})
        assert b'"upstream":"sse"' in body
        assert Path(fixtures["ca"]).is_relative_to(tmp_path)
        assert fixtures["secret"] not in processes.log_of("fake_upstreams").read_text()
    finally:
        assert processes.stop_all() == ["fake_upstreams"]


def test_the_stack_tells_why_they_did_not_start(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = replace(Config(state=tmp_path), fake_upstreams_port=taken.getsockname()[1])
        with pytest.raises(StackError, match="cannot listen"):
            fake_upstreams.start(config, Processes(config))
