"""One regional stack for each stage. Separate stacks for API and functions would depend on each other."""

from __future__ import annotations

import json
from typing import Any

import aws_cdk as cdk
from constructs import Construct

from infra.bridge import Bridge, catch_up_queue
from infra.edge import Edge
from infra.functions import Layers
from infra.gateway import STAGE_NAME, Gateway
from infra.http_api import HttpApi
from infra.packaging import dependency_layer, shared_layer
from infra.relay import Relay
from infra.revalidation import Revalidation
from infra.secrets import Secrets, secret_waits
from infra.stage import Stage
from infra.tables import Tables
from tidegate.tables import ALL_TABLES


class TidegateStack(cdk.Stack):
    """Everything of a stage."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        domain_name: str | None = None,
        certificate_arn: str | None = None,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            description=f"Tidegate, stage {stage.name}",
            termination_protection=not stage.disposable,
            # A cloud account has bootstrap roles; the local stack has none.
            synthesizer=cdk.CliCredentialsStackSynthesizer(file_assets_bucket_name="tidegate-assets")
            if stage.architecture == "host"
            else None,
        )
        self.stage_settings = stage
        self.tables = Tables(self, "Tables", stage=stage)
        self.secrets = Secrets(self, "Secrets", stage=stage)
        layers = Layers(
            shared=shared_layer(self, stage),
            dependencies=dependency_layer(self, "Dependencies", "dependencies", stage),
            api_dependencies=dependency_layer(self, "ApiDependencies", "api_dependencies", stage),
        )
        catch_ups = catch_up_queue(self, "CatchUps", stage=stage)
        common: dict[str, Any] = {"stage": stage, "layers": layers, "tables": self.tables}
        self.gateway = Gateway(self, "Gateway", **common, secrets=self.secrets, catch_ups=catch_ups.queue)
        self.http_api = HttpApi(self, "HttpApi", **common, secrets=self.secrets)
        self.bridge = Bridge(self, "Mqtt", **common, gateway=self.gateway, catch_ups=catch_ups.queue)
        self.revalidation = Revalidation(self, "Revalidation", **common, secrets=self.secrets, gateway=self.gateway)
        self.relay = Relay(
            self,
            "Relay",
            **common,
            gateway=self.gateway,
            secrets=self.secrets,
            catch_ups_url=catch_ups.queue.queue_url,
            catch_ups_arn=catch_ups.queue.queue_arn,
        )
        for function in (self.gateway.messages, self.revalidation.schedule, self.revalidation.worker):
            self.relay.give_start(function)
        self.relay.may_decrypt_before(self.http_api.function)
        self._output("RelayFunction", self.relay.worker.function.function_name)
        self.revalidation.give_profiles_queue(self.http_api.function)
        queues = {
            "CATCH_UP_QUEUE_URL": catch_ups.queue,
            "CROWD_QUEUE_URL": self.bridge.crowds,
            "REVALIDATION_QUEUE_URL": self.revalidation.queue,
        }
        queues["PROFILES_QUEUE_URL"] = self.revalidation.profiles_queue
        self.http_api.function.allow_health_checks(self.tables, queues)
        self._output("WebSocketApiId", self.gateway.api.api_id)
        self._output("WebSocketUrl", f"{self.gateway.api.api_endpoint}/{STAGE_NAME}")
        self._output("HttpApiId", self.http_api.api.api_id)
        self._output("HttpApiUrl", self.http_api.api.api_endpoint)
        self._output("JwtSecretArn", self.secrets.jwt.secret_arn)
        self._output("JwtGatewaySecretArn", self.secrets.jwt_gateway.secret_arn)
        self._output("GatewayServiceTokenArn", self.secrets.service_token.secret_arn)
        self._output("LimiterHashSaltArn", self.secrets.limiter_salt.secret_arn)
        self._output("SecretWaits", json.dumps(secret_waits(stage.settings), separators=(",", ":")))
        self._output("CredentialKeys", json.dumps(self.secrets.credential_key_arns(), separators=(",", ":")))
        self._output("RevalidationQueueUrl", self.revalidation.queue.queue_url)
        self._output("DevicePolicyName", self.bridge.device_policy.ref)
        for table in ALL_TABLES:
            self._output(table.variable.title().replace("_", ""), self.tables.of(table).table_name)
        if stage.edge:
            edge = Edge(
                self,
                "Edge",
                stage=stage,
                gateway=self.gateway,
                http_api=self.http_api,
                secrets=self.secrets,
                domain_name=domain_name,
                certificate_arn=certificate_arn,
            )
            self._output("EdgeUrl", f"https://{domain_name or edge.distribution.distribution_domain_name}")
            self._output("OriginSecretArn", self.secrets.origin.secret_arn)
            self._output("DistributionId", edge.distribution.distribution_id)
            self._output("ConsoleBucket", edge.console.bucket_name)

    def _output(self, name: str, value: str) -> None:
        cdk.CfnOutput(self, name, value=value)
