"""Catch-up requests as delayed SQS messages."""

from __future__ import annotations

import json

from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.domain.subscriptions import CatchUpRequest, SubscriptionKey
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

    def queue(self, request: CatchUpRequest) -> None:
        message = {"QueueUrl": self._queue_url, "MessageBody": written_catch_up(request), "DelaySeconds": DELAY_S}
        try:
            self._client.call("SendMessage", message)
        except AwsError as error:
            if error.temporary:
                raise Unavailable("The queue did not answer", code="queue_unavailable") from error
            raise


def written_catch_up(request: CatchUpRequest) -> str:
    """The request as the body of a message."""
    fields = {
        "dashboardId": request.key.dashboard_id,
        "connectionId": request.key.connection_id,
        "datasourceId": request.key.datasource_id,
        "generation": request.generation,
        "streamKey": request.stream_key,
        "seen": list(request.seen) if request.seen else None,
        "told": request.told,
    }
    return json.dumps(fields)


def read_catch_up(body: str) -> CatchUpRequest:
    """Read what `written_catch_up` wrote. Raises `ValueError` or `KeyError` when it is not one."""
    fields = json.loads(body)
    seen, told = fields["seen"], fields["told"]
    return CatchUpRequest(
        key=SubscriptionKey(fields["dashboardId"], fields["connectionId"], fields["datasourceId"]),
        generation=fields["generation"],
        stream_key=fields["streamKey"],
        seen=None if seen is None else (int(seen[0]), str(seen[1])),
        told=None if told is None else int(told),
    )
