"""What every function has: its environment, settings, clock, observer, and a way to AWS services and secrets.

A provider is a method that makes one thing when it is first asked for, and imports its adapter only then. A function
pays at its cold start for what it uses. Each `functions/<name>/wiring.py` builds its services from providers.

Modules of this package build on each other: process -> stores -> limits -> remote_api -> delivery -> control_plane.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tidegate.adapters.system import SystemClock, SystemIds

if TYPE_CHECKING:
    from tidegate.adapters.aws.json_client import JsonClient
    from tidegate.adapters.aws.secrets_manager import Secret
    from tidegate.adapters.aws.sigv4 import CredentialSource
    from tidegate.adapters.json_observer import JsonObserver
    from tidegate.settings import Settings
    from tidegate.tables import Table

Handler = Callable[[dict[str, Any], Any], Any]


class HasObserver(Protocol):
    """Services of a handler."""

    @property
    def observer(self) -> JsonObserver: ...


S = TypeVar("S", bound=HasObserver)


class MissingVariable(RuntimeError):
    """A variable the deployment must set is not there."""


class ProcessProviders:
    """The providers of one process. `env` is its environment; without it, the real one."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self.env = os.environ if env is None else env
        self.clock = SystemClock()
        self.ids = SystemIds()

    def variable(self, name: str) -> str:
        """A variable that must be set. Raises `MissingVariable`."""
        value = self.env.get(name, "")
        if not value:
            raise MissingVariable(f"{name} is not set: this function needs it (the CDK app sets it)")
        return value

    def table(self, table: Table) -> str:
        """The deployed name of a table. Raises `MissingVariable`."""
        return self.variable(table.variable)

    @cached_property
    def settings(self) -> Settings:
        from tidegate.settings import load

        return load(self.env)

    @cached_property
    def observer(self) -> JsonObserver:
        from tidegate.adapters.json_observer import JsonObserver

        return JsonObserver(self.env.get("TIDEGATE_SERVICE", "tidegate"), self.env.get("TIDEGATE_STAGE", "none"))

    @cached_property
    def region(self) -> str:
        return self.variable("AWS_REGION")

    @cached_property
    def credentials(self) -> CredentialSource:
        from tidegate.adapters.aws.sigv4 import credentials_from

        return credentials_from(self.env)

    def aws(self, service: str, target: str, version: str) -> JsonClient:
        """A client of a service that speaks JSON.

        Args:
            service: its endpoint's name, for example `dynamodb`.
            target: prefix of the operation's name in `X-Amz-Target`.
            version: of the JSON protocol, `1.0` or `1.1`.
        """
        from tidegate.adapters.aws.http import endpoint_url
        from tidegate.adapters.aws.json_client import JsonClient

        base_url = endpoint_url(service, self.region, self.env)
        return JsonClient(
            service, target, version=version, region=self.region, credentials=self.credentials, base_url=base_url
        )

    def queue(self, variable: str) -> tuple[JsonClient, str]:
        """A client of SQS, and the URL of the queue that the variable names."""
        return self.aws("sqs", "AmazonSQS", "1.0"), self.variable(variable)

    @cached_property
    def _secrets(self) -> JsonClient:
        return self.aws("secretsmanager", "secretsmanager", "1.1")

    def secret(self, variable: str) -> Secret:
        """The secret whose ARN the variable holds. It is read when it is first used."""
        from tidegate.adapters.aws.secrets_manager import Secret
        from tidegate.domain.secret_names import SECRETS

        return Secret(
            lambda: self._secrets,
            self.variable(variable),
            self.clock,
            name=SECRETS[variable],
            observer=self.observer,
            ttl_s=self.settings.secret_cache_seconds,
            must_be_strong=self.settings.production,
        )

    @cached_property
    def origin(self) -> Secret | None:
        """What proves that a request came through the edge. None where there is no edge."""
        return self.secret("ORIGIN_SECRET_ARN") if self.env.get("ORIGIN_SECRET_ARN") else None


def lambda_handler(make_handler: Callable[[S], Handler], build: Callable[[], S]) -> Handler:
    """A Lambda handler over its services, which are built once in a process.

    On Lambda they are built when the handler's module is loaded, so that what they import is part of the platform's
    initialisation and not of the first event. Elsewhere (tests, tools) a handler may be imported without a deployment's
    environment, so they are built at the first event.
    """
    if os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
        return with_ids(make_handler, build())
    made: list[Handler] = []

    def handler(event: dict[str, Any], context: Any) -> Any:
        if not made:
            made.append(with_ids(make_handler, build()))
        return made[0](event, context)

    return handler


def with_ids(make_handler: Callable[[S], Handler], services: S) -> Handler:
    """The handler, each of whose log lines has the ids by which the event is found elsewhere."""
    handler = make_handler(services)

    def handle(event: dict[str, Any], context: Any) -> Any:
        services.observer.begin(**event_ids(event, getattr(context, "aws_request_id", None)))
        return handler(event, context)

    return handle


def event_ids(event: Mapping[str, Any], request_id: str | None) -> Mapping[str, str]:
    """Those that there are: of the invocation, as in Lambda's own lines; of the request, as in API Gateway's access
    log; and of the connection."""
    asked = event.get("requestContext") or {}
    ids = {
        "request_id": request_id,
        "api_request_id": asked.get("requestId"),
        "connection_id": asked.get("connectionId"),
    }
    return {name: str(value) for name, value in ids.items() if value}
