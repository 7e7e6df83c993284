"""The queue of device messages that come in batches, for checks that want a batch of several.

The emulator knows no batch window: it brings each message as soon as it is there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from local_stack.config import Config
from local_stack.deployment import client

#: How long messages may take from the broker to the queue, seconds.
_ARRIVE_S = 10.0


@contextmanager
def gathering(stack: Mapping[str, Any], count: int) -> Iterator[None]:
    """Nothing is brought to the bridge until so many messages are in the queue. `stack` is what `stack.json` holds.

    Raises:
        TimeoutError: they did not come.
    """
    config = Config(endpoint=stack["emulator_url"])
    functions, queues = client(config, "lambda"), client(config, "sqs")
    # No other queue has a batch window.
    (mapping,) = [
        mapping
        for mapping in functions.list_event_source_mappings()["EventSourceMappings"]
        if mapping["MaximumBatchingWindowInSeconds"]
    ]
    url = queues.get_queue_url(QueueName=mapping["EventSourceArn"].rsplit(":", 1)[1])["QueueUrl"]
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    try:
        yield
        deadline = time.monotonic() + _ARRIVE_S
        while (there := waiting(queues, url)) < count:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{there} of {count} messages are in the queue")
            time.sleep(0.05)
    finally:
        functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)


def waiting(queues: Any, url: str) -> int:
    """How many messages are in a queue for whoever asks next. `queues` is a client of SQS."""
    attributes = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(attributes["Attributes"]["ApproximateNumberOfMessages"])
