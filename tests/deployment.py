"""What a deployed function finds in its environment: tables, secrets, a key and queues on moto's server."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import count
from typing import Any

import boto3

from fixtures.tables import create_table
from tidegate.tables import ALL_TABLES

REGION = "us-east-1"
_NUMBERS = count(1)
SECRETS = {
    "JWT_SECRET_ARN": "login-secret-0123456789-abcdefghijklmn",
    "JWT_GATEWAY_SECRET_ARN": "session-secret-0123456789-abcdefghijk",
    "GATEWAY_SERVICE_TOKEN_ARN": "service-token-0123456789-abcdefghijkl",
    "LIMITER_HASH_SALT_ARN": "limiter-salt-0123456789-abcdefghijklm",
}


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
        "WEBSOCKET_API_ENDPOINT": "https://api.execute-api.us-east-1.amazonaws.com/live",
        "API_DOCS_ENABLED": "true",
        "RELAY_FUNCTION": "relay",
        **_shared(moto_url),
    }
    dynamodb, sqs = aws(moto_url, "dynamodb"), aws(moto_url, "sqs")
    for table in ALL_TABLES:
        env[table.variable] = f"{prefix}-{table.name}"
        create_table(dynamodb, table, env[table.variable])
    for variable in ("CATCH_UP_QUEUE_URL", "CROWD_QUEUE_URL", "REVALIDATION_QUEUE_URL", "PROFILES_QUEUE_URL"):
        env[variable] = sqs.create_queue(QueueName=f"{prefix}-{variable}")["QueueUrl"]
    return env
