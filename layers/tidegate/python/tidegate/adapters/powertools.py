"""Logs and metrics through Powertools: structured JSON lines, and metrics in CloudWatch's embedded format.

Invariant of this file: counts of one invocation leave as one line per set of dimensions, when the handler ends.
"""

from __future__ import annotations

from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

#: Log lines name who called the observer, not the observer.
_CALLER = 3
#: CloudWatch accepts at most 100 metrics in one line.
_MAX_METRICS = 100


class PowertoolsObserver:
    """`ports.runtime.Observer`."""

    def __init__(self, service: str, namespace: str = "Tidegate") -> None:
        self._service = service
        self._namespace = namespace
        self._log = Logger(service=service)
        self._counts: dict[tuple[tuple[str, str], ...], dict[str, int]] = {}
        self._times: dict[str, list[float]] = {}

    def count(self, name: str, value: int = 1, **dimensions: str) -> None:
        counts = self._counts.setdefault(tuple(sorted(dimensions.items())), {})
        counts[name] = counts.get(name, 0) + value

    def time(self, name: str, milliseconds: float) -> None:
        self._times.setdefault(name, []).append(milliseconds)

    def info(self, message: str, **fields: object) -> None:
        self._log.info(message, extra=fields, stacklevel=_CALLER)

    def warning(self, message: str, **fields: object) -> None:
        self._log.warning(message, extra=fields, stacklevel=_CALLER)

    def fault(self, message: str, error: BaseException, **fields: object) -> None:
        self._log.error(message, exc_info=error, extra=fields, stacklevel=_CALLER)

    def flush(self) -> None:
        """Write the counts since the last flush."""
        counts, self._counts = self._counts, {}
        for dimensions, named in counts.items():
            metrics = EphemeralMetrics(namespace=self._namespace, service=self._service)
            for dimension, text in dimensions:
                metrics.add_dimension(name=dimension, value=text)
            for name, value in list(named.items())[:_MAX_METRICS]:
                metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)
            metrics.flush_metrics()
        times, self._times = self._times, {}
        for name, samples in times.items():
            # A line takes at most 100 samples of a metric.
            for start in range(0, len(samples), _MAX_METRICS):
                metrics = EphemeralMetrics(namespace=self._namespace, service=self._service)
                for sample in samples[start : start + _MAX_METRICS]:
                    metrics.add_metric(name=name, unit=MetricUnit.Milliseconds, value=sample)
                metrics.flush_metrics()
