"""JSON of callers, read strictly.

Python's reader takes more than JSON: `NaN`, `Infinity`, numbers too large to be one, and lone surrogates, which are no
characters and cannot be stored or answered.

Invariant of this file: what `loads` returns can be written as JSON in UTF-8 again.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from tidegate.errors import InvalidInput

#: Only an escape can bring a lone surrogate, because the text was UTF-8.
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def loads(raw: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        InvalidInput: it is not JSON or not UTF-8, is nested too deeply, or has `NaN`, `Infinity`, a number too large
            for a float, or a lone surrogate.
    """
    try:
        text = raw.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        if _SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            "The body is not valid JSON: UTF-8, without NaN, Infinity, numbers that are too large and lone surrogates"
        ) from error
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("the number is too large")
    return number
