"""Revalidation work as SQS messages: what a crash leaves undone comes back by itself."""

from __future__ import annotations

import json

from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.domain.errors import CouldNotCheck
from tidegate.domain.revocations import Task, TaskKind


class SqsRevalidations:
    """`ports.Revalidations`."""

    def __init__(self, client: JsonClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def queue(self, task: Task, delay_s: int = 0) -> None:
        body = json.dumps({"kind": task.kind.value, "target": task.target})
        request = {"QueueUrl": self._queue_url, "MessageBody": body, "DelaySeconds": delay_s}
        try:
            self._client.call("SendMessage", request)
        except AwsError as error:
            if error.temporary:
                raise CouldNotCheck("The queue did not answer", code="queue_unavailable") from error
            raise


def read_task(body: str) -> Task:
    """The message `queue` wrote. Raises `ValueError` or `KeyError` when it is not one."""
    fields = json.loads(body)
    return Task(TaskKind(fields["kind"]), str(fields["target"]))
