"""A Lambda function: its code, layers, environment and log group, and exactly the permissions that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.packaging import RUNTIME, architecture, function_code
from infra.stage import Stage
from infra.tables import Tables
from tidegate.domain.time_limits import function_s
from tidegate.tables import ALL_TABLES, HEALTH_PARTITION, Table


@dataclass(frozen=True, slots=True)
class Layers:
    """The shared code, what every function needs, and what only the API needs."""

    shared: lambda_.LayerVersion
    dependencies: lambda_.LayerVersion
    api_dependencies: lambda_.LayerVersion


class Function(Construct):
    """A handler of `functions/`.

    `actions` maps a table to the DynamoDB actions that the function may do on it, and with `Query` on its indexes too.
    The function also gets the names of these tables. `secrets` maps an environment variable to the secret whose ARN it
    holds. How long it may run is in `tidegate.domain.time_limits`.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        layers: Layers,
        tables: Tables,
        handler: str,
        actions: Mapping[Table, Sequence[str]],
        secrets: Mapping[str, secretsmanager.Secret],
        environment: Mapping[str, str] | None = None,
        memory_mb: int = 512,
        api: bool = False,
        further_layer: lambda_.LayerVersion | None = None,
        retry_attempts: int | None = None,
        max_event_age_s: int | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        function = handler.removesuffix(".handler")
        package = function.split(".")[0]
        log_group = logs.LogGroup(
            self,
            "Logs",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=cdk.RemovalPolicy.DESTROY if stage.disposable else cdk.RemovalPolicy.RETAIN,
        )
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        log_group.grant_write(role)
        self.function = lambda_.Function(
            self,
            "Function",
            code=function_code(package),
            handler=f"functions.{handler}",
            runtime=RUNTIME,
            architecture=architecture(stage),
            layers=[
                layers.shared,
                layers.dependencies,
                *([layers.api_dependencies] if api else []),
                *([further_layer] if further_layer else []),
            ],
            role=role,
            log_group=log_group,
            timeout=cdk.Duration.seconds(function_s(function, remote_api=bool(stage.settings.api_base_url))),
            memory_size=memory_mb,
            retry_attempts=retry_attempts,
            max_event_age=cdk.Duration.seconds(max_event_age_s) if max_event_age_s else None,
            environment={
                **stage.variables,
                "TIDEGATE_SERVICE": construct_id.lower(),
                **{table.variable: tables.of(table).table_name for table in actions},
                **{variable: secret.secret_arn for variable, secret in secrets.items()},
                **(environment or {}),
            },
        )
        for table, allowed in actions.items():
            arn = tables.of(table).table_arn
            resources = [arn, *([f"{arn}/index/{index.name}" for index in table.indexes] if "Query" in allowed else [])]
            self.allow([f"dynamodb:{action}" for action in allowed], resources)
        if secrets:
            self.allow(["secretsmanager:GetSecretValue"], [_resource(secret, stage) for secret in secrets.values()])

    def allow(
        self, actions: Sequence[str], resources: Sequence[str], conditions: Mapping[str, Any] | None = None
    ) -> None:
        """Add a statement to the function's own policy."""
        statement = iam.PolicyStatement(actions=list(actions), resources=list(resources), conditions=conditions)
        self.function.add_to_role_policy(statement)

    def allow_health_checks(self, tables: Tables, queues: Mapping[str, sqs.Queue]) -> None:
        """Let the function ask every table for the item that is never there, and queues for their ARN.

        It learns that they answer, and nothing else. `queues`: by the variable that is to hold the URL.
        """
        for table in ALL_TABLES:
            self.function.add_environment(table.variable, tables.of(table).table_name)
        self.allow(
            ["dynamodb:GetItem"],
            [tables.of(table).table_arn for table in ALL_TABLES],
            {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [HEALTH_PARTITION]}},
        )
        for variable, queue in queues.items():
            self.function.add_environment(variable, queue.queue_url)
        self.allow(["sqs:GetQueueAttributes"], [queue.queue_arn for queue in queues.values()])


def _resource(secret: secretsmanager.Secret, stage: Stage) -> str:
    """A secret as policies name it. The emulator's `Ref` gives the secret's name, where AWS gives its ARN."""
    if stage.architecture != "host":
        return str(secret.secret_arn)
    name = f"{secret.secret_arn}-??????"
    arn = cdk.Stack.of(secret).format_arn(
        service="secretsmanager", resource="secret", resource_name=name, arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME
    )
    return str(arn)
