"""Revalidation tasks, and requests to follow profiles, as SQS messages. SQS delivers again what a crash left undone."""

from __future__ import annotations

import json

from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.domain.revocations import Task, TaskKind
from tidegate.errors import Unavailable
from tidegate.ports.control_plane import FollowRequests
from tidegate.ports.revocation import RevalidationQueue


class SqsRevalidationQueue(RevalidationQueue):
    """Sends revalidation tasks to an SQS queue."""

    def __init__(self, client: JsonClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def queue(self, task: Task, delay_s: int = 0) -> None:
        fields: dict[str, object] = {"kind": task.kind.value, "target": task.target, "sinceMs": task.since_ms}
        if task.kind is TaskKind.DOCUMENT:
            fields |= {"revision": task.revision, "after": task.after, "viewers": list(task.viewers)}
        _send(self._client, self._queue_url, json.dumps(fields), delay_s)


class SqsFollowRequests(FollowRequests):
    """Sends requests to follow profiles to an SQS queue."""

    def __init__(self, client: JsonClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def ask(self) -> None:
        _send(self._client, self._queue_url, "{}", 0)


def _send(client: JsonClient, queue_url: str, body: str, delay_s: int) -> None:
    try:
        client.call("SendMessage", {"QueueUrl": queue_url, "MessageBody": body, "DelaySeconds": delay_s})
    except AwsError as error:
        if error.temporary:
            raise Unavailable("The queue did not answer", code="queue_unavailable") from error
        raise


def read_task(body: str) -> Task:
    """Read a message that `queue` wrote. Raises `ValueError` or `KeyError` when it is not one."""
    fields = json.loads(body)
    return Task(
        TaskKind(fields["kind"]),
        str(fields["target"]),
        int(fields.get("sinceMs", 0)),
        revision=int(fields.get("revision", 0)),
        after=str(fields.get("after", "")),
        viewers=tuple(map(str, fields.get("viewers", ()))),
    )
