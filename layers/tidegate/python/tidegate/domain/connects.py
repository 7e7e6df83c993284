"""How the connections of an upstream fare: which one is relied on, how long to wait, and what is news to viewers.

A handshake proves little: some sources accept every connection and close it. So a connection counts once it has *held*,
which is to stay open for `HELD_S`.

Invariant of this file: while no connection holds and no value comes, the pauses grow to their maximum, and equal
faults in a row are news once.
"""

from __future__ import annotations

from tidegate.protocol.messages import ErrorCode

#: How long a connection stays open until it has held, seconds. A source that breaks every 20 seconds comes back in
#: about one second each time. A source that closes sooner is met with growing pauses.
HELD_S = 10.0
#: Failures that are counted at most while each connection brings a value before it ends. Some sources close after each
#: value and are polled. Browsers ask them again after about three seconds, and so do we: the pause is at most four
#: times the least one.
POLLED = 2


class Connects:
    """The connects of one upstream.

    Attributes:
        failed: failures in a row, for `backoff.delay_ms`.
    """

    def __init__(self) -> None:
        self.failed = 0
        self._short = 0  # connections in a row that opened and did not hold
        self._opened = self._spoke = self._brought = self._held = False

    def begin(self) -> None:
        """A connect begins."""
        self._opened = self._spoke = self._brought = self._held = False

    def open(self) -> None:
        """The upstream has answered."""
        self._opened = True

    def speak(self) -> None:
        """Something has come, if only a sign of life."""
        self._spoke = True

    def bring(self) -> None:
        """A value has come."""
        self._spoke = self._brought = True

    def hold(self) -> None:
        """The connection has been open for `HELD_S`."""
        self._held = True
        self.failed = self._short = 0

    def fail(self) -> None:
        """The connect failed, or the connection ended."""
        self.failed = min(self.failed + 1, POLLED) if self._brought else self.failed + 1
        if self._opened and not self._held:
            self._short += 1

    @property
    def was_empty(self) -> bool:
        """Whether the connection opened and has neither held nor brought anything."""
        return self._opened and not self._held and not self._spoke

    @property
    def reliable(self) -> bool:
        """Whether viewers may be told that this connection is there.

        At once, when the one before it held or never was. After one that did not hold, a value or time has to prove it.
        After several, only time.
        """
        if not self._opened:
            return False
        return self._held or self._short == 0 or (self._short == 1 and self._brought)


class Told:
    """The fault that viewers were told last."""

    def __init__(self) -> None:
        self._last: tuple[ErrorCode, str] | None = None
        self._at = 0

    def is_new(self, code: ErrorCode, text: str, requested_at: int, now: float) -> bool:
        """Whether to tell this fault, which then counts as told.

        An equal one is told again when somebody has subscribed since, because they have not heard it.

        Args:
            requested_at: when somebody subscribed last, epoch seconds.
            now: epoch seconds.
        """
        if self._last == (code, text) and requested_at < self._at:
            return False
        self._last, self._at = (code, text), int(now)
        return True

    def forget(self) -> None:
        """What was told holds no more."""
        self._last = None
