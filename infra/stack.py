"""One regional stack for each stage. Separate stacks for API and functions would depend on each other."""

from __future__ import annotations

import json
from typing import Any

import aws_cdk as cdk
from constructs import Construct

from infra.account import Account
from infra.alarms import Alarms
from infra.bridge import Bridge, RetriedQueue, catch_up_queue
from infra.dashboard import Dashboard
from infra.edge import Edge
from infra.functions import Layers
from infra.gateway import STAGE_NAME, Gateway
from infra.http_api import HttpApi
from infra.packaging import dependency_layer, shared_layer
from infra.relay import Relay
from infra.revalidation import Revalidation
from infra.rollout import RollOut, functions_of
from infra.secrets import Secrets, secret_waits
from infra.stage import Stage
from infra.stage_place import STAGE_TAG
from infra.tables import Tables
from infra.watched import watched
from tidegate.tables import ALL_TABLES


class TidegateStack(cdk.Stack):
    """Everything of a stage."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        account: Account,
        at_once: bool = False,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            description=f"Tidegate, stage {stage.name}",
            termination_protection=account.created and not stage.disposable,
            # CloudFormation puts them on everything that has tags, so what is kept can be found by them later.
            tags={STAGE_TAG: stage.name, **stage.place.tags} if stage.tls else None,
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
            relay_dependencies=dependency_layer(self, "RelayDependencies", "relay_dependencies", stage),
        )
        catch_ups = catch_up_queue(self, "CatchUps", stage=stage)
        common: dict[str, Any] = {"stage": stage, "layers": layers, "tables": self.tables}
        self.gateway = Gateway(
            self, "Gateway", **common, account=account, secrets=self.secrets, catch_ups=catch_ups.queue
        )
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
        if self.relay.service is not None:
            self._output("RelayService", self.relay.service.service.service_arn)
        self.revalidation.give_profiles_queue(self.http_api.function)
        self._allow_operations(catch_ups)
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
            )
            domain_name = stage.place.domain or edge.distribution.distribution_domain_name
            self._output("EdgeUrl", f"https://{domain_name}")
            self._output("OriginSecretArn", self.secrets.origin.secret_arn)
            self._output("DistributionId", edge.distribution.distribution_id)
            self._output("ConsoleBucket", edge.console.bucket_name)
        self._watch_and_roll_out(stage, at_once=at_once)

    def _watch_and_roll_out(self, stage: Stage, *, at_once: bool) -> None:
        """What is made last, because it looks for what there is: alarms, dashboard, and the order of a deployment."""
        if stage.tls:  # the emulator knows no alarm of a query, and nobody is on call for it
            found = watched(self, gateway=self.gateway, http_api=self.http_api, revalidation=self.revalidation.queue)
            alarms = Alarms(self, "Alarms", stage=stage, watched=found)
            self._output("DashboardName", Dashboard(self, "Watch", stage=stage, watched=found, alarms=alarms.made).name)
            if self.relay.service is not None:
                alarms.tell_of(self.relay.service.stopped)
        if stage.versions:
            RollOut(self, "RollOut", at_once=at_once)
            names = {name: function.function.function_name for name, function in functions_of(self).items()}
            self._output("Functions", json.dumps(names, separators=(",", ":")))

    def _allow_operations(self, catch_ups: RetriedQueue) -> None:
        """Let the API ask whether everything answers, and tell operators what waits and what failed."""
        queues = {
            "CATCH_UP_QUEUE_URL": catch_ups.queue,
            "CROWD_QUEUE_URL": self.bridge.crowds.queue,
            "REVALIDATION_QUEUE_URL": self.revalidation.queue,
        }
        dead = {
            "CATCH_UP_DEAD_QUEUE_URL": catch_ups.dead,
            "CROWD_DEAD_QUEUE_URL": self.bridge.crowds.dead,
            "REVALIDATION_DEAD_QUEUE_URL": self.revalidation.dead,
        }
        profiles = {"PROFILES_QUEUE_URL": self.revalidation.profiles_queue}  # to which it may send already
        self.http_api.function.allow_health_checks(self.tables, {**queues, **profiles})
        if (batched := self.bridge.device_messages) is not None:
            queues["DEVICE_MESSAGES_QUEUE_URL"] = batched.queue
            dead["DEVICE_MESSAGES_DEAD_QUEUE_URL"] = batched.dead
        self.http_api.allow_operations(self.tables, queues, dead)
        # For operators, who do the same without the API.
        urls = {variable: queue.queue_url for variable, queue in {**queues, **profiles, **dead}.items()}
        self._output("Queues", self.to_json_string(urls))

    def _output(self, name: str, value: str) -> None:
        cdk.CfnOutput(self, name, value=value)
