"""Handlers of one release, in a process of their own. Started within the release's code; reads a request in each line.

It runs under the code of another release as well. So it imports nothing but what every release has: handlers by their
names, the first admin, and the leases.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from dataclasses import asdict
from typing import Any

#: For a busy machine, and so that a crowd is small: module, name, value.
_OTHERWISE = (
    ("tidegate.adapters.aws.json_client", "DEFAULT_TIMEOUT_S", 60.0),
    ("tidegate.adapters.dynamodb.client", "DEFAULT_TIMEOUT_S", 60.0),
    ("tidegate.domain.crowds", "CROWD", 3),
)


class Context:
    """A minute is left to each invocation."""

    aws_request_id = "request"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


def answer(asked: dict[str, Any]) -> Any:
    """What a request is answered: `handler` with `event`, `admin` with `password`, or `lease` with arguments."""
    if "handler" in asked:
        return importlib.import_module(asked["handler"]).handler(asked["event"], Context())
    if "admin" in asked:
        return importlib.import_module("ops.admin").first_admin(os.environ, asked["admin"], asked["password"])
    leases = importlib.import_module("tidegate.providers.control_plane").ControlPlaneProviders().relay_leases
    method, partition, *owner = asked["lease"]
    if method == "current":
        lease = leases.current(partition)
        return None if lease is None else asdict(lease)
    if method == "claim":
        return leases.claim(partition, owner[0], time.time()) is not None
    if method == "offer":
        return leases.offer(partition, owner[0]) is not None
    lease = leases.current(partition)
    return (
        leases.hand_over(lease, time.time()) if method == "hand over" else leases.renew(lease, time.time()) is not None
    )


def main() -> None:
    # What handlers print is their log.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for module, name, value in _OTHERWISE:
        setattr(importlib.import_module(module), name, value)
    for line in sys.stdin:
        try:
            told = {"answer": answer(json.loads(line))}
        except Exception:
            told = {"error": traceback.format_exc()}
        answers.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
