"""What a deployed function finds in its environment: tables, secrets, a key and queues on moto's server, which runs in
this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import boto3
import moto.backends
import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID

from fixtures.tables import create_table
from tidegate.adapters import password_argon2
from tidegate.adapters.aws import json_client
from tidegate.adapters.dynamodb import client
from tidegate.domain.limits import MOST_LIMITER_MS
from tidegate.domain.time_limits import MESSAGE_BUDGET_MS
from tidegate.tables import ALL_TABLES

REGION = "us-east-1"
_NUMBERS = count(1)
#: How long a call may take, seconds, where a test sets no deadline of its own. On a busy machine moto may need longer
#: than AWS ever does, and a call that is repeated because of it meets what it wrote itself.
PATIENCE_S = 60.0
#: As long as it may be, for the same reason.
PATIENT = {
    "GATEWAY_LIMITER_TIMEOUT_MS": str(MOST_LIMITER_MS),
    "GATEWAY_INTROSPECTION_TIMEOUT_MS": str(MESSAGE_BUDGET_MS - MOST_LIMITER_MS),
}
_PRODUCTS_S = json_client.DEFAULT_TIMEOUT_S
#: The least that Argon2 takes. What passwords cost is a matter of `tests/contracts/test_aws.py`.
CHEAP = password_argon2.Cost(iterations=1, memory_kib=8, parallelism=1)
SECRETS = {
    "JWT_SECRET_ARN": "login-secret-0123456789-abcdefghijklmn",
    "JWT_GATEWAY_SECRET_ARN": "session-secret-0123456789-abcdefghijk",
    "GATEWAY_SERVICE_TOKEN_ARN": "service-token-0123456789-abcdefghijkl",
    "LIMITER_HASH_SALT_ARN": "limiter-salt-0123456789-abcdefghijklm",
}


@contextmanager
def in_one_process() -> Iterator[None]:
    """Settings for functions, their AWS and their passwords that share a process with the tests: the machine's speed
    decides nothing, and little is computed that no test looks at."""
    with pytest.MonkeyPatch.context() as patch:
        _wait(patch, PATIENCE_S)
        patch.setattr(password_argon2, "COST", CHEAP)
        # moto looks through its folder for each request.
        modules = list(moto.backends.list_of_moto_modules())
        patch.setattr(moto.backends, "list_of_moto_modules", lambda: iter(modules))
        yield


@contextmanager
def as_patient_as_the_product() -> Iterator[None]:
    """For tests of what happens when a store does not answer. They also take `PATIENT` from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        _wait(patch, _PRODUCTS_S)
        yield


def _wait(patch: pytest.MonkeyPatch, seconds: float) -> None:
    for module in (json_client, client):
        patch.setattr(module, "DEFAULT_TIMEOUT_S", seconds)


@cache
def aws(url: str, service: str) -> Any:
    """boto3's client of a service at that address. Made once: making one takes longer than most tests."""
    client: Any = boto3.client  # its typed overloads want the service as a literal
    return client(
        service,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


@cache
def _shared(moto_url: str) -> Mapping[str, str]:
    """Secrets and the key of credentials. No test changes them, so all deployments of a server have the same."""
    secrets = aws(moto_url, "secretsmanager")
    made = {
        variable: secrets.create_secret(Name=variable, SecretString=value)["ARN"] for variable, value in SECRETS.items()
    }
    made["CREDENTIAL_KEY_ID"] = aws(moto_url, "kms").create_key()["KeyMetadata"]["Arn"]
    return made


class _Backends:
    """moto's tables and queues without its server: making them through it takes longer than most tests."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._tables: Any = moto.backends.get_backend("dynamodb")[DEFAULT_ACCOUNT_ID][REGION]
        self._queues: Any = moto.backends.get_backend("sqs")[DEFAULT_ACCOUNT_ID][REGION]

    def create_table(self, **asked: Any) -> None:
        self._tables.create_table(
            asked["TableName"],
            schema=asked["KeySchema"],
            attr=asked["AttributeDefinitions"],
            global_indexes=asked.get("GlobalSecondaryIndexes", []),
            billing_mode=asked["BillingMode"],
            indexes=[],
            tags=[],
            deletion_protection_enabled=False,
            **dict.fromkeys(("throughput", "streams", "sse_specification", "warm_throughput")),
        )

    def update_time_to_live(self, **asked: Any) -> None:
        self._tables.update_time_to_live(asked["TableName"], asked["TimeToLiveSpecification"])

    def create_queue(self, name: str) -> str:
        """Returns its URL."""
        return str(self._queues.create_queue(name).url(self._url))


def deployment(moto_url: str) -> dict[str, str]:
    """The environment of a function over fresh tables and queues. They end with the server, which is a process's own:
    deleting them would only take time."""
    prefix = f"t{next(_NUMBERS)}"
    env = {
        "TIDEGATE_ENV": "test",
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "REALTIME_MQTT_ALLOWED_TOPICS": "demo/#",
        "REALTIME_IOT_TOPIC_PREFIX": "demo",
        "REALTIME_LIMITER_FAILURE_MODE": "fail-closed",
        "SECURITY_LIMITER_FAILURE_MODE": "fail-closed",
        **PATIENT,
        "WEBSOCKET_API_ENDPOINT": "https://api.execute-api.us-east-1.amazonaws.com/live",
        "API_DOCS_ENABLED": "true",
        "RELAY_FUNCTION": "relay",
        "SCHEDULE_FUNCTION": "schedule",
        **_shared(moto_url),
    }
    backends = _Backends(moto_url)
    for table in ALL_TABLES:
        env[table.variable] = f"{prefix}-{table.name}"
        create_table(backends, table, env[table.variable])
    for variable in ("CATCH_UP_QUEUE_URL", "CROWD_QUEUE_URL", "REVALIDATION_QUEUE_URL", "PROFILES_QUEUE_URL"):
        env[variable] = backends.create_queue(f"{prefix}-{variable}")
    for variable in ("CATCH_UP_DEAD_QUEUE_URL", "CROWD_DEAD_QUEUE_URL", "REVALIDATION_DEAD_QUEUE_URL"):
        env[variable] = backends.create_queue(f"{prefix}-{variable}")
    return env
