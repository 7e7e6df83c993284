"""A stand-in for DynamoDB in front of the emulator, in a process of its own.

It answers a query of the index by stream from what it has read once. The emulator sorts the whole partition for every
page, so 20,000 rows take it half a minute, where DynamoDB takes a second. Rows must not change while it runs.
Everything else passes. Prints its port.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import local
from typing import ClassVar
from urllib.parse import urlsplit

#: How long the emulator may take to answer, seconds.
_PATIENCE_S = 120


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    emulator = ""
    read: ClassVar[dict[str, tuple[int, bytes]]] = {}
    _kept = local()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        key = self._key(body)
        status, answer = self.read[key] if key in self.read else self._passed(body)
        if key and status == 200:
            self.read[key] = status, answer
        self.send_response(status)
        self.send_header("content-type", self.headers["content-type"])
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _key(self, body: bytes) -> str:
        """Names the page of the index that is asked for. Empty for everything else."""
        if not self.headers["x-amz-target"].endswith(".Query"):
            return ""
        asked = json.loads(body)
        if asked.get("IndexName") != "by_stream":
            return ""
        return json.dumps(
            [*asked["ExpressionAttributeValues"].values(), asked.get("ExclusiveStartKey")], sort_keys=True
        )

    def _passed(self, body: bytes) -> tuple[int, bytes]:
        if not hasattr(self._kept, "connection"):
            self._kept.connection = http.client.HTTPConnection(self.emulator, timeout=_PATIENCE_S)
        self._kept.connection.request("POST", self.path, body, dict(self.headers.items()))
        answer = self._kept.connection.getresponse()
        return answer.status, answer.read()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def remembered(emulator_url: str) -> Iterator[str]:
    """Its base URL while it runs."""
    command = [sys.executable, "-m", "benchmarks.index", urlsplit(emulator_url).netloc]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    _Passing.emulator = sys.argv[1]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Passing)
    print(server.server_address[1], flush=True)
    server.serve_forever()
