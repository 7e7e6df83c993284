"""The alarms of `infra.alarm_table`, as CloudWatch has them."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.alarm_table import PERIOD_S, Alarm, alarms
from infra.stage import Stage
from infra.watched import Dimensions, Watched

#: Minutes that are looked at.
_LOOKED_AT = 5


class Alarms(Construct):
    """Tells of what the stack cannot mend by itself. Without a topic the alarms are there, and tell nobody."""

    def __init__(self, scope: Construct, construct_id: str, *, stage: Stage, watched: Watched) -> None:
        super().__init__(scope, construct_id)
        self.made: list[cloudwatch.Alarm] = []
        self._topic: sns.ITopic | None = None
        if stage.place.alarm_email is not None:
            self._topic = self._topic_of(stage.place.alarm_email)
        elif stage.alarm_topic_arn is not None:
            self._topic = sns.Topic.from_topic_arn(self, "Topic", stage.alarm_topic_arn)
        for alarm in alarms(stage.settings, stage.lambda_concurrency):
            if alarm.each is None:
                self._make(alarm, alarm.name, self._of_ours(alarm, stage.name))
                continue
            for name, group in watched[alarm.each].items():
                metric = self._of_platform(alarm, list(group.values()))
                self._make(alarm, f"{alarm.name}-{name}" if name else alarm.name, metric)

    def _topic_of(self, email: str) -> sns.Topic:
        """A topic of the stage's own. Whoever has the address confirms it once, by a link that SNS sends."""
        topic = sns.Topic(self, "EmailTopic", enforce_ssl=True)
        topic.add_subscription(subscriptions.EmailSubscription(email))
        alarms = iam.ServicePrincipal(
            "cloudwatch.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": cdk.Stack.of(self).account}}
        )
        topic.grant_publish(alarms)
        return topic

    def _make(self, alarm: Alarm, name: str, metric: cloudwatch.IMetric) -> None:
        made = cloudwatch.Alarm(
            self,
            name,
            alarm_name=f"{cdk.Stack.of(self).stack_name}-{name}",
            alarm_description=alarm.description,
            metric=metric,
            threshold=alarm.above,
            comparison_operator=_comparison(alarm),
            evaluation_periods=1 if alarm.minutes == 1 else _LOOKED_AT,
            datapoints_to_alarm=alarm.minutes,
            treat_missing_data=_missing(alarm),
        )
        self.made.append(made)
        self.tell_of(made)

    def tell_of(self, alarm: cloudwatch.Alarm) -> None:
        """Tell the topic, if there is one, when the alarm goes off, and when it is over."""
        if self._topic is not None:
            told = actions.SnsAction(self._topic)
            alarm.add_alarm_action(told)
            alarm.add_ok_action(told)

    @staticmethod
    def _of_ours(alarm: Alarm, stage: str) -> cloudwatch.IMetric:
        return cloudwatch.MathExpression(expression=alarm.query(stage), using_metrics={}, period=_period())

    @staticmethod
    def _of_platform(alarm: Alarm, group: Sequence[Dimensions]) -> cloudwatch.IMetric:
        """The metric, or the sum of several: those of a group are told of by one alarm."""
        metrics: dict[str, cloudwatch.IMetric] = {
            f"m{number}": cloudwatch.Metric(
                namespace=alarm.namespace,
                metric_name=alarm.metric,
                dimensions_map=dict(dimensions),
                statistic="Maximum" if alarm.most else "Sum",
                period=_period(),
            )
            for number, dimensions in enumerate(group)
        }
        if len(metrics) == 1:
            return metrics["m0"]
        # A function that was not called in a minute has no value, and must not hide the others'.
        filled = ", ".join(f"FILL({name}, 0)" for name in metrics)
        return cloudwatch.MathExpression(expression=f"SUM([{filled}])", using_metrics=metrics, period=_period())


def _comparison(alarm: Alarm) -> cloudwatch.ComparisonOperator:
    compared = cloudwatch.ComparisonOperator
    return compared.LESS_THAN_OR_EQUAL_TO_THRESHOLD if alarm.too_little else compared.GREATER_THAN_THRESHOLD


def _missing(alarm: Alarm) -> cloudwatch.TreatMissingData:
    """Counts are written when there is something to count, so none is 0."""
    missing = cloudwatch.TreatMissingData
    return missing.BREACHING if alarm.too_little else missing.NOT_BREACHING


def _period() -> cdk.Duration:
    return cdk.Duration.seconds(PERIOD_S)
