"""How the relay's workers are started. Conventions: see `ports.runtime`."""

from __future__ import annotations

from typing import Protocol


class RelayWorkers(Protocol):
    """Starts the relay's workers."""

    def start(self, partition: int, *, successor: bool = False) -> None:
        """Make sure that a worker holds the partition's upstreams soon. Repeated and needless calls are harmless.

        A `successor` connects its upstreams while the worker that asks for it still runs, and waits to be handed the
        partition.
        """
