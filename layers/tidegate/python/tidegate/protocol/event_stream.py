"""The event-stream format of server-sent events, as bytes come in.

It does no I/O. It follows the WHATWG HTML standard, section 9.2.6 (interpreting an event stream). Chunks may end
anywhere, even inside a character or between CR and LF. The work is linear in the number of bytes, whatever the chunks.

Invariant of this file: equal bytes give equal events, however they are cut into chunks.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

#: A longer `retry` is taken as this: one day, in milliseconds.
MAX_RETRY_MS = 86_400_000

_LINE_END = re.compile(r"\r\n|\n|\r")
#: Stands for a line of which nothing is kept: a comment, or a line beyond the limit. It is not empty, because an empty
#: line ends the event.
_DROPPED = ":"


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One dispatched event.

    Attributes:
        data: the `data` lines joined by newlines.
        event: its type; `message` when it names none.
        event_id: the last id seen in the stream; empty before the first.
    """

    data: str
    event: str = "message"
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """An event beyond the size limit was dropped. The stream goes on after it."""


class EventStream:
    """Takes bytes and gives events. There is one for each connection.

    Attributes:
        last_event_id: id of the last complete event that had one. Give it to the next connection's stream and to the
            upstream. The id of an event that was too large counts too, if it came before the limit: the upstream would
            only send the same large event again.
        retry_ms: reconnection time that the upstream asked for, at most `MAX_RETRY_MS`; None until it asks.
    """

    def __init__(self, max_bytes: int, last_event_id: str = "") -> None:
        """`max_bytes` limits the UTF-8 size of one event's lines, without line ends and comments."""
        self._max_bytes = max_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._started = False
        self._pieces: list[str] = []  # of the line that has not ended
        self._after_cr = False  # a LF now belongs to the CR before it
        self._size = 0
        self._too_large = False
        self._data: list[str] = []
        self._event = ""
        self._id = last_event_id
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None

    def feed(self, chunk: bytes) -> list[ServerSentEvent | TooLarge]:
        """The events that end in this chunk. An event that is too large is reported once, where it passes the limit.

        An event that never ends is never dispatched.
        """
        text = self._decoder.decode(chunk)
        if not text:
            return []
        if not self._started:
            self._started = True
            text = text.removeprefix("\ufeff")
        if self._after_cr:
            self._after_cr = False
            text = text.removeprefix("\n")
        found: list[ServerSentEvent | TooLarge] = []
        start = 0
        for end in _LINE_END.finditer(text):
            self._take(text[start : end.start()], found)
            self._line("".join(self._pieces), found)
            self._pieces = []
            start = end.end()
        self._after_cr = text.endswith("\r")
        self._take(text[start:], found)
        return found

    def _take(self, piece: str, found: list[ServerSentEvent | TooLarge]) -> None:
        """Take a part of a line. Comments only keep a quiet stream open, so they count towards no event's size."""
        if not piece or self._pieces == [_DROPPED]:
            return
        if self._too_large or (not self._pieces and piece.startswith(":")):
            self._pieces = [_DROPPED]
            return
        self._size += len(piece) if piece.isascii() else len(piece.encode("utf-8", "replace"))
        if self._size > self._max_bytes:
            self._too_large = True
            self._pieces, self._data = [_DROPPED], []
            found.append(TooLarge())
        else:
            self._pieces.append(piece)

    def _line(self, line: str, found: list[ServerSentEvent | TooLarge]) -> None:
        if line == "":
            self._dispatch(found)
            return
        if line.startswith(_DROPPED):
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._event = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry_ms = _retry_ms(value)

    def _dispatch(self, found: list[ServerSentEvent | TooLarge]) -> None:
        self.last_event_id = self._id
        if self._data:
            found.append(ServerSentEvent("\n".join(self._data), self._event or "message", self._id))
        self._data, self._event = [], ""
        self._size, self._too_large = 0, False


def _retry_ms(digits: str) -> int:
    significant = digits.lstrip("0")
    if len(significant) > len(str(MAX_RETRY_MS)):
        return MAX_RETRY_MS  # decided by length, because `int` refuses thousands of digits
    return min(int(significant or "0"), MAX_RETRY_MS)
