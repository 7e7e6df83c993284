"""Several frames in one message, for connections that asked for `batch` frames. No I/O.

Invariant of this file: the frames stay in order, each is in exactly one message, and a message of more than one frame
has at most `MAX_BYTES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

#: A message of the managed WebSocket is billed by 32 KB, and larger frames are split there (API Gateway quotas).
MAX_BYTES = 32 * 1024
_HEAD, _TAIL = b'{"type":"batch","messages":[', b"]}"


def joined(bodies: Sequence[bytes]) -> bytes:
    """One message of encoded frames; a single one goes as it is."""
    return bodies[0] if len(bodies) == 1 else _HEAD + b",".join(bodies) + _TAIL


def split(frames: Iterable[T], body: Callable[[T], bytes]) -> list[list[T]]:
    """Groups to be `joined`, as few as the order allows. A frame too large to share a message is alone."""
    groups: list[list[T]] = []
    room = 0
    for frame in frames:
        size = len(body(frame)) + 1
        if size > room or not groups:
            groups.append([])
            room = MAX_BYTES - len(_HEAD) - len(_TAIL) + 1
        groups[-1].append(frame)
        room -= size
    return groups
