"""A client for AWS services that speak JSON with an operation in `X-Amz-Target` (DynamoDB, SQS, KMS, Secrets Manager).

Invariant of this file: only what is safe is repeated. Throttling, 5xx and lost answers are retried with full jitter,
within the caller's deadline. That is safe because all operations are written so that a repetition is harmless (see
`ports`). No attempt but the last may take more than half of the time that is left, so a stalled socket never eats a
whole deadline.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from time import monotonic, sleep, time
from typing import Any

from tidegate.adapters.aws.http import HttpClient, NotAnswered, endpoint_url
from tidegate.adapters.aws.sigv4 import CredentialSource, Signer

#: How long a call may take when its caller names no deadline, seconds.
DEFAULT_TIMEOUT_S = 5.0
_ATTEMPTS = 4
#: How long a kept-alive connection may take to answer, seconds. The other end may have vanished without a word, and a
#: call to DynamoDB takes milliseconds.
KEPT_ALIVE_S = 1.0
_BASE_DELAY_S = 0.025

THROTTLING = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "Throttling",
        "TooManyRequestsException",
    }
)
_TEMPORARY = THROTTLING | {
    "InternalServerError",
    "ServiceUnavailable",
    "InternalServiceError",
    "TransactionInProgressException",
    "InternalFailure",
}


class AwsError(Exception):
    """The service refused, or did not answer.

    Attributes:
        code: the service's name of the error; `NotAnswered` when it did not answer.
        temporary: whether the same call may succeed later.
        body: the answer's JSON, for details such as cancellation reasons.
        status: the HTTP status; 0 when there was no answer.
        late: whether time ran out.
    """

    def __init__(
        self,
        service: str,
        operation: str,
        code: str,
        message: str,
        temporary: bool,
        body: Mapping[str, Any],
        *,
        status: int = 0,
        late: bool = False,
    ) -> None:
        super().__init__(f"{service} {operation}: {code}: {message}")
        self.code = code
        self.temporary = temporary
        self.body = body
        self.status = status
        self.late = late

    @property
    def throttled(self) -> bool:
        return self.code in THROTTLING


class JsonClient:
    """Calls one service in one region."""

    def __init__(
        self,
        service: str,
        target: str,
        *,
        region: str,
        credentials: CredentialSource,
        version: str = "1.0",
        base_url: str | None = None,
    ) -> None:
        """`target` is the prefix of `X-Amz-Target`. `version` is the version of AWS's JSON protocol."""
        self._service = service
        self._target = target
        self._content_type = f"application/x-amz-json-{version}"
        self._http = HttpClient(base_url or endpoint_url(service, region))
        self._signer = Signer(credentials, region, service)

    def call(self, operation: str, payload: Mapping[str, Any], *, deadline: float | None = None) -> dict[str, Any]:
        """Call an operation and return its answer.

        Args:
            deadline: monotonic seconds for all attempts together.

        Raises:
            AwsError: the service refused, or did not answer in time.
        """
        if deadline is None:
            deadline = monotonic() + DEFAULT_TIMEOUT_S
        body = json.dumps(payload, separators=(",", ":")).encode()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._once(operation, body, deadline if attempt == _ATTEMPTS else _halfway(deadline))
            except AwsError as error:
                delay = random.uniform(0, _BASE_DELAY_S * 2**attempt)
                if not error.temporary or attempt == _ATTEMPTS or monotonic() + delay >= deadline:
                    raise
                sleep(delay)
        raise AssertionError("unreachable")

    def _once(self, operation: str, body: bytes, deadline: float) -> dict[str, Any]:
        path = self._http.prefix + "/"
        extra = {"content-type": self._content_type, "x-amz-target": f"{self._target}.{operation}"}
        try:
            headers = self._signer.headers("POST", self._http.host, path, body, time(), extra)
            answer = self._http.request("POST", path, headers, body, deadline, kept_alive_s=KEPT_ALIVE_S)
        except NotAnswered as error:
            raise AwsError(self._service, operation, "NotAnswered", str(error), True, {}, late=error.late) from error
        try:
            parsed = json.loads(answer.body)
        except (ValueError, RecursionError):
            parsed = None
        if answer.status == 200 and isinstance(parsed, dict):
            return parsed
        details = parsed if isinstance(parsed, dict) else {}
        code = str(details.get("__type", f"HTTP{answer.status}")).rpartition("#")[2]
        message = str(details.get("message", details.get("Message", "")))
        temporary = answer.status >= 500 or answer.status == 429 or code in _TEMPORARY
        raise AwsError(self._service, operation, code, message, temporary, details, status=answer.status)


def _halfway(deadline: float) -> float:
    now = monotonic()
    return now + (deadline - now) / 2
