"""Parts of a crowd are asked for with one call, and again where SQS takes only some of them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tidegate.adapters.aws.crowd_queue import SqsCrowdQueue, read_part, written_part
from tidegate.adapters.aws.json_client import AwsError
from tidegate.domain.crowds import AUDIENCE_SHARDS, CrowdPart, parts
from tidegate.domain.subscriptions import Fault
from tidegate.errors import Unavailable


class Sqs:
    """Takes what comes, but for the first `refused` messages. `error`: is raised in place of an answer."""

    def __init__(self, refused: int = 0, error: AwsError | None = None) -> None:
        self.refused = refused
        self.error = error
        self.calls: list[int] = []
        self.taken: list[CrowdPart] = []

    def call(self, operation: str, request: dict[str, Any], *, deadline: float) -> dict[str, Any]:
        assert operation == "SendMessageBatch" and deadline
        self.calls.append(len(request["Entries"]))
        if self.error is not None:
            raise self.error
        taken = []
        for entry in request["Entries"]:
            if self.refused:
                self.refused -= 1
                continue
            self.taken.append(read_part(entry["MessageBody"]))
            taken.append({"Id": entry["Id"]})
        return {"Successful": taken, "Failed": []}


def ask(sqs: Sqs, asked: list[CrowdPart]) -> None:
    SqsCrowdQueue(cast(Any, sqs), "queue").ask(asked)


@pytest.mark.parametrize("fault", [None, Fault("STREAM_PROTOCOL_ERROR", "é")])
def test_all_parts_are_asked_for_with_one_call(fault: Fault | None) -> None:
    sqs, asked = Sqs(), list(parts("stream", ("a/é", None), fault))
    ask(sqs, asked)
    assert sqs.calls == [AUDIENCE_SHARDS] and sqs.taken == asked


def test_what_sqs_refuses_of_them_is_sent_again() -> None:
    sqs, asked = Sqs(refused=3), list(parts("stream"))
    ask(sqs, asked)
    assert sqs.calls == [AUDIENCE_SHARDS, 3]
    assert sorted(part.shard for part in sqs.taken) == list(range(AUDIENCE_SHARDS))


def test_what_is_not_known_to_be_queued_is_an_error() -> None:
    with pytest.raises(Unavailable):
        ask(Sqs(refused=1000), list(parts("stream")))
    with pytest.raises(Unavailable):
        ask(Sqs(error=AwsError("sqs", "x", "NotAnswered", "", True, {})), list(parts("stream")))
    with pytest.raises(AwsError):
        ask(Sqs(error=AwsError("sqs", "x", "NoQueue", "", False, {})), list(parts("stream")))


def test_a_message_of_another_kind_is_refused() -> None:
    part = CrowdPart("stream", 3, ("a/b", "a/c"), begun=True)
    assert read_part(written_part(part)) == part
    before_a_deploy = '{"streamKey": "k", "shard": 1, "topic": "a/b", "fault": null}'
    assert read_part(before_a_deploy) == CrowdPart("k", 1, ("a/b",))
    for body in ("", "{}", "[]", '{"streamKey": "k", "shard": "x", "topic": null, "fault": null}'):
        with pytest.raises((ValueError, KeyError, TypeError)):
            read_part(body)
