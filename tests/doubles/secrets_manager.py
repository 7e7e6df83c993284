"""Secrets Manager with one secret, as its API reference describes labels and repeated requests, on a clock of the test.

moto and the local stack's emulator let a version be written twice; here, as at AWS, that is refused or ignored.
"""

# ruff: noqa: N803 - the names of boto3
from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from tests.doubles.platform import ManualClock
from tidegate.adapters.aws.json_client import AwsError
from tidegate.domain.secret_names import CURRENT, PREVIOUS


class OneSecret:
    """Both a client of boto3 (`get_secret_value` and so on) and one of the functions (`call`).

    `before` is called before each request of boto3's with its number; `history` has what values had a label since when.
    """

    def __init__(self, clock: ManualClock, value: str) -> None:
        self.clock = clock
        self.versions: dict[str, tuple[str, float]] = {"first": (value, clock.now())}
        self.labels: dict[str, str] = {CURRENT: "first"}
        self.before: Callable[[int], None] = lambda number: None
        self.requests = 0
        self.readable = True
        self.history: list[tuple[float, dict[str, str]]] = []
        self._note()

    def call(self, operation: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        if not self.readable:
            raise AwsError("secretsmanager", operation, "NotAnswered", "", True, {})
        if payload["VersionStage"] not in self.labels:
            raise AwsError("secretsmanager", operation, "ResourceNotFoundException", "", False, {})
        return {"SecretString": self.versions[self.labels[payload["VersionStage"]]][0]}

    def get_secret_value(self, *, SecretId: str, VersionStage: str) -> dict[str, Any]:
        self._request()
        if VersionStage not in self.labels:
            raise _error("ResourceNotFoundException")
        version_id = self.labels[VersionStage]
        value, created_at = self.versions[version_id]
        return {
            "VersionId": version_id,
            "SecretString": value,
            "CreatedDate": datetime.fromtimestamp(created_at, UTC),
            "now": self.clock.now(),
        }

    def put_secret_value(
        self,
        *,
        SecretId: str,
        ClientRequestToken: str,
        SecretString: str,
        VersionStages: list[str],
    ) -> None:
        self._request()
        if ClientRequestToken in self.versions:
            if self.versions[ClientRequestToken][0] != SecretString:
                raise _error("ResourceExistsException")
            return
        self.versions[ClientRequestToken] = (SecretString, self.clock.now())
        (label,) = VersionStages
        self.label(label, ClientRequestToken)

    def update_secret_version_stage(self, *, SecretId: str, VersionStage: str, RemoveFromVersionId: str) -> None:
        self._request()
        if self.labels.get(VersionStage) != RemoveFromVersionId:
            raise _error("InvalidParameterException")
        del self.labels[VersionStage]
        self._note()

    def label(self, label: str, version_id: str) -> None:
        """Move a label as AWS does: what was current becomes the previous one."""
        if label == CURRENT:
            self.labels[PREVIOUS] = self.labels[CURRENT]
        self.labels[label] = version_id
        self._note()

    def rotate_plainly(self, value: str) -> None:
        """What the console's "set a new value" does: it is current at once."""
        version_id = f"by-hand-{len(self.versions)}"
        self.versions[version_id] = (value, self.clock.now())
        self.label(CURRENT, version_id)

    def value(self, label: str) -> str | None:
        return self.versions[self.labels[label]][0] if label in self.labels else None

    def _request(self) -> None:
        self.requests += 1
        self.before(self.requests)

    def _note(self) -> None:
        self.history.append((self.clock.now(), {label: self.versions[v][0] for label, v in self.labels.items()}))


def _error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": ""}}, "")
