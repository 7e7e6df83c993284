"""Several frames in one message, for connections that asked for `batch` frames. No I/O.

Invariant of this file: the frames stay in order, each is in exactly one message, and a message of more than one frame
has at most `MAX_BYTES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

#: A message of the managed WebSocket is billed by 32 KB, and larger frames are split there (API Gateway quotas).
MAX_BYTES = 32 * 1024
_HEAD, _TAIL = b'{"type":"batch","messages":[', b"]}"


def joined(bodies: Sequence[bytes]) -> bytes:
    """One message of encoded frames; a single one goes as it is."""
    return bodies[0] if len(bodies) == 1 else _HEAD + b",".join(bodies) + _TAIL


def fitting(sizes: Iterable[int]) -> int:
    """How many of the first frames, of these sizes in bytes, make one message; one too large to share it is alone."""
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
