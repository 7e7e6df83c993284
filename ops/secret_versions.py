"""A secret's versions in Secrets Manager, and the changes a rotation makes to them. Each is safe to repeat.

Invariant of this file: a value is in no error, and leaves it only to Secrets Manager and to CloudFront.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from tidegate.domain.rotation import State, Version
from tidegate.domain.secret_names import CURRENT, LABELS, PENDING, PREVIOUS

_LENGTH = 64
#: What Secrets Manager answers when somebody else was first, or this very call was done before.
_OVERTAKEN = frozenset({"ResourceExistsException", "InvalidParameterException", "ResourceNotFoundException"})


def server_time(answer: Mapping[str, Any]) -> float:
    """When AWS answered, epoch seconds by its own clock. The clock of this machine may be wrong."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()


class SecretVersions:
    """The versions of one secret."""

    def __init__(
        self,
        client: Any,
        secret_id: str,
        *,
        new_value: str | None = None,
        time_of: Callable[[Mapping[str, Any]], float] = server_time,
    ) -> None:
        """
        Args:
            client: boto3's client of Secrets Manager.
            secret_id: the secret's ARN or name.
            new_value: the value to add; None for a random one.
            time_of: reads the time of an answer; tests move it.
        """
        self._client = client
        self._secret_id = secret_id
        self._new_value = new_value or _random_value()
        self._time_of = time_of
        self._values: dict[str, str] = {}

    def read(self) -> State:
        """The versions that have labels, without a carrier. Raises `ClientError`."""
        found: dict[str, Version] = {}
        now = 0.0
        self._values = {}
        for label in LABELS:
            try:
                answer = self._client.get_secret_value(SecretId=self._secret_id, VersionStage=label)
            except ClientError as error:
                if label == CURRENT or _code(error) != "ResourceNotFoundException":
                    raise
                continue
            version_id = str(answer["VersionId"])
            found[label] = Version(version_id, answer["CreatedDate"].timestamp())
            self._values[label] = str(answer["SecretString"])
            now = self._time_of(answer)
        return State(now, found[CURRENT], found.get(PREVIOUS), found.get(PENDING))

    def value(self, label: str) -> str:
        """The value that had the label when it was last read."""
        return self._values[label]

    def accepted(self) -> frozenset[str]:
        """All values that verify, as last read."""
        return frozenset(self._values.values())

    def add(self, version_id: str) -> bool:
        """Put the new value as pending. False when a version of that id is there with another value."""
        return self._put(version_id, self._new_value, PENDING)

    def switch(self, version_id: str) -> bool:
        """Put the pending value as current. Secrets Manager makes the version that was current the previous one."""
        return self._put(version_id, self._values[PENDING], CURRENT)

    def drop(self, label: str, version_id: str) -> bool:
        """Take the label from the version. False when the version does not have it any more."""
        return self._done(
            self._client.update_secret_version_stage,
            SecretId=self._secret_id,
            VersionStage=label,
            RemoveFromVersionId=version_id,
        )

    def _put(self, version_id: str, value: str, label: str) -> bool:
        return self._done(
            self._client.put_secret_value,
            SecretId=self._secret_id,
            ClientRequestToken=version_id,
            SecretString=value,
            VersionStages=[label],
        )

    @staticmethod
    def _done(call: Callable[..., object], **request: object) -> bool:
        try:
            call(**request)
        except ClientError as error:
            if _code(error) in _OVERTAKEN:
                return False
            raise
        return True


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _random_value() -> str:
    """64 letters and digits, 381 bits: as the deployment generates them."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(_LENGTH))
