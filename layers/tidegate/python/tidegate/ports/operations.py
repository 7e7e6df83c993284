"""What operations look at and act on. Conventions: see `ports.runtime`. Every `deadline` is in monotonic seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many messages a queue has. SQS counts approximately.

    Attributes:
        waiting: messages that nobody has received.
        in_flight: messages that a function works at.
        delayed: messages that are not due yet.
    """

    waiting: int
    in_flight: int
    delayed: int

    @property
    def all(self) -> int:
        return self.waiting + self.in_flight + self.delayed


class WatchedQueue(Protocol):
    def depth(self, deadline: float) -> QueueDepth:
        """Raises `Unavailable`."""


class DeadLetterQueue(WatchedQueue, Protocol):
    """A queue of messages that failed as often as their own queue allows."""

    def oldest_ms(self, deadline: float) -> int | None:
        """When the oldest of up to ten messages was sent, epoch milliseconds; None when there is none.

        The messages stay, and others may receive them at once. Raises `Unavailable`.
        """

    def move_back(self, most: int, deadline: float) -> int:
        """Send messages to the queues they came from, at most so many, and return how many.

        A message is deleted here after it was sent there. So none is lost, and one may come twice. One whose queue is
        not known stays.

        Raises:
            Unavailable: SQS did not answer. What was moved before stays moved.
        """
