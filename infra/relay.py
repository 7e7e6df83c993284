"""The relay: workers that connect to upstreams. Each is invoked asynchronously and runs until its time ends.

Where a stage has the relay as a service, nobody asks for these workers, and those that run give way to the service's.
"""

from __future__ import annotations

from typing import Any

from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.functions import Function, Layers
from infra.gateway import END_CONNECTION, Gateway, remote_api_secrets
from infra.packaging import code_hash
from infra.relay_service import RelayService
from infra.rollout_table import LIVE
from infra.secrets import Secrets
from infra.stage import Stage
from infra.stage_place import RelayVpc
from infra.tables import Tables
from tidegate import tables as t

#: Network interfaces have no names before they are made, so AWS's own policy is as narrow as it gets.
VPC_POLICY = "service-role/AWSLambdaENIManagementAccess"


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
            upstreams=True,
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
                "RELAY_CODE": code_hash("relay", stage, "dependencies", "relay_dependencies"),
                **({"RELAY_ALIAS": LIVE} if stage.versions else {}),
                **({"RELAY_SPARE": "true"} if stage.place.relay_tasks else {}),
                "CREDENTIAL_KEY_ID": secrets.credential_key.key_arn,
                "CATCH_UP_QUEUE_URL": catch_ups_url,
            },
            memory_mb=1024,
            # A worker that timed out must not be started again: its successor is running.
            retry_attempts=0,
            max_event_age_s=60,
        )
        self.service: RelayService | None = None
        function = self.worker.function
        assert isinstance(function.node.default_child, lambda_.CfnFunction)
        # Workers start their successors. The platform would take that for a mistake and stop it after sixteen rounds.
        function.node.default_child.recursive_loop = "Allow"
        if stage.place.relay_vpc is not None:
            self._put_into(stage.place.relay_vpc, function.node.default_child)
        self.worker.allow(["kms:Decrypt"], list(secrets.credential_key_arns().values()))
        self.worker.allow(["sqs:SendMessage"], [catch_ups_arn])
        gateway.give_connections(self.worker)
        # A policy of its own. The function depends on its role's first policy, so that one cannot name the function.
        assert function.role is not None
        iam.Policy(
            self,
            "StartSuccessors",
            roles=[function.role],
            statements=[iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[self.worker.live_arn])],
        )

        if stage.place.relay_tasks is not None:
            self.service = RelayService(self, "Tasks", stage=stage, tasks=stage.place.relay_tasks, worker=self.worker)

    def _put_into(self, network: RelayVpc, function: lambda_.CfnFunction) -> None:
        """Give the workers addresses of a network, so that they reach what is only there."""
        function.vpc_config = lambda_.CfnFunction.VpcConfigProperty(
            subnet_ids=list(network.subnets), security_group_ids=list(network.security_groups)
        )
        role = self.worker.function.role
        assert role is not None
        role.add_managed_policy(iam.ManagedPolicy.from_aws_managed_policy_name(VPC_POLICY))

    def may_decrypt_before(self, function: Function) -> None:
        """Let a function be changed only after the relay got its rights: it encrypts with a new key at once."""
        role = self.worker.function.role
        assert role is not None
        function.function.node.add_dependency(role.node.find_child("DefaultPolicy"))
        if self.service is not None:
            function.function.node.add_dependency(self.service.task_role.node.find_child("DefaultPolicy"))

    def give_start(self, function: Function) -> None:
        """Let a function start workers; where the relay is a service, let it know that it need not."""
        if self.service is not None:
            function.tell("RELAY_SERVICE", "true")
            return
        function.function.add_environment("RELAY_FUNCTION", self.worker.live_name)
        function.allow(["lambda:InvokeFunction"], [self.worker.live_arn])
