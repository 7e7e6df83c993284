"""The HTTP API: one function serves the public API and the internal API."""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as apigwv2
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.functions import Function, Layers
from infra.retention import KEPT
from infra.secrets import Secrets
from infra.stage import Stage
from infra.tables import Tables
from tidegate import tables as t

#: Requests per second and burst of the HTTP API.
RATE, BURST = 1000, 500

_READ_WRITE = ["GetItem", "BatchGetItem", "Query", "PutItem", "UpdateItem", "DeleteItem", "ConditionCheckItem"]


class HttpApi(Construct):
    """`/api/*` and `/internal/*`."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        layers: Layers,
        tables: Tables,
        secrets: Secrets,
    ) -> None:
        super().__init__(scope, construct_id)
        origin = {"ORIGIN_SECRET_ARN": secrets.origin} if stage.edge else {}
        self.function = Function(
            self,
            "Api",
            stage=stage,
            layers=layers,
            tables=tables,
            handler="api.main.handler",
            actions={
                t.DASHBOARDS: _READ_WRITE,
                t.ACCESS: ["GetItem", "BatchGetItem", "PutItem", "UpdateItem", "ConditionCheckItem"],
                t.PROFILES: [*_READ_WRITE, "BatchWriteItem"],
                t.USERS: _READ_WRITE,
                t.AUDIT: ["PutItem", "UpdateItem", "Query", "BatchGetItem"],
                t.REVOCATIONS: ["GetItem", "Query", "PutItem", "UpdateItem"],
                t.SUBSCRIPTIONS: ["GetItem", "Query"],
                t.STREAMS: ["UpdateItem"],
                t.LAST_VALUES: ["Query"],
                t.HISTORY: ["Query"],
                t.LIMITERS: ["GetItem", "UpdateItem", "DeleteItem"],
            },
            secrets={
                "JWT_SECRET_ARN": secrets.jwt,
                "JWT_GATEWAY_SECRET_ARN": secrets.jwt_gateway,
                "GATEWAY_SERVICE_TOKEN_ARN": secrets.service_token,
                "LIMITER_HASH_SALT_ARN": secrets.limiter_salt,
                **origin,
            },
            environment={"CREDENTIAL_KEY_ID": secrets.credential_key.key_arn},
            memory_mb=1024,
            api=True,
            upstreams=True,
        )
        self.function.allow(["kms:GenerateDataKey"], [secrets.credential_key.key_arn])
        self.function.allow(["kms:Decrypt"], list(secrets.credential_key_arns().values()))
        integration = integrations.HttpLambdaIntegration("Integration", self.function.live)
        self.api = apigwv2.HttpApi(self, "HttpApi", api_name=f"tidegate-{stage.name}-http", create_default_stage=False)
        for path in ("/api/{proxy+}", "/internal/{proxy+}"):
            self.api.add_routes(path=path, methods=[apigwv2.HttpMethod.ANY], integration=integration)
        self.stage = apigwv2.HttpStage(
            self,
            "Stage",
            http_api=self.api,
            stage_name="$default",
            auto_deploy=True,
            throttle=apigwv2.ThrottleSettings(rate_limit=stage.place.part(RATE), burst_limit=stage.place.part(BURST)),
        )
        if not stage.disposable:
            self._log_access()

    def allow_operations(self, tables: Tables, queues: Mapping[str, sqs.Queue], dead: Mapping[str, sqs.Queue]) -> None:
        """Let the API tell operators what is connected, and try again what failed.

        Of the streams it reads the relay's, and the leases. It may send to `queues`: tasks, and what it takes out of
        the dead-letter queues, `dead`. Both are by the variable that is to hold the URL.
        """
        function = self.function
        function.allow(
            ["dynamodb:GetItem", "dynamodb:Query"],
            [tables.of(t.STREAMS).table_arn],
            {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [t.RELAY_STREAMS, t.RELAY_LEASES]}},
        )
        for variable, queue in {**queues, **dead}.items():
            function.function.add_environment(variable, queue.queue_url)
        function.allow(["sqs:SendMessage"], [queue.queue_arn for queue in queues.values()])
        function.allow(["sqs:GetQueueAttributes"], [queue.queue_arn for queue in {**queues, **dead}.values()])
        function.allow(["sqs:ReceiveMessage", "sqs:DeleteMessage"], [queue.queue_arn for queue in dead.values()])

    def _log_access(self) -> None:
        group = logs.LogGroup(self, "AccessLogs", retention=logs.RetentionDays.ONE_MONTH, removal_policy=KEPT)
        default = self.stage.node.default_child
        assert isinstance(default, apigwv2.CfnStage)
        # The route is logged, never the path: some paths hold a share token.
        fields = {
            "requestId": "$context.requestId",
            "routeKey": "$context.routeKey",
            "status": "$context.status",
            "latency": "$context.responseLatency",
        }
        default.access_log_settings = apigwv2.CfnStage.AccessLogSettingsProperty(
            destination_arn=group.log_group_arn, format=cdk.Stack.of(self).to_json_string(fields)
        )
