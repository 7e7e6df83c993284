"""Asynchronous invocations of a function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import monotonic, time
from urllib.parse import quote

from tidegate.adapters.aws.http import HttpClient, NotAnswered
from tidegate.adapters.aws.sigv4 import Signer
from tidegate.errors import Unavailable

_TIMEOUT_S = 5.0


class Invocations:
    """Invokes one function. The platform keeps an invocation until the function has taken it."""

    def __init__(self, http: HttpClient, signer: Signer, function_name: str, what: str) -> None:
        """`function_name`: with `:` and the alias behind it, where there is one. `what`: names it in errors, a word."""
        self._http = http
        self._signer = signer
        self._path = f"/2015-03-31/functions/{quote(function_name, safe='')}/invocations"
        self._what = what

    def invoke(self, event: Mapping[str, object]) -> None:
        """Raises `Unavailable` when the invocation was not accepted."""
        body, told = json.dumps(event).encode(), f"The {self._what} was not started"
        extra = {"x-amz-invocation-type": "Event", "content-type": "application/json"}
        try:
            headers = self._signer.headers("POST", self._http.host, self._path, body, time(), extra)
            answer = self._http.request("POST", self._path, headers, body, monotonic() + _TIMEOUT_S)
        except NotAnswered as error:
            raise Unavailable(told, code=f"{self._what}_not_started") from error
        if answer.status != 202:
            raise Unavailable(told, code=f"{self._what}_start_{answer.status}")
