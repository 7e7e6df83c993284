"""Calls the internal API of a remote API, over HTTP.

Invariants of this file:

- The service token is in no error and no log. It goes to the configured API only; redirects are not followed.
- A refusal counts only when it has the form `{"error": "text"}`. What a proxy in between answers is no answer of the
  API: for example a 403 of a firewall, or a 404 while the API is being deployed.
- The status decides. The text is never read and never passed on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic

from tidegate.adapters.aws.http import Answer, HttpClient, NotAnswered
from tidegate.adapters.aws.secrets_manager import Secret
from tidegate.errors import ApiBusy, ApiTimeout, Unavailable

INTROSPECT = "/internal/gateway/datasource-introspect"
REVOKED_TOKENS = "/internal/gateway/revoked-tokens"
CONSUME = "/internal/gateway/rate-limit/consume"

#: Largest answer, bytes. A page of a thousand events is about 200 KB.
MAX_BODY = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that has the form of the internal API."""

    status: int
    body: Mapping[str, object] = field(repr=False)


class RemoteApiClient:
    """Calls one API. Safe to use from several threads."""

    def __init__(self, base_url: str, service_token: Secret) -> None:
        self._http = HttpClient(base_url, max_body=MAX_BODY)
        self._secret = service_token
        self._accepted: str | None = None

    def post(self, path: str, payload: Mapping[str, object], timeout_s: float) -> Reply:
        """Call the API. `timeout_s` is for all attempts together.

        A reply of 401 is about the session token in the payload: the service token was accepted.

        Raises:
            ApiTimeout: the API did not answer in time.
            ApiBusy: it is called too often.
            Unavailable: it failed (5xx), answered in another form, or does not accept our service token.
        """
        deadline = monotonic() + timeout_s
        bearer = self._bearer()
        reply = self._once(path, payload, bearer, deadline)
        if reply.status != 401:
            return reply
        accepted = self._find_accepted(deadline)
        return reply if accepted == bearer else self._once(path, payload, accepted, deadline)

    def _bearer(self) -> str:
        values = self._secret.values()
        return self._accepted if self._accepted in values else values[0]

    def _find_accepted(self, deadline: float) -> str:
        """The value of our service token that the API accepts. During a rotation the API may know another one than we.

        A 401 says that the service token is not accepted, or that a session token is not valid. To tell them apart, a
        call is made without a session token. If it is refused for the missing session token, the service token was
        accepted.

        Raises:
            Unavailable: the API accepts none of them.
        """
        for again in (False, True):
            if again and not self._secret.refresh():
                break
            for value in self._secret.values():
                if self._once(INTROSPECT, {}, value, deadline).status != 401:
                    self._accepted = value
                    return value
        raise Unavailable("The API does not accept the service token", code="api_unauthorized")

    def _once(self, path: str, payload: Mapping[str, object], bearer: str, deadline: float) -> Reply:
        if not bearer.isascii() or not bearer.isprintable():
            # `http.client` would refuse the token with an error that shows it.
            raise Unavailable("The service token is not fit for a header", code="api_unauthorized")
        headers = {
            "authorization": f"Bearer {bearer}",
            "content-type": "application/json",
            "accept": "application/json",
        }
        body = json.dumps(payload, separators=(",", ":")).encode()
        try:
            answer = self._http.request("POST", self._http.prefix + path, headers, body, deadline)
        except NotAnswered as error:
            if error.late:
                raise ApiTimeout("The API did not answer in time") from error
            raise Unavailable("The API did not answer", code="api_unavailable") from error
        return _reply(answer)


def _reply(answer: Answer) -> Reply:
    if answer.status == 429:
        raise ApiBusy("The API is asked too often")
    if answer.status >= 500:
        raise Unavailable("The API failed", code="api_unavailable")
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        body = None
    in_form = isinstance(body, dict) and (answer.status == 200 or isinstance(body.get("error"), str))
    if not in_form or answer.status not in (200, 400, 401, 403, 404):
        raise Unavailable("The answer does not have the form of the internal API", code="api_malformed")
    return Reply(answer.status, body)
