"""Relay workers as asynchronous invocations of the relay function."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.adapters.aws.invocations import Invocations
from tidegate.ports.relay_workers import RelayWorkers

_PARTITION, _SUCCESSOR = "partition", "successor"


class LambdaRelayWorkers(RelayWorkers):
    """Starts workers by invoking the relay function asynchronously."""

    def __init__(self, relay: Invocations) -> None:
        self._relay = relay

    def start(self, partition: int, *, successor: bool = False) -> None:
        """Raises `Unavailable` when the invocation was not accepted."""
        self._relay.invoke({_PARTITION: partition, _SUCCESSOR: successor})


class NoRelayWorkers(RelayWorkers):
    """Starts nobody: the workers are processes that stay, and find by themselves what they are needed for."""

    def start(self, partition: int, *, successor: bool = False) -> None:
        return


def read_start(event: Mapping[str, object]) -> tuple[int, bool]:
    """(partition, whether as a successor) of an invocation that `LambdaRelayWorkers.start` asked for.

    Raises:
        KeyError: the event is not one of those.
    """
    return int(str(event[_PARTITION])), bool(event.get(_SUCCESSOR))
