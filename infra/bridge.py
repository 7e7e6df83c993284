"""From IoT Core to the viewers: a rule for each allowed topic, the bridge, catch-up, and what devices may do."""

from __future__ import annotations

import hashlib
import json

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_iot as iot
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.concurrency import visibility_s
from infra.functions import Function, Layers
from infra.gateway import END_CONNECTION, Gateway
from infra.retention import data_of
from infra.stage import Stage, StageError
from infra.tables import Tables
from tidegate import tables as t
from tidegate.domain.stream_policy import iot_topics

#: Version of the rule language: the newest.
SQL_VERSION = "2016-03-23"
#: Policy variable: the thing whose certificate the connection uses. A connection has one only when its client id is the
#: thing's name.
THING = "${iot:Connection.Thing.ThingName}"
#: Longest policy document IoT takes, in characters without white space.
POLICY_LIMIT = 2048


#: Most messages of a batch. Each has the payload of a device as base64, and a batch that a function is given has six
#: megabytes at most (quotas of AWS Lambda). IoT Core's largest payload is 128 KB.
BATCH = 30
#: For how long messages of a batch are gathered, seconds.
BATCH_WINDOW_S = 1


class RetriedQueue(Construct):
    """A queue, and the queue for messages that failed again and again."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        handler: str,
        retention: cdk.Duration,
        receives: int = 4,
        window_s: int = 0,
    ) -> None:
        """
        Args:
            handler: of `functions/`, that the queue calls.
            window_s: for how long messages of a batch are gathered, seconds.
            retention: a message that is older goes.
            receives: how often a message is delivered. One that failed is delivered again after the visibility timeout.
        """
        super().__init__(scope, construct_id)
        self.dead = sqs.Queue(self, "Dead", enforce_ssl=stage.tls, retention_period=cdk.Duration.days(4))
        self.queue = sqs.Queue(
            self,
            "Queue",
            enforce_ssl=stage.tls,
            visibility_timeout=cdk.Duration.seconds(visibility_s(handler, window_s)),
            retention_period=retention,
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead, max_receive_count=receives),
        )


def catch_up_queue(scope: Construct, construct_id: str, *, stage: Stage) -> RetriedQueue:
    """The delay queue of catch-ups. One that is minutes late is of no use: its viewer has had newer messages since."""
    return RetriedQueue(
        scope, construct_id, stage=stage, handler="mqtt_bridge.catch_up", retention=cdk.Duration.minutes(10)
    )


class Bridge(Construct):
    """Delivers MQTT messages of devices."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        layers: Layers,
        tables: Tables,
        gateway: Gateway,
        catch_ups: sqs.Queue,
    ) -> None:
        super().__init__(scope, construct_id)
        self.crowds = RetriedQueue(
            self,
            "Crowds",
            stage=stage,
            # A part that failed comes back by it, if no newer value has asked for it before.
            handler="mqtt_bridge.crowd",
            # A part sends the newest value, so one that comes late is still of use to viewers of a topic that is quiet.
            retention=cdk.Duration.hours(1),
        )
        crowds = self.crowds.queue
        self.bridge = Function(
            self,
            "Bridge",
            stage=stage,
            layers=layers,
            tables=tables,
            handler="mqtt_bridge.bridge.handler",
            actions={
                **END_CONNECTION,
                t.ACCESS: ["GetItem", "BatchGetItem"],
                t.SUBSCRIPTIONS: ["Query", "BatchWriteItem"],
                t.STREAMS: ["GetItem", "Query"],
                t.LAST_VALUES: ["GetItem", "Query", "UpdateItem", "DeleteItem"],
                t.HISTORY: ["UpdateItem"],
            },
            secrets={},
            environment={"CATCH_UP_QUEUE_URL": catch_ups.queue_url, "CROWD_QUEUE_URL": crowds.queue_url},
            memory_mb=1024,
            # A repetition comes a minute later. It sends nothing that is outdated. It makes sure that the newest value
            # was the last, which the invocation that died may have left open.
            retry_attempts=1,
            max_event_age_s=180,
        )
        self.bridge.allow(["sqs:SendMessage"], [catch_ups.queue_arn, crowds.queue_arn])
        self.crowd = Function(
            self,
            "Crowd",
            stage=stage,
            layers=layers,
            tables=tables,
            handler="mqtt_bridge.crowd.handler",
            actions={
                **END_CONNECTION,
                t.ACCESS: ["GetItem", "BatchGetItem"],
                t.SUBSCRIPTIONS: ["Query", "BatchWriteItem"],
                t.LAST_VALUES: ["GetItem", "UpdateItem"],
            },
            secrets={},
            environment={"CATCH_UP_QUEUE_URL": catch_ups.queue_url, "CROWD_QUEUE_URL": crowds.queue_url},
            memory_mb=1024,
        )
        self.crowd.allow(["sqs:SendMessage"], [catch_ups.queue_arn, crowds.queue_arn])
        self.crowd.take_from(crowds, batch_size=1)
        self.catch_up = Function(
            self,
            "CatchUp",
            stage=stage,
            layers=layers,
            tables=tables,
            handler="mqtt_bridge.catch_up.handler",
            actions={
                **END_CONNECTION,
                t.ACCESS: ["GetItem", "BatchGetItem"],
                t.SUBSCRIPTIONS: ["GetItem", "BatchWriteItem"],
                t.STREAMS: ["GetItem"],
                t.LAST_VALUES: ["Query"],
                t.HISTORY: ["Query"],
            },
            secrets={},
            environment={"CATCH_UP_QUEUE_URL": catch_ups.queue_url},
        )
        self.catch_up.allow(["sqs:SendMessage"], [catch_ups.queue_arn])
        self.catch_up.take_from(catch_ups, batch_size=10)
        for function in (self.bridge, self.catch_up, self.crowd):
            gateway.give_connections(function)
        self.device_messages = self._queue(stage) if stage.settings.mqtt_batched_topics else None
        self._rules(stage)
        self.device_policy = _device_policy(self, iot_topics_of(stage), stage.settings.iot_topic_prefix)

    def _queue(self, stage: Stage) -> RetriedQueue:
        """The queue of device messages that are brought in batches."""
        messages = RetriedQueue(
            self,
            "Messages",
            stage=stage,
            handler="mqtt_bridge.bridge",
            window_s=BATCH_WINDOW_S,
            # A value that is minutes late is of no use to a screen.
            retention=cdk.Duration.minutes(10),
            receives=3,
        )
        self.bridge.take_from(messages.queue, batch_size=BATCH, window=cdk.Duration.seconds(BATCH_WINDOW_S))
        return messages

    def _rules(self, stage: Stage) -> None:
        errors = logs.LogGroup(
            self,
            "RuleErrors",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=data_of(stage),
        )
        role = iam.Role(self, "RuleErrorsRole", assumed_by=iam.ServicePrincipal("iot.amazonaws.com"))
        errors.grant(role, "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
        queue_role = None
        if self.device_messages is not None:
            queue_role = iam.Role(self, "RuleQueueRole", assumed_by=iam.ServicePrincipal("iot.amazonaws.com"))
            self.device_messages.queue.grant(queue_role, "sqs:SendMessage")
        for allowed_topic in iot_topics_of(stage):
            batched = allowed_topic in stage.settings.mqtt_batched_topics
            digest = hashlib.sha256(allowed_topic.encode()).hexdigest()[:12]
            rule = iot.CfnTopicRule(
                self,
                f"Rule{digest}",
                # Rule names allow only letters, digits and underscores, topics more. So a digest stands for the topic.
                rule_name=f"tidegate_{stage.name}_{digest}",
                topic_rule_payload=iot.CfnTopicRule.TopicRulePayloadProperty(
                    sql=rule_sql(allowed_topic),
                    aws_iot_sql_version=SQL_VERSION,
                    actions=[self._to_queue(queue_role) if batched and queue_role else self._to_bridge()],
                    error_action=iot.CfnTopicRule.ActionProperty(
                        cloudwatch_logs=iot.CfnTopicRule.CloudwatchLogsActionProperty(
                            log_group_name=errors.log_group_name, role_arn=role.role_arn
                        )
                    ),
                ),
            )
            if batched:
                continue
            lambda_.CfnPermission(
                self,
                f"Invoke{digest}",
                action="lambda:InvokeFunction",
                function_name=self.bridge.live.function_arn,
                principal="iot.amazonaws.com",
                source_arn=rule.attr_arn,
                source_account=cdk.Stack.of(self).account,
            )

    def _to_bridge(self) -> iot.CfnTopicRule.ActionProperty:
        arn = self.bridge.live.function_arn
        return iot.CfnTopicRule.ActionProperty(lambda_=iot.CfnTopicRule.LambdaActionProperty(function_arn=arn))

    def _to_queue(self, role: iam.Role) -> iot.CfnTopicRule.ActionProperty:
        assert self.device_messages is not None
        return iot.CfnTopicRule.ActionProperty(
            sqs=iot.CfnTopicRule.SqsActionProperty(
                queue_url=self.device_messages.queue.queue_url, role_arn=role.role_arn, use_base64=False
            )
        )


def rule_sql(allowed_topic: str) -> str:
    """What a rule selects. The payload is encoded as base64, because a bare `SELECT *` drops what is not JSON."""
    quoted = allowed_topic.replace("'", "''")
    return (
        "SELECT encode(*, 'base64') AS data, topic() AS topic, timestamp() AS timestamp, newuuid() AS id, "
        f"'{quoted}' AS allowed_topic FROM '{quoted}'"
    )


def iot_topics_of(stage: Stage) -> tuple[str, ...]:
    """The allowed topics of the stage that get an IoT rule."""
    return iot_topics(stage.settings.mqtt_allowed_topics, stage.settings.iot_topic_prefix)


def _device_policy(scope: Construct, allowed_topics: tuple[str, ...], topic_prefix: str) -> iot.CfnPolicy:
    stack = cdk.Stack.of(scope)
    # Partition, region and account are not known before the deploy. This is the longest start of an ARN there is.
    example = device_policy("arn:aws-us-gov:iot:ap-southeast-2:123456789012:", allowed_topics, topic_prefix)
    longest = len(json.dumps(example, separators=(",", ":"), ensure_ascii=False))
    if longest > POLICY_LIMIT:
        raise StageError(
            f"REALTIME_MQTT_ALLOWED_TOPICS: its {len(allowed_topics)} entries below {topic_prefix}/ "
            f"make an IoT policy for devices of up to "
            f"{longest} characters; allowed: {POLICY_LIMIT}. Use fewer, wider entries."
        )
    arn = f"arn:{stack.partition}:iot:{stack.region}:{stack.account}:"
    document = device_policy(arn, allowed_topics, topic_prefix)
    return iot.CfnPolicy(scope, "DevicePolicy", policy_document=document)


def device_policy(arn: str, allowed_topics: tuple[str, ...], topic_prefix: str) -> dict[str, object]:
    """The policy of devices. A device connects as the thing that its certificate belongs to. It publishes below its
    own name only, so that no device can speak for another.

    Args:
        arn: start of an ARN, up to the resource.
        allowed_topics: those with an IoT rule.
        topic_prefix: the stage's. The level after it is the thing's name.
    """
    resources = [
        resource for allowed_topic in allowed_topics for resource in publish_resources(allowed_topic, topic_prefix)
    ]
    statements: list[dict[str, object]] = [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"{arn}client/{THING}"}
    ]
    if resources:
        topics = [f"{arn}topic/{resource}" for resource in dict.fromkeys(resources)]
        statements.append({"Effect": "Allow", "Action": "iot:Publish", "Resource": topics})
    return {"Version": "2012-10-17", "Statement": statements}


def publish_resources(allowed_topic: str, topic_prefix: str) -> list[str]:
    """The IoT policy resources of an allowed topic, for the device that is connected.

    The level after the prefix becomes the thing's name. An allowed topic with another name there is nothing for
    devices: publish to it from elsewhere. Below, policies take `+` and `#` literally. Their own wildcard `*` crosses
    levels. So for an allowed topic with `+`, a device may publish to more topics than the rule reads, all below its own
    name. The rule decides what is delivered. `a/#` also means `a`.
    """
    level, _, rest = allowed_topic.removeprefix(f"{topic_prefix}/").partition("/")
    own = f"{topic_prefix}/{THING}"
    if level == "#":
        return [f"{own}/*", own]
    if level != "+":
        return []
    if not rest:
        return [own]
    resources = [f"{own}/{rest}".replace("+", "*").replace("#", "*")]
    if rest == "#":
        resources.append(own)
    elif rest.endswith("/#"):
        resources.append(f"{own}/{rest.removesuffix('/#')}".replace("+", "*"))
    return resources
