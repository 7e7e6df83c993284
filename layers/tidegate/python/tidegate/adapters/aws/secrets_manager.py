"""Secrets, read when they are first needed and kept for minutes.

They are not read at init, because SnapStart would freeze them then. They are read again, so that a rotation needs no
deploy. The current version signs; the current and the previous one verify.

Invariant of this file: a secret's value is in no `repr`, log or error.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from threading import Lock

from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.domain.secret_strength import weakness
from tidegate.errors import Unavailable
from tidegate.ports.runtime import Clock

#: How long values are used before they are read again, seconds.
TTL_S = 300.0
#: A failed verification may mean that the secret was rotated, so it is read again. Least time between two such reads,
#: seconds.
REFRESH_S = 30.0


class WeakSecret(RuntimeError):
    """A secret that production must not use. The message names the secret, never its value."""


class Secret:
    """A secret: its current value, and the previous one while there is one."""

    def __init__(
        self, client: Callable[[], JsonClient], arn: str, clock: Clock, *, must_be_strong: bool = False
    ) -> None:
        self._client = client
        self._arn = arn
        self._clock = clock
        self._must_be_strong = must_be_strong
        self._lock = Lock()
        self._values: tuple[str, ...] = ()
        self._read_at = 0.0

    def current(self) -> str:
        """The value to sign with. Raises as `values` does."""
        return self.values()[0]

    def values(self) -> tuple[str, ...]:
        """The values that verify, the current one first.

        Raises:
            Unavailable: they could not be read, and none were read before.
            WeakSecret: one of them is too weak, and they must be strong.
        """
        with self._lock:
            if not self._values or self._clock.monotonic() - self._read_at >= TTL_S:
                self._read()
            return self._values

    def accepts(self, given: str) -> bool:
        """Whether `given` is one of the values. It is compared with all of them, each in constant time."""
        return sum(hmac.compare_digest(given.encode(), value.encode()) for value in self.values()) > 0

    def refresh(self) -> bool:
        """Read again after a failed verification, unless they were read just now. True when the values changed."""
        with self._lock:
            if self._clock.monotonic() - self._read_at < REFRESH_S:
                return False
            before = self._values
            self._read()
            return self._values != before

    def _read(self) -> None:
        try:
            values = [self._version("AWSCURRENT")]
            try:
                values.append(self._version("AWSPREVIOUS"))
            except AwsError as error:
                if error.code != "ResourceNotFoundException":
                    raise
        except AwsError as error:
            if self._values:
                # An old value is better than none. The first call after REFRESH_S tries again.
                self._read_at = self._clock.monotonic() - TTL_S + REFRESH_S
                return
            raise Unavailable("A secret could not be read", code="secret_unavailable") from error
        for value in values if self._must_be_strong else ():
            if why := weakness(value):
                raise WeakSecret(f"Secret {self._arn} is too weak: {why}")
        self._values = tuple(dict.fromkeys(values))
        self._read_at = self._clock.monotonic()

    def _version(self, stage: str) -> str:
        answer = self._client().call("GetSecretValue", {"SecretId": self._arn, "VersionStage": stage})
        return str(answer["SecretString"])
