"""Revalidation: pushed by the revocation table's stream, polled by a schedule, worked off from a queue."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.concurrency import visibility_s
from infra.functions import Function, Layers
from infra.gateway import END_CONNECTION, Gateway, remote_api_secrets
from infra.secrets import Secrets
from infra.stage import Stage
from infra.tables import Tables
from tidegate import tables as t

#: How often a message is received before it is dead. A task that fails counts its own tries and is dead after five. So
#: this counts only what never got an answer: invocations that were throttled for a whole visibility timeout, and those
#: that died. Two hours of it.
RECEIVES = 20


class Revalidation(Construct):
    """Terminates the subscriptions of viewers who have lost the right."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        layers: Layers,
        tables: Tables,
        secrets: Secrets,
        gateway: Gateway,
    ) -> None:
        super().__init__(scope, construct_id)
        common: dict[str, Any] = {"stage": stage, "layers": layers, "tables": tables}
        self.dead = sqs.Queue(self, "Dead", enforce_ssl=stage.tls, retention_period=cdk.Duration.days(14))
        self.queue = sqs.Queue(
            self,
            "Queue",
            enforce_ssl=stage.tls,
            visibility_timeout=cdk.Duration.seconds(visibility_s("revalidate.worker")),
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead, max_receive_count=RECEIVES),
        )
        remote_api = remote_api_secrets(stage, secrets)
        queue_url = {"REVALIDATION_QUEUE_URL": self.queue.queue_url}
        self.worker = Function(
            self,
            "Worker",
            **common,
            handler="revalidate.worker.handler",
            actions={
                **END_CONNECTION,
                # For a remote API's dashboards the worker itself writes which versions are revoked.
                t.ACCESS: ["GetItem", "BatchGetItem", *(["UpdateItem"] if remote_api else [])],
                # What a deactivated user shows to guests. A remote API's users are not known here.
                **({} if remote_api else {t.DASHBOARDS: ["Query"]}),
                t.SUBSCRIPTIONS: [
                    "GetItem",
                    "BatchGetItem",
                    "Query",
                    "Scan",
                    "UpdateItem",
                    "DeleteItem",
                    "BatchWriteItem",
                ],
                t.CONNECTIONS: ["GetItem", "Scan", "UpdateItem", "DeleteItem"],
                t.LIMITERS: ["Scan", "UpdateItem"],
                t.STREAMS: ["GetItem", "Query"],
                t.REVOCATIONS: ["GetItem", "Query", "UpdateItem"],
            },
            secrets=remote_api,
            environment={**queue_url, "REVALIDATION_DEAD_QUEUE_URL": self.dead.queue_url},
            memory_mb=1024,
        )
        gateway.give_connections(self.worker)
        # One task for each invocation, so that the terminations of one dashboard do not wait for another's.
        self.worker.take_from(self.queue, batch_size=1)
        self.profiles_queue = sqs.Queue(
            self,
            "ProfilesQueue",
            enforce_ssl=stage.tls,
            visibility_timeout=cdk.Duration.seconds(visibility_s("revalidate.profiles")),
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead, max_receive_count=RECEIVES),
        )
        self.profiles = Function(
            self,
            "Profiles",
            **common,
            handler="revalidate.profiles.handler",
            actions={
                t.DASHBOARDS: ["GetItem", "PutItem"],
                t.ACCESS: ["GetItem", "PutItem"],
                t.PROFILES: [
                    "GetItem",
                    "Query",
                    "PutItem",
                    "UpdateItem",
                    "DeleteItem",
                    "BatchWriteItem",
                    "ConditionCheckItem",
                ],
                t.REVOCATIONS: ["GetItem", "PutItem", "UpdateItem"],
            },
            secrets={},
        )
        self.profiles.take_from(self.profiles_queue, batch_size=10)
        self.stream = Function(
            self,
            "Stream",
            **common,
            handler="revalidate.dispatch.handler",
            actions={},
            secrets={},
            environment=queue_url,
        )
        self.schedule = Function(
            self,
            "Schedule",
            **common,
            handler="revalidate.schedule.handler",
            # Whether somebody is connected, and how far it is itself.
            actions={t.CONNECTIONS: ["Scan"], t.STREAMS: ["GetItem", "UpdateItem"]},
            secrets={},
            environment=queue_url,
        )
        for function in (self.worker, self.stream, self.schedule):
            function.allow(["sqs:SendMessage"], [self.queue.queue_arn])
        # What failed again and again. The queue itself moves only what got no answer.
        self.worker.allow(["sqs:SendMessage"], [self.dead.queue_arn])
        self.give_profiles_queue(self.schedule)
        self._give_start(gateway.messages)
        self._push(tables)
        if not remote_api:  # whose documents are not here
            self._push_saved(tables)
        self._poll()

    def give_profiles_queue(self, function: Function) -> None:
        """Let a function queue requests to follow changes of profiles."""
        function.function.add_environment("PROFILES_QUEUE_URL", self.profiles_queue.queue_url)
        function.allow(["sqs:SendMessage"], [self.profiles_queue.queue_arn])

    def _give_start(self, function: Function) -> None:
        """Let a function start a run of the schedule between its minutes."""
        function.function.add_environment("SCHEDULE_FUNCTION", self.schedule.live_name)
        function.allow(["lambda:InvokeFunction"], [self.schedule.live_arn])

    def _push(self, tables: Tables) -> None:
        inserted = {
            "eventName": ["INSERT"],
            "dynamodb": {"Keys": {t.REVOCATIONS.partition.name: {"S": [t.REVOCATION_EVENTS]}}},
        }
        # Only insertions are events. A deletion by TTL is a REMOVE, and the head moves by a MODIFY. What was not pushed
        # in time is found by the poll.
        self._follow("Push", tables, t.REVOCATIONS, inserted, retry_attempts=5, max_record_age=cdk.Duration.minutes(5))

    def _push_saved(self, tables: Tables) -> None:
        changed = {
            "eventName": ["MODIFY"],
            "dynamodb": {"Keys": {t.ACCESS.partition.name: {"S": [{"prefix": t.DASHBOARD_ACCESS}]}}},
        }
        # Nothing else finds a saved document, so it is tried for longer. Later nobody waits for it any more.
        self._follow("PushSaved", tables, t.ACCESS, changed, max_record_age=cdk.Duration.hours(1))

    def _follow(
        self, construct_id: str, tables: Tables, table: t.Table, pattern: dict[str, Any], **patience: Any
    ) -> None:
        """Call the function `stream` with the changes of a table that are as the pattern says."""
        stream_arn = tables.of(table).table_stream_arn
        assert stream_arn is not None
        self.stream.allow(
            ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"],
            [stream_arn],
        )
        lambda_.EventSourceMapping(
            self,
            construct_id,
            target=self.stream.live,
            event_source_arn=stream_arn,
            starting_position=lambda_.StartingPosition.TRIM_HORIZON,
            batch_size=100,
            # One invocation for each shard of the stream: it only queues, and order within a shard is kept.
            parallelization_factor=1,
            report_batch_item_failures=True,
            filters=[lambda_.FilterCriteria.filter(pattern)],
            **patience,
        )

    def _poll(self) -> None:
        role = iam.Role(self, "ScheduleRole", assumed_by=iam.ServicePrincipal("scheduler.amazonaws.com"))
        role.add_to_policy(
            iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[self.schedule.live.function_arn])
        )
        scheduler.CfnSchedule(
            self,
            "EveryMinute",
            schedule_expression="rate(1 minutes)",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=self.schedule.live.function_arn,
                role_arn=role.role_arn,
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_retry_attempts=0, maximum_event_age_in_seconds=60
                ),
            ),
        )
