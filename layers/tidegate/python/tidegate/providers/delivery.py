"""Providers of delivery: the management API, catch-ups, relay workers, and what ends a connection."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from tidegate import tables
from tidegate.providers.remote_api import RemoteApiProviders

if TYPE_CHECKING:
    from tidegate.adapters.aws.catch_up_queue import SqsCatchUpQueue
    from tidegate.adapters.aws.crowd_queue import SqsCrowdQueue
    from tidegate.adapters.aws.invocations import Invocations
    from tidegate.adapters.aws.management_api import ManagementApi
    from tidegate.adapters.tokens_jwt import JwtSessionTokens
    from tidegate.ports.relay_workers import RelayWorkers
    from tidegate.usecases.delivery.failures import FailureHandler
    from tidegate.usecases.delivery.paced_queue import Pace
    from tidegate.usecases.gateway.end_connection import EndConnection
    from tidegate.usecases.gateway.recover import Recover
    from tidegate.usecases.gateway.wake_schedule import WakeSchedule


class DeliveryProviders(RemoteApiProviders):
    """What sends to viewers, and what follows when that fails."""

    @cached_property
    def sender(self) -> ManagementApi:
        return self.new_sender()

    def new_sender(self) -> ManagementApi:
        """One more, with sockets of its own: `post_many` is for one thread at a time."""
        from tidegate.adapters.aws.management_api import ManagementApi

        endpoint = management_endpoint(self.variable("WEBSOCKET_API_ENDPOINT"), self.env)
        return ManagementApi(endpoint, region=self.region, credentials=self.credentials, observer=self.observer)

    @cached_property
    def catch_ups(self) -> SqsCatchUpQueue:
        from tidegate.adapters.aws.catch_up_queue import SqsCatchUpQueue

        return SqsCatchUpQueue(*self.queue("CATCH_UP_QUEUE_URL"))

    @cached_property
    def crowds(self) -> SqsCrowdQueue:
        from tidegate.adapters.aws.crowd_queue import SqsCrowdQueue

        return SqsCrowdQueue(*self.queue("CROWD_QUEUE_URL"))

    def new_pace(self) -> Pace | None:
        """The pace of one sender; None when there is no limit."""
        from tidegate.adapters.dynamodb.send_quota import DynamoSendQuota
        from tidegate.domain.send_quota import SendQuota
        from tidegate.usecases.delivery.paced_queue import Pace

        quota = SendQuota(self.settings.max_sends_per_second)
        if not quota.per_second:
            return None
        store = DynamoSendQuota(self.db, self.table(tables.LIMITERS), quota)
        return Pace(store, quota, clock=self.clock, chance=random.random, observer=self.observer)

    @cached_property
    def relay_workers(self) -> RelayWorkers:
        from tidegate.adapters.aws.relay_workers import LambdaRelayWorkers, NoRelayWorkers

        if self.env.get("RELAY_SERVICE") == "true":
            return NoRelayWorkers()
        name = self.env.get("RELAY_FUNCTION", "")
        if not name:  # the relay itself is not told its name: its own template could not hold it
            alias = self.env.get("RELAY_ALIAS", "")
            name = self.variable("AWS_LAMBDA_FUNCTION_NAME") + (f":{alias}" if alias else "")
        return LambdaRelayWorkers(self._invocations(name, "relay"))

    @cached_property
    def wake_schedule(self) -> WakeSchedule:
        from tidegate.adapters.aws.schedule_start import LambdaScheduleStart
        from tidegate.usecases.gateway.wake_schedule import WakeSchedule

        return WakeSchedule(
            states=self.schedule_state,
            schedule=LambdaScheduleStart(self._invocations(self.variable("SCHEDULE_FUNCTION"), "schedule")),
            clock=self.clock,
            observer=self.observer,
        )

    def _invocations(self, function_name: str, what: str) -> Invocations:
        from tidegate.adapters.aws.http import HttpClient, endpoint_url
        from tidegate.adapters.aws.invocations import Invocations
        from tidegate.adapters.aws.sigv4 import Signer

        http = HttpClient(endpoint_url("lambda", self.region, self.env))
        return Invocations(http, Signer(self.credentials, self.region, "lambda"), function_name, what)

    @cached_property
    def session_tokens(self) -> JwtSessionTokens:
        from tidegate.adapters.tokens_jwt import JwtSessionTokens

        settings = self.settings
        secret = self.secret("JWT_GATEWAY_SECRET_ARN")
        return JwtSessionTokens(secret, settings.session_token_issuer, settings.session_token_audience)

    @cached_property
    def recover(self) -> Recover:
        from tidegate.usecases.gateway.recover import Recover

        return Recover(self.history, self.clock)

    @cached_property
    def end_connection(self) -> EndConnection:
        from tidegate.usecases.gateway.end_connection import EndConnection

        return EndConnection(
            connections=self.connections,
            subscriptions=self.subscriptions,
            quota=self.quota,
            sender=self.sender,
            observer=self.observer,
        )

    @cached_property
    def failure_handler(self) -> FailureHandler:
        from tidegate.usecases.delivery.failures import FailureHandler

        return FailureHandler(
            catch_ups=self.catch_ups, end_connection=self.end_connection, clock=self.clock, observer=self.observer
        )


def management_endpoint(endpoint: str, env: Mapping[str, str]) -> str:
    """Where the management API of a deployed WebSocket API is.

    Args:
        endpoint: `https://<api>.execute-api.<region>.<suffix>/<stage>`.
        env: an emulator serves the same API when `AWS_ENDPOINT_URL` names one.
    """
    emulator = env.get("AWS_ENDPOINT_URL_EXECUTE_API") or env.get("AWS_ENDPOINT_URL")
    if not emulator:
        return endpoint
    host, _, stage = endpoint.removeprefix("https://").partition("/")
    return f"{emulator.rstrip('/')}/_aws/execute-api/{host.split('.')[0]}/{stage}"
