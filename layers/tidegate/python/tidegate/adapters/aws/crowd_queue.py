"""Parts of a crowd as SQS messages: one call for all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from time import monotonic

from tidegate.adapters.aws.catch_up_queue import BATCH, send_batch
from tidegate.adapters.aws.json_client import JsonClient
from tidegate.domain.crowds import CrowdPart
from tidegate.domain.subscriptions import Fault
from tidegate.errors import Unavailable
from tidegate.ports.delivery import CrowdQueue

#: How long asking may take, seconds.
_ASK_S = 5.0


class SqsCrowdQueue(CrowdQueue):
    """Sends parts to an SQS queue."""

    def __init__(self, client: JsonClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def ask(self, parts: Sequence[CrowdPart], delay_s: int = 0) -> None:
        later = {"DelaySeconds": delay_s} if delay_s else {}
        deadline = monotonic() + _ASK_S
        for start in range(0, len(parts), BATCH):
            messages = [{"MessageBody": written_part(part), **later} for part in parts[start : start + BATCH]]
            if send_batch(self._client, self._queue_url, messages, deadline):
                raise Unavailable("The queue did not take every part", code="queue_unavailable")


def written_part(part: CrowdPart) -> str:
    """The part as the body of a message."""
    fault = None if part.fault is None else [part.fault.code, part.fault.text]
    fields = {"streamKey": part.stream_key, "shard": part.shard, "topics": part.topics, "fault": fault}
    # The release before knows parts of one topic only.
    alone = {"topic": part.topics[0]} if len(part.topics) == 1 else {}
    return json.dumps({**fields, **alone, "begun": part.begun})


def read_part(body: str) -> CrowdPart:
    """Read what `written_part` wrote. Raises `ValueError` or `KeyError` when it is not one."""
    fields = json.loads(body)
    # A message that was written before a deploy has one topic.
    topics, fault = fields["topics"] if "topics" in fields else [fields["topic"]], fields["fault"]
    return CrowdPart(
        stream_key=str(fields["streamKey"]),
        shard=int(fields["shard"]),
        topics=tuple(None if topic is None else str(topic) for topic in topics),
        fault=None if fault is None else Fault(*map(str, fault)),
        begun=bool(fields.get("begun", False)),
    )
