"""Catch-up requests as delayed SQS messages.

Invariant of this file: `queue_many` returns by its deadline, and a request that it does not return is in the queue.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic, sleep

from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.domain.subscriptions import CatchUpRequest, SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.delivery import CatchUpQueue

#: Delay of a catch-up, seconds. It is longer than an audience is cached (1 s) plus the usual lag of a global index
#: (well under a second).
DELAY_S = 3
#: One that was postponed is delayed by up to so many seconds more, each time by another number.
_POSTPONED_S = 40
#: Most messages in one call, and most bytes of their bodies. Source: quotas of messages, Amazon SQS Developer Guide.
#: A batch may have a megabyte by now; the older bound holds everywhere.
BATCH = 10
BATCH_BYTES = 256 * 1024
#: Bytes of what a message says of topics. A stream has 200 at most, and those of IoT Core have 256 bytes at most.
_SEEN_BYTES, _TOPICS_BYTES, _SENT_BYTES = 100 * 1024, 20 * 1024, 20 * 1024
#: Calls at the same time. With answers after 10 ms they queue some 16,000 requests a second.
WIDTH = 16
#: How often the messages are sent of which SQS says that they failed.
_ATTEMPTS = 4
_BASE_DELAY_S = 0.025

#: A request and its body.
_Message = tuple[CatchUpRequest, str]


class SqsCatchUpQueue(CatchUpQueue):
    """Sends catch-up requests to an SQS queue. Safe to use from several threads."""

    def __init__(self, client: JsonClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def queue(self, request: CatchUpRequest) -> None:
        message = {
            "QueueUrl": self._queue_url,
            "MessageBody": written_catch_up(request),
            "DelaySeconds": _delay_s(request),
        }
        try:
            self._client.call("SendMessage", message)
        except AwsError as error:
            if error.temporary:
                raise Unavailable("The queue did not answer", code="queue_unavailable") from error
            raise

    def queue_many(self, requests: Sequence[CatchUpRequest], deadline: float) -> Sequence[CatchUpRequest]:
        from concurrent.futures import ThreadPoolExecutor  # here, because it is rare and the import slows cold starts

        batches = list(_batches(requests))
        if len(batches) <= 1:
            return [request for batch in batches for request in self._queue_batch(batch, deadline)]
        with ThreadPoolExecutor(min(WIDTH, len(batches))) as pool:
            left = pool.map(lambda batch: self._queue_batch(batch, deadline), batches)
            return [request for batch in left for request in batch]

    def _queue_batch(self, batch: Sequence[_Message], deadline: float) -> Sequence[CatchUpRequest]:
        """Queue a batch. Returns what was not queued."""
        entries = [{"MessageBody": body, "DelaySeconds": _delay_s(request)} for request, body in batch]
        left = send_batch(self._client, self._queue_url, entries, deadline)
        return [batch[place][0] for place in left]


def send_batch(
    client: JsonClient, queue_url: str, messages: Sequence[Mapping[str, object]], deadline: float
) -> Sequence[int]:
    """Send up to `BATCH` messages with one call. Of what SQS took in part, the rest is sent again.

    Args:
        messages: entries of `SendMessageBatch` without `Id`.
        deadline: monotonic seconds after which no call begins.

    Returns:
        The places of those that are not known to be queued.

    Raises:
        AwsError: SQS refused the call, and would again.
    """
    left: Sequence[int] = range(len(messages))
    for attempt in range(1, _ATTEMPTS + 1):
        if monotonic() >= deadline:
            break
        entries = [{"Id": str(number), **messages[place]} for number, place in enumerate(left)]
        try:
            answer = client.call("SendMessageBatch", {"QueueUrl": queue_url, "Entries": entries}, deadline=deadline)
        except AwsError as error:
            if not error.temporary:
                raise
            break  # the client has tried again already
        taken = _taken(answer)
        left = [place for number, place in enumerate(left) if number not in taken]
        delay = random.uniform(0, _BASE_DELAY_S * 2**attempt)
        if not left or attempt == _ATTEMPTS or monotonic() + delay >= deadline:
            break
        sleep(delay)
    return left


def _delay_s(request: CatchUpRequest) -> int:
    """Longer each time it is postponed, and not all at the same moment."""
    return DELAY_S + random.randint(0, min(_POSTPONED_S, 2**request.postponed)) if request.postponed else DELAY_S


def _taken(answer: Mapping[str, object]) -> set[int]:
    """The places that the answer lists as successful. What it does not name is not known to be queued."""
    listed = answer.get("Successful")
    ids = [entry.get("Id") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return {int(each) for each in ids if isinstance(each, str) and each.isdecimal()}


def _batches(requests: Sequence[CatchUpRequest]) -> Iterator[Sequence[_Message]]:
    """The requests in batches that one call may send."""
    batch: list[_Message] = []
    size = 0
    for request in requests:
        body = written_catch_up(request)
        if batch and (len(batch) == BATCH or size + len(body) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((request, body))
        size += len(body)  # the body is ASCII, so these are bytes
    if batch:
        yield batch


def written_catch_up(request: CatchUpRequest) -> str:
    """The request as the body of a message."""
    fields: dict[str, object] = {
        "dashboardId": request.key.dashboard_id,
        "connectionId": request.key.connection_id,
        "datasourceId": request.key.datasource_id,
        "generation": request.generation,
        "streamKey": request.stream_key,
        "seen": _fitting(request.seen),
        "told": request.told,
        "topics": _fitting_topics(request.topics),
        "postponed": request.postponed,
    }
    if (left := request.recovering) is not None:
        sent, marks, recovered = dict(left.sent), dict(left.marks), left.recovered
        # Topics may be long. Then the viewer is told that something may be missing.
        if len(json.dumps([sent, marks])) > _SENT_BYTES:
            sent, marks, recovered = {}, {}, False
        fields["recovering"] = [left.seconds, left.every_ms, left.since, sent, marks, recovered, left.looks]
    return json.dumps(fields)


def _fitting(seen: Mapping[str, tuple[int, str]]) -> dict[str, list[int | str]]:
    """As much of it as a message may have. What is left out is sent once more."""
    fitting: dict[str, list[int | str]] = {}
    size = 0
    for topic, order in seen.items():
        size += len(json.dumps([topic, order]))
        if size > _SEEN_BYTES:
            break
        fitting[topic] = list(order)
    return fitting


def _fitting_topics(topics: frozenset[str] | None) -> list[str] | None:
    """The topics, or None when they are more than a message may have: then it may be any."""
    if topics is None or len(json.dumps(listed := sorted(topics))) > _TOPICS_BYTES:
        return None
    return listed


def read_catch_up(body: str) -> CatchUpRequest:
    """Read what `written_catch_up` wrote. Raises `ValueError` or `KeyError` when it is not one."""
    fields = json.loads(body)
    told, topics = fields["told"], fields["topics"]
    recovering = None
    if "recovering" in fields:
        from tidegate.domain.history import Recovering  # here, because few viewers were away

        recovering = Recovering(*fields["recovering"])
    return CatchUpRequest(
        key=SubscriptionKey(fields["dashboardId"], fields["connectionId"], fields["datasourceId"]),
        generation=fields["generation"],
        stream_key=fields["streamKey"],
        seen={str(topic): (int(at), str(message_id)) for topic, (at, message_id) in fields["seen"].items()},
        told=None if told is None else int(told),
        topics=None if topics is None else frozenset(map(str, topics)),
        recovering=recovering,
        postponed=int(fields.get("postponed", 0)),  # a message of the version before has none
    )
