"""Secrets, read when they are first needed and kept for minutes.

They are not read at init, because SnapStart would freeze them then. They are read again, so that a rotation needs no
deploy. The current value signs. The current, the previous and the pending one verify: `domain.rotation` has the steps
by which a value becomes each of them.

Invariant of this file: a secret's value is in no `repr`, log or error.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from threading import Lock

from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.domain.secret_names import CURRENT, LABELS, PREVIOUS
from tidegate.domain.secret_strength import weakness
from tidegate.errors import KeyNotYetKnown, Unavailable
from tidegate.ports.runtime import Clock, Observer

#: How long values are used before they are read again, seconds; the default of SECRET_CACHE_SECONDS.
TTL_S = 300
#: A failed verification may mean that the secret was rotated, so it is read again. Least time between two such reads,
#: seconds. It is shorter where values are kept for less than ten times as long.
REFRESH_S = 30.0


class WeakSecret(RuntimeError):
    """A secret that production must not use. The message names the secret, never its value."""


class Secret:
    """A secret: its current value, and beside it those that still or already verify."""

    def __init__(
        self,
        client: Callable[[], JsonClient],
        arn: str,
        clock: Clock,
        *,
        name: str = "",
        observer: Observer | None = None,
        ttl_s: float = TTL_S,
        must_be_strong: bool = False,
    ) -> None:
        """
        Args:
            name: the secret's name in `domain.secret_names`, as the metric shows it.
            observer: counts uses of the previous value; None counts nothing.
            ttl_s: how long values are used before they are read again, seconds.
        """
        self._client = client
        self._arn = arn
        self._clock = clock
        self._name = name
        self._observer = observer
        self._ttl_s = ttl_s
        self._refresh_s = min(REFRESH_S, ttl_s / 10)
        self._must_be_strong = must_be_strong
        self._lock = Lock()
        self._labelled: dict[str, str] = {}
        self._read_at = 0.0
        #: When a reading was last tried, whatever came of it.
        self._tried_at = float("-inf")

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
            if not self._labelled or self._clock.monotonic() - self._read_at >= self._ttl_s:
                self._read()
            return self._distinct()

    def ask(self, deadline: float) -> None:
        """Ask for the current value, whatever is kept, and keep nothing of the answer.

        `deadline`: monotonic seconds. Raises `AwsError` when it is not answered.
        """
        request = {"SecretId": self._arn, "VersionStage": CURRENT}
        self._client().call("GetSecretValue", request, deadline=deadline)

    def accepts(self, given: str) -> bool:
        """Whether `given` is one of the values. It is compared with all of them, each in constant time."""
        same = [value for value in self.values() if hmac.compare_digest(given.encode(), value.encode())]
        for value in same:
            self.verified_with(value)
        return bool(same)

    def value_of(self, key_id: str) -> str | None:
        """The value that has this `key_id`; None when there is none.

        Raises:
            KeyNotYetKnown: no value has it, and it cannot be said whether a newer one does.
            Unavailable, WeakSecret: as `values`.
        """
        value = _of(key_id, self.values())
        if value is not None:
            return value
        with self._lock:
            if not self._read_again():
                raise KeyNotYetKnown("The token's key is not known yet")
            return _of(key_id, self._distinct())

    def verified_with(self, value: str) -> None:
        """Note that `value` verified something, for the metric of previous values."""
        if self._observer is None or value == self._labelled.get(CURRENT):
            return
        if value == self._labelled.get(PREVIOUS):
            self._observer.count("secret_previous_used", secret=self._name)

    def refresh(self) -> bool:
        """Read again after a failed verification, unless they were read just now. True when the values changed."""
        with self._lock:
            before = self._distinct()
            return self._read_again() and self._distinct() != before

    def _read_again(self) -> bool:
        """Read again, unless that was tried just now. True when the values were read."""
        now = self._clock.monotonic()
        if min(now - self._read_at, now - self._tried_at) < self._refresh_s:
            return False
        return self._read()

    def _distinct(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._labelled.values()))

    def _read(self) -> bool:
        """Read all values. False when they could not be read and those of before stay in use."""
        self._tried_at = self._clock.monotonic()
        labelled = {}
        try:
            # In this order a rotation that goes on meanwhile hides no value: the new one is pending until after it has
            # become current, and what is current becomes previous.
            for label in LABELS:
                try:
                    labelled[label] = self._version(label)
                except AwsError as error:
                    if label == CURRENT or error.code != "ResourceNotFoundException":
                        raise
        except AwsError as error:
            if self._labelled:
                # An old value is better than none. The first call after the refresh time tries again.
                self._read_at = self._clock.monotonic() - self._ttl_s + self._refresh_s
                return False
            raise Unavailable("A secret could not be read", code="secret_unavailable") from error
        for value in labelled.values() if self._must_be_strong else ():
            if why := weakness(value):
                raise WeakSecret(f"Secret {self._arn} is too weak: {why}")
        self._labelled = labelled
        self._read_at = self._clock.monotonic()
        return True

    def _version(self, stage: str) -> str:
        answer = self._client().call("GetSecretValue", {"SecretId": self._arn, "VersionStage": stage})
        return str(answer["SecretString"])


def key_id(value: str) -> str:
    """A name of a signing key for the header of tokens: 16 hex characters of an HMAC under the key itself.

    It says no more about the key than any signature made with it.
    """
    return hmac.new(value.encode(), b"tidegate key id", hashlib.sha256).hexdigest()[:16]


def _of(wanted: str, values: tuple[str, ...]) -> str | None:
    return next((value for value in values if key_id(value) == wanted), None)
