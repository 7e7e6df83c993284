"""Parts of a crowd as SQS messages: one call for all of them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from time import monotonic, sleep

from tidegate.adapters.aws.catch_up_queue import taken
from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.domain.crowds import CrowdPart
from tidegate.domain.subscriptions import Fault
from tidegate.errors import Unavailable
from tidegate.ports.delivery import CrowdQueue

#: Most messages in one call. Source: quotas of messages, Amazon SQS Developer Guide.
_BATCH = 10
#: How long asking may take, seconds.
_ASK_S = 5.0
#: How often the messages are sent of which SQS says that they failed.
_ATTEMPTS = 4
_BASE_DELAY_S = 0.025


class SqsCrowdQueue(CrowdQueue):
    """Sends parts to an SQS queue."""

    def __init__(self, client: JsonClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def ask(self, parts: Sequence[CrowdPart]) -> None:
        deadline = monotonic() + _ASK_S
        for start in range(0, len(parts), _BATCH):
            self._ask(parts[start : start + _BATCH], deadline)

    def _ask(self, parts: Sequence[CrowdPart], deadline: float) -> None:
        left = [written_part(part) for part in parts]
        for attempt in range(1, _ATTEMPTS + 1):
            entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(left)]
            try:
                answer = self._client.call(
                    "SendMessageBatch", {"QueueUrl": self._queue_url, "Entries": entries}, deadline=deadline
                )
            except AwsError as error:
                if error.temporary:
                    break
                raise
            left = [body for number, body in enumerate(left) if number not in taken(answer)]
            if not left:
                return
            delay = random.uniform(0, _BASE_DELAY_S * 2**attempt)
            if attempt == _ATTEMPTS or monotonic() + delay >= deadline:
                break
            sleep(delay)
        raise Unavailable("The queue did not take every part", code="queue_unavailable")


def written_part(part: CrowdPart) -> str:
    """The part as the body of a message."""
    fault = None if part.fault is None else [part.fault.code, part.fault.text]
    return json.dumps({"streamKey": part.stream_key, "shard": part.shard, "topic": part.topic, "fault": fault})


def read_part(body: str) -> CrowdPart:
    """Read what `written_part` wrote. Raises `ValueError` or `KeyError` when it is not one."""
    fields = json.loads(body)
    topic, fault = fields["topic"], fields["fault"]
    return CrowdPart(
        stream_key=str(fields["streamKey"]),
        shard=int(fields["shard"]),
        topic=None if topic is None else str(topic),
        fault=None if fault is None else Fault(*map(str, fault)),
    )
