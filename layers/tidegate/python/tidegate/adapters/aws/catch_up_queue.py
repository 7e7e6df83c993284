"""Catch-up requests as delayed SQS messages."""

from __future__ import annotations

import json

from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.domain.subscriptions import CatchUpRequest, LastValue, SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.delivery import CatchUpQueue

#: Delay of a catch-up, seconds. It is longer than an audience is cached (1 s) plus the usual lag of a global index
#: (well under a second).
DELAY_S = 3


class SqsCatchUpQueue(CatchUpQueue):
    """Sends catch-up requests to an SQS queue."""

    def __init__(self, client: JsonClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def queue(self, key: SubscriptionKey, generation: str, stream_key: str, seen: LastValue | None) -> None:
        body = {
            "dashboardId": key.dashboard_id,
            "connectionId": key.connection_id,
            "datasourceId": key.datasource_id,
            "generation": generation,
            "streamKey": stream_key,
            "seen": list(seen.order) if seen else None,
        }
        request = {"QueueUrl": self._queue_url, "MessageBody": json.dumps(body), "DelaySeconds": DELAY_S}
        try:
            self._client.call("SendMessage", request)
        except AwsError as error:
            if error.temporary:
                raise Unavailable("The queue did not answer", code="queue_unavailable") from error
            raise


def read_catch_up(body: str) -> CatchUpRequest:
    """Read a message that `queue` wrote. Raises `ValueError` or `KeyError` when it is not one."""
    fields = json.loads(body)
    seen = fields["seen"]
    return CatchUpRequest(
        key=SubscriptionKey(fields["dashboardId"], fields["connectionId"], fields["datasourceId"]),
        generation=fields["generation"],
        stream_key=fields["streamKey"],
        seen=None if seen is None else (int(seen[0]), str(seen[1])),
    )
