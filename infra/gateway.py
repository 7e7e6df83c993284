"""The WebSocket API and its functions."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_apigateway as apigw
from aws_cdk import aws_apigatewayv2 as apigwv2
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.account import Account
from infra.functions import Function, Layers
from infra.retention import KEPT
from infra.secrets import Secrets
from infra.stage import Stage
from infra.tables import Tables
from tidegate import tables as t

STAGE_NAME = "live"
#: Requests per second and burst of the whole WebSocket API: 70 % of an account's default quotas of 10,000 and 5,000.
#: So one API's clients cannot use them up. Messages to clients count in the account's quota, but not here: their part
#: is REALTIME_MAX_SENDS_PER_SECOND.
RATE, BURST = 7000, 3500
#: API Gateway accepts a logging role only if it has the rights of this policy on every log group.
LOGGING_POLICY = "service-role/AmazonAPIGatewayPushToCloudWatchLogs"
#: What a function needs to end a connection. Several functions may notice that one is gone.
END_CONNECTION = {
    t.CONNECTIONS: ["DeleteItem"],
    t.SUBSCRIPTIONS: ["BatchWriteItem"],
    t.LIMITERS: ["UpdateItem"],
}


def remote_api_secrets(stage: Stage, secrets: Secrets) -> dict[str, secretsmanager.Secret]:
    """The secrets of a function that calls a remote API; none where no remote API is set."""
    if not stage.settings.api_base_url:
        return {}
    # The salt is the key of the fingerprints that are stored of upstreams.
    return {"GATEWAY_SERVICE_TOKEN_ARN": secrets.service_token, "LIMITER_HASH_SALT_ARN": secrets.limiter_salt}


class Gateway(Construct):
    """Handles `$connect`, `$disconnect` and every message of a browser."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        account: Account,
        layers: Layers,
        tables: Tables,
        secrets: Secrets,
        catch_ups: sqs.Queue,
    ) -> None:
        super().__init__(scope, construct_id)
        common: dict[str, Any] = {"stage": stage, "layers": layers, "tables": tables}
        origin = {"ORIGIN_SECRET_ARN": secrets.origin} if stage.edge else {}
        remote_api = remote_api_secrets(stage, secrets)
        self.connect = Function(
            self,
            "Connect",
            **common,
            handler="gateway_connect.connect.handler",
            actions={t.LIMITERS: ["UpdateItem"], t.CONNECTIONS: ["PutItem"]},
            secrets={"LIMITER_HASH_SALT_ARN": secrets.limiter_salt, **origin, **remote_api},
            reserved=stage.connect_concurrency,
        )
        self.disconnect = Function(
            self,
            "Disconnect",
            **common,
            handler="gateway_connect.disconnect.handler",
            actions=END_CONNECTION,
            secrets={},
        )
        self.messages = Function(
            self,
            "Messages",
            **common,
            handler="gateway_connect.messages.handler",
            actions={
                t.ACCESS: ["GetItem", "BatchGetItem"],
                t.PROFILES: ["GetItem"],
                t.CONNECTIONS: ["GetItem", "UpdateItem", "DeleteItem"],
                t.SUBSCRIPTIONS: [
                    "GetItem",
                    "BatchGetItem",
                    "PutItem",
                    "UpdateItem",
                    "DeleteItem",
                    "BatchWriteItem",
                    "ConditionCheckItem",
                ],
                t.STREAMS: ["GetItem", "UpdateItem"],
                t.LAST_VALUES: ["Query"],
                t.HISTORY: ["Query"],
                t.LIMITERS: ["UpdateItem"],
            },
            secrets={
                "JWT_GATEWAY_SECRET_ARN": secrets.jwt_gateway,
                "LIMITER_HASH_SALT_ARN": secrets.limiter_salt,
                **remote_api,
            },
            environment={"CATCH_UP_QUEUE_URL": catch_ups.queue_url},
        )
        self.messages.allow(["sqs:SendMessage"], [catch_ups.queue_arn])
        self.api = apigwv2.WebSocketApi(
            self,
            "Api",
            api_name=f"tidegate-{stage.name}-realtime",
            route_selection_expression="$request.body.type",
            connect_route_options=self._route("ConnectRoute", self.connect),
            disconnect_route_options=self._route("DisconnectRoute", self.disconnect),
            default_route_options=self._route("DefaultRoute", self.messages),
        )
        for route in ("subscribe", "unsubscribe", "ping"):
            self.api.add_route(
                route,
                integration=integrations.WebSocketLambdaIntegration(f"{route.title()}Route", self.messages.live),
            )
        self.stage = apigwv2.WebSocketStage(
            self,
            "Stage",
            web_socket_api=self.api,
            stage_name=STAGE_NAME,
            auto_deploy=True,
            throttle=apigwv2.ThrottleSettings(rate_limit=stage.place.part(RATE), burst_limit=stage.place.part(BURST)),
        )
        if not stage.disposable:
            self._log_access(account)
        for function in (self.messages, self.disconnect):
            self.give_connections(function)

    def give_connections(self, function: Function) -> None:
        """Let a function send to, look up and close connections, and give it the address for that."""
        stack = cdk.Stack.of(self)
        endpoint = f"https://{self.api.api_id}.execute-api.{stack.region}.{stack.url_suffix}/{STAGE_NAME}"
        function.tell("WEBSOCKET_API_ENDPOINT", endpoint)
        arns = [
            stack.format_arn(
                service="execute-api",
                resource=self.api.api_id,
                resource_name=f"{STAGE_NAME}/{method}/@connections/*",
            )
            for method in ("POST", "GET", "DELETE")
        ]
        function.allow(["execute-api:ManageConnections"], arns)

    @staticmethod
    def _route(construct_id: str, function: Function) -> apigwv2.WebSocketRouteOptions:
        return apigwv2.WebSocketRouteOptions(
            integration=integrations.WebSocketLambdaIntegration(construct_id, function.live)
        )

    def _log_access(self, account: Account) -> None:
        """Log who connected and with what result. No message bodies and no headers are logged, so no tokens."""
        group = logs.LogGroup(self, "AccessLogs", retention=logs.RetentionDays.ONE_MONTH, removal_policy=KEPT)
        default = self.stage.node.default_child
        assert isinstance(default, apigwv2.CfnStage)
        fields = {
            "requestId": "$context.requestId",
            "eventType": "$context.eventType",
            "routeKey": "$context.routeKey",
            "status": "$context.status",
            "connectionId": "$context.connectionId",
            "error": "$context.error.message",
        }
        default.access_log_settings = apigwv2.CfnStage.AccessLogSettingsProperty(
            destination_arn=group.log_group_arn, format=cdk.Stack.of(self).to_json_string(fields)
        )
        if not account.others_logging_role:
            default.add_resource_dependency(self._logging_role())

    def _logging_role(self) -> apigw.CfnAccount:
        """The role with which API Gateway writes logs. It is a setting of the whole account and region.

        Unlike an HTTP API, a WebSocket API with access logs is refused while this is not set. It stays when the stack
        is deleted, because other APIs of the region may rely on it by then. Where another stage or team has set one,
        that one is used, and this is not called.
        """
        role = iam.Role(
            self,
            "LoggingRole",
            assumed_by=iam.ServicePrincipal("apigateway.amazonaws.com"),
            managed_policies=[iam.ManagedPolicy.from_aws_managed_policy_name(LOGGING_POLICY)],
        )
        role.apply_removal_policy(KEPT)
        account = apigw.CfnAccount(self, "LoggingAccount", cloud_watch_role_arn=role.role_arn)
        account.apply_removal_policy(KEPT)
        return account
