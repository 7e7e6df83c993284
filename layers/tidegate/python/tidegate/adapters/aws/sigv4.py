"""AWS Signature Version 4 for header-signed requests, from its public specification.

This is our own code because the gateway has budgets for its cold start and for its CPU per call. Botocore alone would
cost several times those budgets. The signing key is derived once a day for each credential, which saves a request four
of its five HMACs.

Invariant of this file: the secret key does not leave the objects here, neither in a `repr` nor in an error.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from binascii import hexlify
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import gmtime, strftime
from typing import Protocol
from urllib.parse import quote

#: The variables by which ECS and others tell a container where its credentials are.
RELATIVE_URI, FULL_URI = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key. `token` is the session token of temporary credentials."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    def current(self) -> Credentials:
        """These: they are not refreshed. A function's environment ends before its credentials do."""
        return self


class CredentialSource(Protocol):
    """Where credentials come from. `Credentials` are a source of themselves."""

    def current(self) -> Credentials:
        """The credentials to sign with now. Raises `NotAnswered` when there are none that are valid."""


def credentials_from(env: Mapping[str, str] | None = None) -> CredentialSource:
    """Credentials from the environment: those that Lambda gives to a function, or those of a container.

    Raises:
        RuntimeError: a variable is not set, or names a place that credentials are not asked of.
    """
    env = os.environ if env is None else env
    if not env.get("AWS_ACCESS_KEY_ID") and (env.get(RELATIVE_URI) or env.get(FULL_URI)):
        from tidegate.adapters.aws.container_credentials import ContainerCredentials

        return ContainerCredentials(env)
    try:
        return Credentials(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env.get("AWS_SESSION_TOKEN") or None)
    except KeyError as error:
        raise RuntimeError(f"{error.args[0]} is not set: AWS calls need credentials in the environment") from error


class Signer:
    """Signs requests to one service in one region."""

    def __init__(self, credentials: CredentialSource, region: str, service: str) -> None:
        self._source = credentials
        self._region = region
        self._service = service
        # A tuple that is replaced whole, so that another thread never sees the key of one day and the scope of another.
        self._derived = ("", "", "", b"")

    def headers(
        self, method: str, host: str, path: str, body: bytes, now: float, extra: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """All headers to send, `extra` and the signature included.

        Args:
            method: upper case.
            host: as in the Host header, with the port when it is not the scheme's default.
            path: as in the request line, percent-encoded, without a query.
            body: the bytes sent.
            now: epoch seconds.
            extra: further headers, names in lower case. They are signed as well.

        Raises:
            NotAnswered: there are no valid credentials now. Nothing was sent.
        """
        stamp = _stamp(now)
        credentials, scope, key = self.key_of(stamp)
        headers = {**(extra or {}), "host": host, "x-amz-date": stamp}
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        names = sorted(headers)
        signed = ";".join(names)
        canonical = "\n".join(
            (
                method,
                quote(path, safe="/~"),
                "",
                *(f"{name}:{headers[name].strip()}" for name in names),
                "",
                signed,
                hashlib.sha256(body).hexdigest(),
            )
        )
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={signed}, Signature={signature}"
        )
        return headers

    def key_of(self, stamp: str) -> tuple[Credentials, str, bytes]:
        """(credentials, scope, signing key) for the day of a time stamp such as `20260102T030405Z`.

        Raises `NotAnswered`, as `headers` does.
        """
        credentials = self._source.current()
        day, secret, scope, key = self._derived
        if stamp[:8] != day or credentials.secret_key != secret:
            _, _, scope, key = self._derived = self._derive(stamp[:8], credentials.secret_key)
        return credentials, scope, key

    def _derive(self, day: str, secret: str) -> tuple[str, str, str, bytes]:
        key = f"AWS4{secret}".encode()
        for part in (day, self._region, self._service, "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return day, secret, f"{day}/{self._region}/{self._service}/aws4_request", key


class PostSigner:
    """Makes whole POST requests to paths that share a prefix. The signatures are those that `Signer` makes; a test
    compares them.

    It is faster than `Signer`. What all requests of a second share is made once a second. What a body adds is made once
    for all who receive it in turn.
    """

    def __init__(self, signer: Signer, host: str, prefix: str) -> None:
        """`prefix`: the path up to its last segment, percent-encoded, with the final slash."""
        self._signer = signer
        self._host = host
        self._line = f"POST {prefix}".encode()
        self._canonical_prefix = f"POST\n{quote(prefix, safe='/~')}".encode()
        self._second = -1
        self._take_body(b"")

    def request(self, last: str, body: bytes, now: float) -> bytes:
        """The bytes of the request.

        Args:
            last: the path's last segment, with every reserved character percent-encoded.
            body: the bytes sent.
            now: epoch seconds.

        Raises:
            NotAnswered: there are no valid credentials now.
        """
        if int(now) != self._second:
            self._begin_second(int(now))
        if body is not self._body:
            self._take_body(body)
        # Signing encodes the encoded path once more. That changes only its percent signs.
        segment = last.encode()
        canonical = b"".join(
            (self._canonical_prefix, segment.replace(b"%", b"%25"), self._canonical_headers, self._digest)
        )
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(hexlify(hashlib.sha256(canonical).digest()))
        outer.update(inner.digest())
        return b"".join((self._line, segment, self._head, hexlify(outer.digest()), self._end))

    def _take_body(self, body: bytes) -> None:
        self._body = body
        self._digest = hexlify(hashlib.sha256(body).digest())
        self._end = b"\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    def _begin_second(self, second: int) -> None:
        stamp = _stamp(second)
        credentials, scope, key = self._signer.key_of(stamp)
        headers = {"host": self._host, "x-amz-date": stamp}
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        signed = ";".join(headers)  # they are in sorted order already
        lines = "".join(f"{name}:{value.strip()}\n" for name, value in headers.items())
        self._canonical_headers = f"\n\n{lines}\n{signed}\n".encode()
        # The part of the HMAC (RFC 2104) that is the same for all requests of this second: two thirds of its cost.
        block = key.ljust(hashlib.sha256().block_size, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._inner.update(f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n".encode())
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
        shown = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = (
            f" HTTP/1.1\r\n{shown}authorization: AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={signed}, Signature="
        ).encode()
        self._second = second


def _stamp(now: float) -> str:
    return strftime("%Y%m%dT%H%M%SZ", gmtime(now))
