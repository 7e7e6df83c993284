"""AWS Signature Version 4 for header-signed requests, from its public specification.

Why our own: the gateway's cold start and its CPU per call are budgets of the product, and botocore alone costs
several of them. The signing key is derived once a day per process; a request then costs three HMACs less.

Invariant of this file: the secret key never leaves the objects here, neither in a `repr` nor in an error.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import gmtime, strftime
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key. `token` is the session token of temporary credentials."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def credentials_from(env: Mapping[str, str] | None = None) -> Credentials:
    """Credentials as Lambda hands them to a function.

    Raises:
        RuntimeError: the variables are not set.
    """
    env = os.environ if env is None else env
    try:
        return Credentials(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env.get("AWS_SESSION_TOKEN") or None)
    except KeyError as error:
        raise RuntimeError(f"{error.args[0]} is not set: AWS calls need credentials in the environment") from error


class Signer:
    """Signs requests to one service in one region."""

    def __init__(self, credentials: Credentials, region: str, service: str) -> None:
        self.credentials = credentials
        self._region = region
        self._service = service
        # One tuple, replaced whole: another thread never sees the key of one day with the scope of another.
        self._derived = ("", "", b"")

    def headers(
        self, method: str, host: str, path: str, body: bytes, now: float, extra: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """All headers to send, `extra` and the signature included.

        Args:
            method: upper case.
            host: as it goes into the Host header, with a port that is not the scheme's own.
            path: as it goes on the wire, percent-encoded, without a query.
            body: the bytes sent.
            now: epoch seconds.
            extra: further headers, names in lower case; they are signed as well.
        """
        stamp = _stamp(now)
        scope, key = self.key_of(stamp)
        headers = {**(extra or {}), "host": host, "x-amz-date": stamp}
        if self.credentials.token:
            headers["x-amz-security-token"] = self.credentials.token
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
            f"AWS4-HMAC-SHA256 Credential={self.credentials.access_key}/{scope}, "
            f"SignedHeaders={signed}, Signature={signature}"
        )
        return headers

    def key_of(self, stamp: str) -> tuple[str, bytes]:
        """(scope, signing key) of a time stamp's day."""
        day, scope, key = self._derived
        if stamp[:8] != day:
            day, scope, key = self._derived = self._derive(stamp[:8])
        return scope, key

    def _derive(self, day: str) -> tuple[str, str, bytes]:
        key = f"AWS4{self.credentials.secret_key}".encode()
        for part in (day, self._region, self._service, "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return day, f"{day}/{self._region}/{self._service}/aws4_request", key


class PostSigner:
    """Whole POST requests below one path, signed as `Signer` signs them: what they share is made once a second, and the
    hash of a body once for all who get it. A test keeps both equal."""

    def __init__(self, signer: Signer, host: str, prefix: str) -> None:
        """`prefix`: the path up to its last segment, percent-encoded, with the slash."""
        self._signer = signer
        self._host = host
        self._prefix = prefix
        self._canonical_prefix = f"POST\n{quote(prefix, safe='/~')}"
        self._second = -1
        self._hashed: tuple[bytes, str] = (b"", hashlib.sha256(b"").hexdigest())

    def request(self, last: str, body: bytes, now: float) -> bytes:
        """The request as it goes on the wire.

        Args:
            last: the path's last segment, its every reserved character percent-encoded.
            body: the bytes sent.
            now: epoch seconds.
        """
        if int(now) != self._second:
            self._begin_second(int(now))
        known, digest = self._hashed
        if body is not known:
            digest = hashlib.sha256(body).hexdigest()
            self._hashed = (body, digest)
        # Signing encodes the path once more: of what is encoded that changes the percent signs only.
        escaped = last.replace("%", "%25")
        canonical = f"{self._canonical_prefix}{escaped}{self._canonical_headers}{digest}".encode()
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(hashlib.sha256(canonical).hexdigest().encode())
        outer.update(inner.digest())
        head = f"POST {self._prefix}{last}{self._head}{outer.hexdigest()}\r\ncontent-length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def _begin_second(self, second: int) -> None:
        stamp = _stamp(second)
        scope, key = self._signer.key_of(stamp)
        headers = {"host": self._host, "x-amz-date": stamp}
        credentials = self._signer.credentials
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        signed = ";".join(headers)  # sorted as they stand
        lines = "".join(f"{name}:{value.strip()}\n" for name, value in headers.items())
        self._canonical_headers = f"\n\n{lines}\n{signed}\n"
        # HMAC (RFC 2104) as far as it is the same for all posts of the second: two thirds of its cost.
        block = key.ljust(hashlib.sha256().block_size, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._inner.update(f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n".encode())
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
        shown = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = (
            f" HTTP/1.1\r\n{shown}authorization: AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={signed}, Signature="
        )
        self._second = second


def _stamp(now: float) -> str:
    return strftime("%Y%m%dT%H%M%SZ", gmtime(now))
