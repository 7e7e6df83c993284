"""What the outputs of a stage's stack say to whoever acts in place of a function of it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tidegate.tables import ALL_TABLES


def output(variable: str) -> str:
    """The output that holds the value of an environment variable."""
    return variable.title().replace("_", "")


def environment(outputs: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of all tables and queues. A stack of an older release has one queue only."""
    return {
        "REVALIDATION_QUEUE_URL": outputs["RevalidationQueueUrl"],
        **json.loads(outputs.get("Queues", "{}")),
        **{table.variable: outputs[output(table.variable)] for table in ALL_TABLES},
    }
