"""An upstream's payload as JSON text that can be spliced into a frame."""

from __future__ import annotations

import json


class Unparsable(ValueError):
    """The payload is not what the stream's parser expects."""


def parsed(payload: bytes, parser: str) -> str:
    """The payload as JSON text that can be spliced into a frame.

    JSON is checked but not rewritten, so numbers keep every digit that the upstream sent. Text may be any bytes; those
    that are not UTF-8 become U+FFFD.

    Args:
        parser: `json` or `text`.

    Raises:
        Unparsable: it is not JSON, or is JSON that no browser reads (`NaN`, `Infinity`).
    """
    if parser == "text":
        return json.dumps(payload.decode("utf-8", "replace"), ensure_ascii=False)
    try:
        text = payload.decode("utf-8")
        json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Unparsable from error
    return text.strip()


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
