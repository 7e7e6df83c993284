"""A Lambda function: its code, layers, environment and log group, and exactly the permissions that it names.

Whatever calls a function calls its alias `live`. See `rollout`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as event_sources
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs
from constructs import Construct, IConstruct

from infra.concurrency import at_once
from infra.packaging import RUNTIME, architecture, function_code
from infra.retention import data_of
from infra.rollout_table import LIVE
from infra.stage import Stage
from infra.tables import Tables
from tidegate.domain.time_limits import function_s
from tidegate.tables import ALL_TABLES, HEALTH_PARTITION, Table


@dataclass(frozen=True, slots=True)
class Layers:
    """The shared code, what every function needs, what only the API needs, and what connects to upstreams."""

    shared: lambda_.LayerVersion
    dependencies: lambda_.LayerVersion
    api_dependencies: lambda_.LayerVersion
    relay_dependencies: lambda_.LayerVersion


class Function(Construct):
    """A handler of `functions/`.

    `actions` maps a table to the DynamoDB actions that the function may do on it, and with `Query` on its indexes too.
    The function also gets the names of these tables. `secrets` maps an environment variable to the secret whose ARN it
    holds. `reserved` places of the account's concurrency are kept for it. How long it may run is in
    `tidegate.domain.time_limits`.

    `live` is what is to be called: the alias, or the function itself where the stage has no versions. A version keeps
    the code and the environment it was published with. A stack deletes none, so that there is a way back.
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
        upstreams: bool = False,
        reserved: int | None = None,
        retry_attempts: int | None = None,
        max_event_age_s: int | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self._handler = handler.removesuffix(".handler")
        self._places = stage.lambda_concurrency
        self._statements: list[iam.PolicyStatement] = []
        package = self._handler.split(".")[0]
        log_group = logs.LogGroup(
            self,
            "Logs",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=data_of(stage),
        )
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        log_group.grant_write(role)
        self._variables = {
            **stage.variables,
            "TIDEGATE_SERVICE": name_of(self).lower(),
            "TIDEGATE_STAGE": stage.name,
            **{table.variable: tables.of(table).table_name for table in actions},
            **{variable: secret.secret_arn for variable, secret in secrets.items()},
            **(environment or {}),
        }
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
                *([layers.relay_dependencies] if upstreams else []),
            ],
            role=role,
            log_group=log_group,
            # One whose deployment failed goes. Otherwise the same code could not be published again.
            current_version_options=lambda_.VersionOptions(removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE),
            timeout=cdk.Duration.seconds(function_s(self._handler, remote_api=bool(stage.settings.api_base_url))),
            memory_size=memory_mb,
            reserved_concurrent_executions=reserved,
            environment=dict(self._variables),
        )
        self.live: lambda_.IFunction = self.function
        if stage.versions:
            self.live = lambda_.Alias(self, "Live", alias_name=LIVE, version=self.function.current_version)
        if retry_attempts is not None or max_event_age_s is not None:
            # Of what is called: an alias does not take over what holds for the function.
            self.live.configure_async_invoke(
                retry_attempts=retry_attempts,
                max_event_age=cdk.Duration.seconds(max_event_age_s) if max_event_age_s else None,
            )
        for table, allowed in actions.items():
            arn = tables.of(table).table_arn
            resources = [arn, *([f"{arn}/index/{index.name}" for index in table.indexes] if "Query" in allowed else [])]
            self.allow([f"dynamodb:{action}" for action in allowed], resources)
        if secrets:
            self.allow(["secretsmanager:GetSecretValue"], [_resource(secret, stage) for secret in secrets.values()])

    @property
    def live_name(self) -> str:
        """What is called, as a caller is told it. Unlike the alias itself it waits for no deployment."""
        name = str(self.function.function_name)
        return f"{name}:{LIVE}" if self.versioned else name

    @property
    def live_arn(self) -> str:
        """What is called, as a grant names it. Unlike the alias itself it waits for no deployment."""
        arn = str(self.function.function_arn)
        return f"{arn}:{LIVE}" if self.versioned else arn

    @property
    def versioned(self) -> bool:
        """Whether its alias is called, and not itself."""
        return self.live is not self.function

    def take_from(self, queue: sqs.Queue, *, batch_size: int, window: cdk.Duration | None = None) -> None:
        """Let a queue call it, with the bound that `infra.concurrency` has for it. What failed of a batch comes again.

        Args:
            window: for how long messages of a batch are gathered.
        """
        self.live.add_event_source(
            event_sources.SqsEventSource(
                queue,
                batch_size=batch_size,
                max_batching_window=window,
                max_concurrency=at_once(self._handler, self._places),
                report_batch_item_failures=True,
            )
        )

    @property
    def variables(self) -> Mapping[str, str]:
        """What its environment was given here and by `tell`. Whoever runs the same code elsewhere needs the same."""
        return dict(self._variables)

    @property
    def statements(self) -> Sequence[iam.PolicyStatement]:
        """What it may do, without its logs: a copy, for another role."""
        return [statement.copy() for statement in self._statements]

    def tell(self, variable: str, value: str) -> None:
        """Add a variable to its environment."""
        self._variables[variable] = value
        self.function.add_environment(variable, value)

    def allow(
        self, actions: Sequence[str], resources: Sequence[str], conditions: Mapping[str, Any] | None = None
    ) -> None:
        """Add a statement to the function's own policy."""
        statement = iam.PolicyStatement(actions=list(actions), resources=list(resources), conditions=conditions)
        self._statements.append(statement)
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


def name_of(construct: IConstruct) -> str:
    """Its path below the stack: `Relay-Worker`. In small letters it is what logs and metrics call a function."""
    return "-".join(construct.node.path.split("/")[1:])


def _resource(secret: secretsmanager.Secret, stage: Stage) -> str:
    """A secret as policies name it. The emulator's `Ref` gives the secret's name, where AWS gives its ARN."""
    if stage.architecture != "host":
        return str(secret.secret_arn)
    name = f"{secret.secret_arn}-??????"
    arn = cdk.Stack.of(secret).format_arn(
        service="secretsmanager", resource="secret", resource_name=name, arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME
    )
    return str(arn)
