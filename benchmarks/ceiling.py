"""The most a client of one core gets out of a server: wrk, written in C, on an nginx our sender is measured on too.

Both programs come from the system, where it has them: they are no part of the checkout, and nothing else needs them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_stack.config import StackError, free_ports
from local_stack.processes import is_listened_on, wait_until
from tidegate.adapters.aws.bulk_sender import BUSY_SOCKETS

#: As many as our sender opens towards a server that answers at once.
CONNECTIONS = BUSY_SOCKETS
_START_S = 10.0

_NGINX = """
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log /dev/null;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 ""; }} }}
}}
"""
# A request of the same size as a signed one.
_POST = """
wrk.method = "POST"
wrk.body = string.rep("x", {body})
wrk.headers["x-amz-security-token"] = string.rep("t", {token})
wrk.headers["x-amz-date"] = "20260101T000000Z"
wrk.headers["authorization"] = string.rep("a", 220)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU of a client for each post, microseconds, and posts a second of wall time."""

    cpu_us: float
    per_second: float


def missing() -> str:
    """Which programs are not on this machine, and where to get them. Empty when both are."""
    names = [name for name in ("nginx", "wrk") if shutil.which(name) is None]
    if not names:
        return ""
    return f"Not installed: {', '.join(names)}. On Debian and Ubuntu they are in the packages nginx-light and wrk."


@contextmanager
def nginx() -> Iterator[str]:
    """The base URL of an nginx of one worker that answers everything with an empty 200, while it runs."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(_NGINX.format(folder=folder, port=port))
        process = subprocess.Popen(["nginx", "-p", folder, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            if not wait_until(lambda: is_listened_on(port), _START_S, process=process):
                raise StackError("nginx did not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def wrk(url: str, *, body: int, token: int, seconds: int) -> Cost:
    """What posts cost one wrk thread over `CONNECTIONS` connections. `body` and `token` are sizes in bytes.

    CPU is that of the whole program, its start included.
    """
    before = _cpu_of_children_s()
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_POST.format(body=body, token=token))
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", script.name]
        target = f"{url}/live/@connections/abcdefghijklmno"
        told = subprocess.run([*command, target], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in told, told
    posts = re.search(r"(\d+) requests in", told)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    assert posts and rate, told
    return Cost((_cpu_of_children_s() - before) / int(posts[1]) * 1e6, float(rate[1]))


def _cpu_of_children_s() -> float:
    """CPU seconds of processes of this one that have ended."""
    used = os.times()
    return used.children_user + used.children_system
