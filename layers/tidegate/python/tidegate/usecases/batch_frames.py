"""Frames of all streams of a relay worker, gathered for connections that asked for `batch` frames.

A connection is sent at most one message in `WINDOW_S`, with everything that came meanwhile: a dashboard of many
datasources costs its account a tenth of the requests and more. The first frame after a pause leaves at once.

Invariant of this file: frames of one connection leave in order, and what is given up is data that a newer value of
the same subscription follows.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event, Lock

from tidegate.domain.errors import CouldNotCheck
from tidegate.ports import Observer
from tidegate.usecases.send_frames import Frame, SendFrames

#: Between two messages to a connection, seconds. The default of REALTIME_MAX_UPDATES_PER_SECOND is as fine.
WINDOW_S = 0.1
#: What may wait for one connection, bytes; beyond it the newest value of a subscription wins.
_KEPT_BYTES = 256 * 1024


class BatchFrames:
    """Safe to use from many threads; `run` is for one of its own."""

    def __init__(self, send: SendFrames, observer: Observer) -> None:
        """`send` is used by one thread at a time."""
        self._send = send
        self._observer = observer
        self._changing = Lock()
        self._sending = Lock()
        self._waiting: dict[str, list[Frame]] = {}
        self._sizes: dict[str, int] = {}
        self._some = Event()
        self._ended = Event()

    def add(self, frames: Iterable[Frame]) -> None:
        """Have them sent soon. Never waits for the platform."""
        with self._changing:
            for frame in frames:
                connection_id = frame.row.key.connection_id
                line = self._waiting.setdefault(connection_id, [])
                line.append(frame)
                size = self._sizes.get(connection_id, 0) + len(frame.body)
                if size > _KEPT_BYTES and frame.is_data:
                    size = self._make_room(line)
                self._sizes[connection_id] = size
        self._some.set()

    def flush(self) -> None:
        """Send what waits. What was added before is sent, or given up, when this returns."""
        with self._sending:
            with self._changing:
                self._some.clear()
                waiting, self._waiting, self._sizes = self._waiting, {}, {}
            frames = [frame for line in waiting.values() for frame in line]
            try:
                self._send(frames)
            except CouldNotCheck as error:
                self._observer.fault("batches not delivered", error)
                self._send.try_again_later({frame.row.key: frame.row for frame in frames}.values())

    def run(self) -> None:
        """Flush, at most once in a window, until `end`."""
        while not self._ended.is_set():
            self._some.wait()
            try:
                self.flush()
            except Exception as error:  # the next window's frames are not this one's
                self._observer.fault("batches not delivered", error)
            self._ended.wait(WINDOW_S)

    def end(self) -> None:
        self._ended.set()
        self._some.set()

    def _make_room(self, line: list[Frame]) -> int:
        """Keep of every subscription's data the newest only. Returns the bytes that are left."""
        seen, kept = set(), []
        for frame in reversed(line):
            if not frame.is_data or frame.row.key not in seen:
                kept.append(frame)
            if frame.is_data:
                seen.add(frame.row.key)
        self._observer.count("frames_conflated", len(line) - len(kept))
        line[:] = reversed(kept)
        return sum(len(frame.body) for frame in line)
