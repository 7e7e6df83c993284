"""Revalidation tasks, and requests to follow profiles, as SQS messages. SQS delivers again what a crash left undone."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.domain.revocations import Task, TaskKind
from tidegate.errors import Unavailable
from tidegate.ports.control_plane import FollowRequests
from tidegate.ports.revocation import BuriedTasks, RevalidationQueue

#: Attribute of a buried message: the name of the queue that it goes back to.
HOME = "home"


class SqsRevalidationQueue(RevalidationQueue):
    """Sends revalidation tasks to an SQS queue."""

    def __init__(self, client: JsonClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def queue(self, task: Task, delay_s: int = 0) -> None:
        _send(self._client, self._queue_url, _body(task), delay_s)


class SqsBuriedTasks(BuriedTasks):
    """Sends tasks to a dead-letter queue, each with a note of where it came from: SQS notes that itself only of what it
    moved."""

    def __init__(self, client: JsonClient, dead_url: str, queue_url: str) -> None:
        """`queue_url`: of the queue that they go back to."""
        self._client = client
        self._dead_url = dead_url
        self._home = {HOME: {"DataType": "String", "StringValue": queue_url.rpartition("/")[2]}}

    def bury(self, task: Task) -> None:
        self.bury_unread(_body(task))

    def bury_unread(self, body: str) -> None:
        _send(self._client, self._dead_url, body, 0, {"MessageAttributes": self._home})


class SqsFollowRequests(FollowRequests):
    """Sends requests to follow profiles to an SQS queue."""

    def __init__(self, client: JsonClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def ask(self, delay_s: int = 0) -> None:
        _send(self._client, self._queue_url, "{}", delay_s)


def _body(task: Task) -> str:
    fields: dict[str, object] = {"kind": task.kind.value, "target": task.target, "sinceMs": task.since_ms}
    if task.kind is TaskKind.DOCUMENT:
        fields |= {"revision": task.revision, "after": task.after, "viewers": list(task.viewers)}
    if task.tries:
        fields["tries"] = task.tries
    return json.dumps(fields)


def _send(
    client: JsonClient, queue_url: str, body: str, delay_s: int, further: Mapping[str, object] | None = None
) -> None:
    message = {"QueueUrl": queue_url, "MessageBody": body, "DelaySeconds": delay_s, **(further or {})}
    try:
        client.call("SendMessage", message)
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
        tries=int(fields.get("tries", 0)),
    )
