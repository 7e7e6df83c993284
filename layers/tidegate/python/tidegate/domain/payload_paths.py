"""Paths into a payload: `a.b[0]["c"][*]`. Pages read with them, in `web/app/src/widgets/path.ts`; here they are only
checked."""

from __future__ import annotations

import json
import re

#: One step: a name, a place in a list, a quoted name, or all. A name after the first has a dot before it.
_STEP = re.compile(r'(?P<dot>\.?)(?P<name>[^.\[\]"\s]+)|\[[0-9]+\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]|\[\*\]')

ALLOWED = 'a path such as a.b[0]["c"][*], or nothing for the payload itself'


def is_path(text: str) -> bool:
    """Whether pages can read with it. An empty path is the payload itself."""
    text, at = text.strip(), 0
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            return False
        if step["name"] is not None and (at == 0) == bool(step["dot"]):
            return False
        if step["quoted"] is not None and not _is_json(step["quoted"]):
            return False
        at = step.end()
    return True


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
