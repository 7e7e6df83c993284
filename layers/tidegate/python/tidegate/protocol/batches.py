"""Several frames in one message, for connections that asked for `batch` frames. No I/O.

Invariant of this file: the frames stay in order. Each is in exactly one message. A message of several frames has at
most `MAX_BYTES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

#: Messages of the managed WebSocket are billed per 32 KB, and larger frames are split there (API Gateway quotas).
MAX_BYTES = 32 * 1024
_HEAD, _TAIL = b'{"type":"batch","messages":[', b"]}"


def joined(bodies: Sequence[bytes]) -> bytes:
    """One message of encoded frames. A single frame is sent as it is."""
    return bodies[0] if len(bodies) == 1 else _HEAD + b",".join(bodies) + _TAIL


def fitting(sizes: Iterable[int]) -> int:
    """How many of the first frames make one message. A frame too large to share a message is sent alone.

    Args:
        sizes: the frames' sizes, bytes.
    """
    count, room = 0, MAX_BYTES - len(_HEAD) - len(_TAIL) + 1
    for size in sizes:
        room -= size + 1
        if room < 0 and count:
            break
        count += 1
    return count


def split(bodies: Sequence[bytes]) -> Iterator[bytes]:
    """The frames as messages, as few as the order allows."""
    start = 0
    while start < len(bodies):
        end = start + fitting(len(body) for body in bodies[start:])
        yield joined(bodies[start:end])
        start = end
