"""Relay workers as asynchronous invocations of the relay function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import monotonic, time
from urllib.parse import quote

from tidegate.adapters.aws.http import HttpClient, NotAnswered
from tidegate.adapters.aws.sigv4 import Signer
from tidegate.errors import Unavailable
from tidegate.ports.relay_workers import RelayWorkers

_TIMEOUT_S = 5.0
_PARTITION, _SUCCESSOR = "partition", "successor"


class LambdaRelayWorkers(RelayWorkers):
    """Starts workers by invoking the relay function asynchronously."""

    def __init__(self, http: HttpClient, signer: Signer, function_name: str) -> None:
        """`function_name`: with `:` and the alias behind it, where there is one."""
        self._http = http
        self._signer = signer
        self._path = f"/2015-03-31/functions/{quote(function_name, safe='')}/invocations"

    def start(self, partition: int, *, successor: bool = False) -> None:
        """Raises `Unavailable` when the invocation was not accepted."""
        body = json.dumps({_PARTITION: partition, _SUCCESSOR: successor}).encode()
        extra = {"x-amz-invocation-type": "Event", "content-type": "application/json"}
        try:
            headers = self._signer.headers("POST", self._http.host, self._path, body, time(), extra)
            answer = self._http.request("POST", self._path, headers, body, monotonic() + _TIMEOUT_S)
        except NotAnswered as error:
            raise Unavailable("The relay was not started", code="relay_not_started") from error
        if answer.status != 202:
            raise Unavailable("The relay was not started", code=f"relay_start_{answer.status}")


class NoRelayWorkers(RelayWorkers):
    """Starts nobody: the workers are processes that stay, and find by themselves what they are needed for."""

    def start(self, partition: int, *, successor: bool = False) -> None:
        return


def read_start(event: Mapping[str, object]) -> tuple[int, bool]:
    """(partition, whether as a successor) of an invocation that `LambdaRelayWorkers.start` asked for.

    Raises:
        KeyError: the event is not one of those.
    """
    return int(str(event[_PARTITION])), bool(event.get(_SUCCESSOR))
