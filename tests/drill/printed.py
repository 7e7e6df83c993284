"""The drill's tables, as `make test` prints them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fixtures.faulty_aws import Fault
from tests.drill.expected import CAUSES

#: Answers by call, by fault.
Cells = Mapping[Fault, Mapping[str, str]]

#: Faults that are one kind share a column. When their answers differ, it shows all of them.
COLUMNS: Mapping[str, tuple[Fault, ...]] = {
    "hang": (Fault.HANG,),
    "reset": (Fault.RESET, Fault.CUT_OFF),
    "5xx": (Fault.ERROR_500, Fault.ERROR_503),
    "throttled": (Fault.OUT_OF_CAPACITY, Fault.THROTTLED, Fault.REQUEST_LIMIT),
    "denied": (Fault.DENIED,),
    "no table": (Fault.NO_TABLE,),
    "malformed": (Fault.CUT_JSON, Fault.OTHER_CONTENT, Fault.OTHER_ITEM, Fault.EMPTY),
    "flooded key": (Fault.FLOODED,),
}

#: Expected answers in a few letters. Any other is shown whole.
_SHORT = {f"503 {cause}": "503" for cause in CAUSES.values()} | {
    "503 limiter_unavailable": "503",
    "503 backend_fail_closed": "503",
    "200 backend_fail_open": "200 open",
    "200 allowed": "200",
    "429 limit_reached": "429",
    "STREAM_RATE_LIMITED, retryable, temporarily unavailable": "RATE, down",
    "STREAM_RATE_LIMITED, retryable": "RATE",
    "STREAM_CONNECT_FAILED, retryable": "FAILED",
}
LEGEND = (
    "RATE: STREAM_RATE_LIMITED, retryable. RATE, down: the same, and the text says that the limiter is unavailable. "
    "FAILED: STREAM_CONNECT_FAILED, retryable."
)


def short(answer: str) -> str:
    return _SHORT.get(answer, answer)


def rows(head: str, cells: Cells) -> list[list[str]]:
    """The rows of a table: a head, and the calls. It has a column for each kind of fault."""
    calls = [
        [call, *(_joined(cells[fault][call] for fault in faults if fault in cells) for faults in COLUMNS.values())]
        for call in cells[Fault.HANG]
    ]
    return [[head, *COLUMNS], *calls, [""] * (1 + len(COLUMNS))]


def _joined(answers: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(map(short, answers)))


def aligned(lines: list[list[str]]) -> str:
    """The lines with equally wide columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)
