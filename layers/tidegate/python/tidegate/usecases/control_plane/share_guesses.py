"""Count guesses at share tokens, by the address they come from.

Invariant of this file: a share token is looked at only after its attempt was counted. One that is right costs nothing
in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tidegate.domain.attempts import AttemptPolicy
from tidegate.errors import NotFound, TidegateError
from tidegate.usecases.limits.attempts import Attempts

#: Wrong share tokens of one address in a minute, over all dashboards.
GUESSES_PER_IP = 30
_POLICY = AttemptPolicy(GUESSES_PER_IP, 60)

T = TypeVar("T")


class ShareGuesses:
    """Judges share tokens."""

    def __init__(self, *, attempts: Attempts) -> None:
        self._attempts = attempts

    def __call__(self, address: str, judge: Callable[[], T]) -> T:
        """What `judge` returns. The token was wrong when it raises `NotFound`.

        Args:
            address: the client's address in the form that limits count.

        Raises:
            LimitReached: too many wrong share tokens came from this address.
            LimiterUnavailable: that could not be checked and the failure mode is fail-closed.
        """
        deadline = self._attempts.deadline()
        attempt = self._attempts.begin(
            "share-guess", address, _POLICY, deadline=deadline, refusal="Too many wrong share tokens"
        )
        try:
            found = judge()
        except NotFound:
            self._attempts.wrong(attempt, deadline)
            raise
        except TidegateError:  # nobody said that it was wrong
            self._attempts.give_back(attempt, deadline)
            raise
        self._attempts.give_back(attempt, deadline)
        return found
