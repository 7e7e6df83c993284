"""Shared by all tests: no test may reach a real account, and AWS is moto's server on a free port."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from fixtures.tables import create_table
from tidegate.tables import ALL_TABLES

REGION = "us-east-1"
SECRETS = {
    "JWT_SECRET_ARN": "login-secret-0123456789-abcdefghijklmn",
    "JWT_GATEWAY_SECRET_ARN": "session-secret-0123456789-abcdefghijk",
    "GATEWAY_SERVICE_TOKEN_ARN": "service-token-0123456789-abcdefghijkl",
    "LIMITER_HASH_SALT_ARN": "limiter-salt-0123456789-abcdefghijklm",
}


@pytest.fixture(autouse=True)
def _no_real_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_SESSION_TOKEN": "testing",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def aws(url: str, service: str) -> Any:
    client: Any = boto3.client  # its typed overloads want the service as a literal
    return client(
        service,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


@contextmanager
def deployment(moto_url: str, prefix: str) -> Iterator[dict[str, str]]:
    """The environment of a function over fresh tables, secrets, key and queues."""
    dynamodb = aws(moto_url, "dynamodb")
    env = {
        "TIDEGATE_ENV": "test",
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "REALTIME_MQTT_ALLOWED_TOPICS": "demo/#",
        "REALTIME_LIMITER_FAILURE_MODE": "fail-closed",
        "SECURITY_LIMITER_FAILURE_MODE": "fail-closed",
        "WEBSOCKET_API_ENDPOINT": "https://api.execute-api.us-east-1.amazonaws.com/live",
        "API_DOCS_ENABLED": "true",
        "RELAY_FUNCTION": "relay",
    }
    for table in ALL_TABLES:
        env[table.variable] = f"{prefix}-{table.name}"
        create_table(dynamodb, table, env[table.variable])
    secrets = aws(moto_url, "secretsmanager")
    for variable, value in SECRETS.items():
        env[variable] = secrets.create_secret(Name=f"{prefix}-{variable}", SecretString=value)["ARN"]
    env["CREDENTIAL_KEY_ID"] = aws(moto_url, "kms").create_key()["KeyMetadata"]["Arn"]
    for variable in ("CATCH_UP_QUEUE_URL", "REVALIDATION_QUEUE_URL", "PROFILES_QUEUE_URL"):
        env[variable] = aws(moto_url, "sqs").create_queue(QueueName=f"{prefix}-{variable}")["QueueUrl"]
    yield env
    for table in ALL_TABLES:
        dynamodb.delete_table(TableName=env[table.variable])


@pytest.fixture
def deployed(moto_url: str, request: pytest.FixtureRequest) -> Iterator[Mapping[str, str]]:
    with deployment(moto_url, f"t{abs(hash(request.node.nodeid)) % 10**10}") as env:
        yield env
