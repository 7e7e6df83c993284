"""The header that CloudFront adds to requests, so that the API and the gateway know them.

CloudFormation puts the origin secret there when it makes or changes the distribution. It does not read the secret
again by itself, so a rotation changes the header through CloudFront's own API.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from tidegate.domain.client_ip import ORIGIN_HEADER
from tidegate.domain.rotation import Carried, Carrier

#: CloudFront's answers to a change of a configuration that was changed meanwhile.
_CHANGED = frozenset({"PreconditionFailed", "InvalidIfMatchVersion"})


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution as it was read. `etag` names this configuration."""

    etag: str
    deployed: bool
    config: dict[str, Any] = field(repr=False)

    def headers(self) -> list[dict[str, str]]:
        """The header's entry at each origin that has one."""
        return [
            header
            for origin in self.config["Origins"]["Items"]
            for header in origin.get("CustomHeaders", {}).get("Items", [])
            if header["HeaderName"].lower() == ORIGIN_HEADER
        ]

    def carrier(self, current: str, accepted: Collection[str]) -> Carrier:
        """What it carries, measured by the secret's values."""
        values = {header["HeaderValue"] for header in self.headers()}
        if values == {current}:
            carried = Carried.CURRENT
        elif values and values <= set(accepted):
            carried = Carried.ACCEPTED
        else:
            carried = Carried.UNKNOWN
        return Carrier(carried, self.deployed)


class EdgeHeader:
    """Reads and changes the header of one distribution."""

    def __init__(self, client: Any, distribution_id: str) -> None:
        """`client`: boto3's client of CloudFront."""
        self._client = client
        self._id = distribution_id

    def read(self) -> Distribution:
        """Raises `ClientError`."""
        answer = self._client.get_distribution(Id=self._id)
        distribution = answer["Distribution"]
        return Distribution(
            answer["ETag"], distribution["Status"] == "Deployed", dict(distribution["DistributionConfig"])
        )

    def put(self, read: Distribution, value: str) -> bool:
        """Put the value at every origin that has the header. False when the configuration was changed since it was
        read. Raises `ClientError`."""
        for header in read.headers():
            header["HeaderValue"] = value
        try:
            self._client.update_distribution(Id=self._id, IfMatch=read.etag, DistributionConfig=read.config)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _CHANGED:
                return False
            raise
        return True
