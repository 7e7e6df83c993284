"""How often an external API is asked: its limit is for all of us together, and subscribes need most of it."""

from __future__ import annotations

from threading import Lock

from tidegate.ports import Clock


class AskingLimit:
    """So many questions in a minute of this process. Safe to use from several threads."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = Lock()
        self._window = (0, 0)

    def take(self) -> bool:
        """Whether one more may be asked now; if so it is counted."""
        minute = int(self._clock.now() // 60)
        with self._lock:
            asked = self._window[1] if self._window[0] == minute else 0
            if asked >= self._per_minute:
                return False
            self._window = (minute, asked + 1)
            return True
