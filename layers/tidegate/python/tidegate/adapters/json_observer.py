"""Logs as JSON lines, and metrics in CloudWatch's embedded metric format, both on standard output.

Format: "Specification: Embedded metric format", Amazon CloudWatch User Guide.

Invariants of this file: the counts of an invocation leave when the handler ends, one line for each set of dimensions.
A line is written in one piece, so that the lines of several threads are never mixed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from tidegate.ports.runtime import Observer

#: CloudWatch accepts at most 100 metrics in a line, and 100 samples of a metric.
_MOST = 100

T = TypeVar("T")


class JsonObserver(Observer):
    """Collects counts and durations until `flush`. Log lines leave at once. Safe to use from several threads."""

    def __init__(
        self, service: str, stage: str, namespace: str = "Tidegate", write: Callable[[str], object] | None = None
    ) -> None:
        """
        Args:
            service: the function's name. It is in every line, and is a dimension of every metric.
            stage: the stage's name. It is a dimension of every metric, so that stages in one account are told apart.
            namespace: CloudWatch's namespace of the metrics.
            write: called with each line, its line end included. Standard output by default.
        """
        self._service = service
        self._stage = stage
        self._namespace = namespace
        self._write = write or _to_standard_output
        self._counts: dict[tuple[tuple[str, str], ...], dict[str, int]] = {}
        self._times: dict[str, list[float]] = {}
        self._about: Mapping[str, str] = {}

    def begin(self, **fields: str) -> None:
        """Put these fields, and no former ones, into every log line until this is called again."""
        self._about = fields

    def about(self, **fields: str) -> None:
        self._about = {**self._about, **fields}

    def count(self, name: str, value: int = 1, **dimensions: str) -> None:
        counts = self._counts.setdefault(tuple(sorted(dimensions.items())), {})
        counts[name] = counts.get(name, 0) + value

    def time(self, name: str, milliseconds: float) -> None:
        self._times.setdefault(name, []).append(milliseconds)

    def info(self, message: str, **fields: object) -> None:
        self._log("INFO", message, fields)

    def warning(self, message: str, **fields: object) -> None:
        self._log("WARNING", message, fields)

    def fault(self, message: str, error: BaseException, **fields: object) -> None:
        from traceback import format_exception  # here, because faults are rare and the import slows every cold start

        text = "".join(format_exception(error))
        self._log("ERROR", message, {**fields, "exception_name": type(error).__name__, "exception": text})

    def flush(self) -> None:
        """Write the counts and durations since the last flush."""
        counts, self._counts = self._counts, {}
        for dimensions, named in counts.items():
            for part in _parts(list(named.items())):
                self._emit("Count", dict(part), dict(dimensions))
        times, self._times = self._times, {}
        for name, samples in times.items():
            for chunk in _parts(samples):
                self._emit("Milliseconds", {name: chunk}, {})

    def _log(self, level: str, message: str, fields: Mapping[str, object]) -> None:
        caller = sys._getframe(2)
        line = {
            "level": level,
            "location": f"{caller.f_code.co_name}:{caller.f_lineno}",
            "message": message,
            "timestamp": _timestamp(time.time()),
            "service": self._service,
            **self._about,
            **fields,
        }
        self._write(json.dumps(line, separators=(",", ":"), default=str) + "\n")

    def _emit(self, unit: str, values: Mapping[str, object], dimensions: Mapping[str, str]) -> None:
        dimensions = {**dimensions, "service": self._service, "stage": self._stage}
        directive = {
            "Namespace": self._namespace,
            "Dimensions": [list(dimensions)],
            "Metrics": [{"Name": name, "Unit": unit} for name in values],
        }
        about = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
        self._write(json.dumps({"_aws": about, **dimensions, **values}, separators=(",", ":")) + "\n")


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _MOST):
        yield items[start : start + _MOST]


def _timestamp(now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"


def _to_standard_output(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()
