"""The dashboard of `infra.dashboard_table`, as CloudWatch has it. Its first row is the alarms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from infra.alarm_table import PERIOD_S
from infra.dashboard_table import ROWS, Graph, Line
from infra.stage import Stage
from infra.watched import Watched

#: Columns of a dashboard, and lines of a row.
_WIDTH, _HEIGHT = 24, 6


class Dashboard(Construct):
    """One for the stage."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        watched: Watched,
        alarms: Sequence[cloudwatch.IAlarm],
    ) -> None:
        super().__init__(scope, construct_id)
        self._stage, self._watched = stage.name, watched
        stack = cdk.Stack.of(self)
        # An account has its dashboards once for all regions.
        self.name = f"{stack.stack_name}-{stack.region}"
        made = cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=self.name,
            default_interval=cdk.Duration.hours(3),
            period_override=cloudwatch.PeriodOverride.INHERIT,
        )
        made.add_widgets(
            cloudwatch.AlarmStatusWidget(title="Alarms", alarms=list(alarms), width=_WIDTH, height=_HEIGHT)
        )
        for row in ROWS:
            made.add_widgets(cloudwatch.TextWidget(markdown=f"## {row.title}", width=_WIDTH, height=1))
            made.add_widgets(*(self._graph(graph, _WIDTH // len(row.graphs)) for graph in row.graphs))

    def _graph(self, graph: Graph, width: int) -> cloudwatch.GraphWidget:
        lines = [metric for line in graph.lines for metric in self._metrics(line)]
        return cloudwatch.GraphWidget(title=graph.title, left=lines, width=width, height=_HEIGHT)

    def _metrics(self, line: Line) -> Iterator[cloudwatch.IMetric]:
        period = cdk.Duration.seconds(PERIOD_S)
        if line.each is None:
            expression = line.search(self._stage)
            yield cloudwatch.MathExpression(expression=expression, using_metrics={}, label=line.label, period=period)
            return
        for group in self._watched[line.each].values():
            for name, dimensions in group.items():
                yield cloudwatch.Metric(
                    namespace=line.each.namespace,
                    metric_name=line.metric,
                    dimensions_map=dict(dimensions),
                    statistic="Maximum" if line.most else "Sum",
                    label=f"{line.label} {name}",
                    period=period,
                )
