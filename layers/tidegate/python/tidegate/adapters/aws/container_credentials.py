"""The credentials of a container, such as a task of ECS: asked of an address that only the container reaches.

They are temporary. They are asked for again well before they end, and the old ones are used until new ones are there.

Invariant of this file: the secret key and the token that opens the address do not leave the objects here, neither in a
`repr` nor in an error.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from threading import Lock
from time import monotonic, time
from urllib.parse import urlsplit

from tidegate.adapters.aws.http import HttpClient, NotAnswered
from tidegate.adapters.aws.sigv4 import FULL_URI, RELATIVE_URI, Credentials

#: How long before their end credentials are asked for anew, seconds. ECS has new ones by then.
EARLY_S = 600.0
#: How soon before their end credentials are not used any more, seconds: a request takes a while, and clocks differ.
LAST_S = 30.0
#: How long one question may take, and after which pause a failed one is repeated, seconds. The address is on the same
#: machine and answers in milliseconds.
_TIMEOUT_S, _AGAIN_S = 2.0, 5.0
_MOST_BYTES = 64 * 1024
#: Where ECS answers, and the addresses that a full URI may have without TLS: those of ECS and EKS.
_ECS = "http://169.254.170.2"
_AGENTS = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23"})
_TOKEN, _TOKEN_FILE = "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"


class ContainerCredentials:
    """A source of credentials for `Signer`. Safe to use from several threads."""

    def __init__(self, env: Mapping[str, str], *, now: Callable[[], float] = time) -> None:
        """`now`: epoch seconds.

        Raises:
            RuntimeError: the variable does not name an address that may be asked.
        """
        base, self._path = _address(env)
        self._http = HttpClient(base, connect_timeout_s=1.0, max_body=_MOST_BYTES)
        self._env = env
        self._now = now
        self._asking = Lock()
        self._known: tuple[Credentials, float] | None = None  # and when they end, epoch seconds
        self._not_before = 0.0  # when a failed question may be repeated, monotonic seconds

    def current(self) -> Credentials:
        """The credentials to sign with now.

        One thread asks for new ones while the others use the old ones. Without valid ones, all wait for the answer.

        Raises:
            NotAnswered: there are no valid ones, and the address gave none.
        """
        known = self._known
        left = float("-inf") if known is None else known[1] - self._now()
        if known is not None and left > EARLY_S:
            return known[0]
        valid = known is not None and left > LAST_S
        if self._asking.acquire(blocking=not valid):
            try:
                self._ask_once(known)
            finally:
                self._asking.release()
        known = self._known
        if known is None or known[1] - self._now() <= LAST_S:
            raise NotAnswered("no valid credentials of the container", sent=False)
        return known[0]

    def _ask_once(self, seen: tuple[Credentials, float] | None) -> None:
        """Ask, unless another thread did meanwhile, or the last question failed a moment ago."""
        if self._known is not seen or monotonic() < self._not_before:
            return
        try:
            self._known = self._asked()
        except (NotAnswered, OSError, ValueError, KeyError, TypeError):
            # What was answered may hold a secret, so it is not told.
            self._not_before = monotonic() + _AGAIN_S

    def _asked(self) -> tuple[Credentials, float]:
        token = _token(self._env)
        headers = {"accept": "application/json"} | ({"authorization": token} if token else {})
        answer = self._http.request("GET", self._path, headers, b"", monotonic() + _TIMEOUT_S)
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        found = json.loads(answer.body)
        ends = datetime.fromisoformat(str(found["Expiration"]))
        if ends.tzinfo is None:
            raise ValueError("an end without a time zone")
        access_key, secret_key = found["AccessKeyId"], found["SecretAccessKey"]
        if not (isinstance(access_key, str) and isinstance(secret_key, str) and access_key and secret_key):
            raise ValueError("no keys")
        return Credentials(access_key, secret_key, str(found["Token"])), ends.timestamp()


def _address(env: Mapping[str, str]) -> tuple[str, str]:
    """(base URL, path) of where to ask. Raises `RuntimeError`."""
    if relative := env.get(RELATIVE_URI):
        if not relative.startswith("/"):
            raise RuntimeError(f"{RELATIVE_URI} is no path: allowed: a path, as ECS sets it")
        return _ECS, relative
    parts = urlsplit(env[FULL_URI])
    allowed = parts.scheme == "https" or (parts.scheme == "http" and _is_near(parts.hostname or ""))
    if not allowed or not parts.hostname or parts.username is not None:
        raise RuntimeError(
            f"{FULL_URI}: credentials are not asked of that address: allowed: https, or http to this machine or to "
            f"{', '.join(sorted(_AGENTS))}"
        )
    return f"{parts.scheme}://{parts.netloc}", (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _is_near(host: str) -> bool:
    """Whether a host is this machine, or an agent of the platform beside it."""
    try:
        return host in _AGENTS or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(env: Mapping[str, str]) -> str:
    """What opens the address; empty where nothing is asked for. A file is read each time, because it is replaced.

    Raises `OSError`, `ValueError`.
    """
    file = env.get(_TOKEN_FILE)
    token = Path(file).read_text().strip() if file else env.get(_TOKEN, "")
    if "\r" in token or "\n" in token:
        raise ValueError("a token of several lines")
    return token
