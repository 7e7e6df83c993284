"""The relay: workers that connect to upstreams. Each is invoked asynchronously and runs until its time ends."""

from __future__ import annotations

from typing import Any

from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.functions import Function, Layers
from infra.gateway import END_CONNECTION, Gateway, remote_api_secrets
from infra.packaging import dependency_layer
from infra.secrets import Secrets
from infra.stage import Stage
from infra.tables import Tables
from tidegate import tables as t


class Relay(Construct):
    """Delivers the messages of upstreams: server-sent events, WebSockets and external MQTT brokers."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        layers: Layers,
        tables: Tables,
        gateway: Gateway,
        secrets: Secrets,
        catch_ups_url: str,
        catch_ups_arn: str,
    ) -> None:
        super().__init__(scope, construct_id)
        common: dict[str, Any] = {"stage": stage, "layers": layers, "tables": tables}
        self.worker = Function(
            self,
            "Worker",
            **common,
            handler="relay.worker.handler",
            further_layer=dependency_layer(self, "Dependencies", "relay_dependencies", stage),
            actions={
                **END_CONNECTION,
                t.ACCESS: ["GetItem", "BatchGetItem"],
                t.PROFILES: ["GetItem"],
                t.STREAMS: ["GetItem", "Query", "UpdateItem"],
                t.SUBSCRIPTIONS: [*END_CONNECTION[t.SUBSCRIPTIONS], "Query"],
                t.LAST_VALUES: ["Query", "UpdateItem", "DeleteItem"],
                t.HISTORY: ["BatchWriteItem"],
            },
            secrets=remote_api_secrets(stage, secrets),
            environment={
                "CREDENTIAL_KEY_ID": secrets.credential_key.key_arn,
                "CATCH_UP_QUEUE_URL": catch_ups_url,
            },
            memory_mb=1024,
            # A worker that timed out must not be started again: its successor is running.
            retry_attempts=0,
            max_event_age_s=60,
        )
        function = self.worker.function
        assert isinstance(function.node.default_child, lambda_.CfnFunction)
        # Workers start their successors. The platform would take that for a mistake and stop it after sixteen rounds.
        function.node.default_child.recursive_loop = "Allow"
        self.worker.allow(["kms:Decrypt"], list(secrets.credential_key_arns().values()))
        self.worker.allow(["sqs:SendMessage"], [catch_ups_arn])
        gateway.give_connections(self.worker)
        # A policy of its own. The function depends on its role's first policy, so that one cannot name the function.
        assert function.role is not None
        iam.Policy(
            self,
            "StartSuccessors",
            roles=[function.role],
            statements=[iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[function.function_arn])],
        )

    def may_decrypt_before(self, function: Function) -> None:
        """Let a function be changed only after the relay got its rights: it encrypts with a new key at once."""
        role = self.worker.function.role
        assert role is not None
        function.function.node.add_dependency(role.node.find_child("DefaultPolicy"))

    def give_start(self, function: Function) -> None:
        """Let a function start workers."""
        function.function.add_environment("RELAY_FUNCTION", self.worker.function.function_name)
        function.allow(["lambda:InvokeFunction"], [self.worker.function.function_arn])
