"""SQS queues as operations see them: how deep they are, and how what failed in them is tried again.

SQS can move messages by itself (`StartMessageMoveTask`). Neither the emulator nor moto can, so what is tested would not
be what runs. Moving them here takes the same rights.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any

from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.adapters.aws.revalidation_queue import HOME
from tidegate.errors import Unavailable
from tidegate.ports.operations import DeadLetterQueue, QueueDepth, WatchedQueue

_DEPTHS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
#: Most messages of one receive (SQS's quota).
_AT_ONCE = 10
#: How long a message that is moved is kept from others, seconds: longer than sending and deleting ten takes.
_HIDDEN_S = 60
_SOURCE = "DeadLetterQueueSourceArn"


class SqsQueueWatch(WatchedQueue):
    """Reads a queue's attributes."""

    def __init__(self, client: JsonClient, queue_url: str) -> None:
        self._client = client
        self._url = queue_url

    def depth(self, deadline: float) -> QueueDepth:
        answer = self._ask("GetQueueAttributes", {"AttributeNames": list(_DEPTHS)}, deadline)
        try:
            return QueueDepth(*(int(answer["Attributes"][name]) for name in _DEPTHS))
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable("The queue's answer cannot be read", code="queue_unavailable") from error

    def _ask(self, operation: str, payload: Mapping[str, Any], deadline: float, url: str = "") -> dict[str, Any]:
        try:
            return self._client.call(operation, {"QueueUrl": url or self._url, **payload}, deadline=deadline)
        except AwsError as error:
            raise Unavailable("The queue did not answer", code="queue_unavailable") from error


class SqsDeadLetters(SqsQueueWatch, DeadLetterQueue):
    """A dead-letter queue, and the queues that leave messages in it."""

    def __init__(self, client: JsonClient, queue_url: str, sources: tuple[str, ...]) -> None:
        """`sources`: URLs of the queues whose messages come here. Of these URLs, the last part is the queue's name."""
        super().__init__(client, queue_url)
        self._sources = {url.rpartition("/")[2]: url for url in sources}

    def oldest_ms(self, deadline: float) -> int | None:
        messages = self._receive(0, ["SentTimestamp"], deadline)
        sent = [int(message["Attributes"]["SentTimestamp"]) for message in messages]
        return min(sent, default=None)

    def move_back(self, most: int, deadline: float) -> int:
        moved = 0
        while moved < most and monotonic() < deadline:
            messages = self._receive(_HIDDEN_S, [_SOURCE], deadline, min(_AT_ONCE, most - moved))
            if not messages:
                break
            for message in messages:
                if (home := self._home(message)) is None:
                    continue
                self._ask("SendMessage", {"MessageBody": message["Body"]}, deadline, home)
                self._ask("DeleteMessage", {"ReceiptHandle": message["ReceiptHandle"]}, deadline)
                moved += 1
        return moved

    def _home(self, message: Mapping[str, Any]) -> str | None:
        """URL of the queue that a message came from."""
        if len(self._sources) == 1:
            return next(iter(self._sources.values()))
        noted = message.get("MessageAttributes", {}).get(HOME, {}).get("StringValue")
        moved_by_sqs = str(message.get("Attributes", {}).get(_SOURCE, "")).rpartition(":")[2]
        return self._sources.get(str(noted or moved_by_sqs))

    def _receive(
        self, hidden_s: int, attributes: list[str], deadline: float, most: int = _AT_ONCE
    ) -> list[dict[str, Any]]:
        asked = {
            "MaxNumberOfMessages": most,
            "VisibilityTimeout": hidden_s,
            "AttributeNames": attributes,
            "MessageAttributeNames": [HOME],
        }
        return list(self._ask("ReceiveMessage", asked, deadline).get("Messages") or [])
