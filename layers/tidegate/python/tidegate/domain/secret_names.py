"""The names of our secrets, and of the labels that Secrets Manager puts on their versions."""

from __future__ import annotations

CURRENT = "AWSCURRENT"
PREVIOUS = "AWSPREVIOUS"
PENDING = "AWSPENDING"
#: The labels whose values verify. They are read in this order (see `adapters.aws.secrets_manager`).
LABELS = (CURRENT, PREVIOUS, PENDING)

#: The variable that holds a secret's ARN -> the secret's name in commands and metrics.
SECRETS = {
    "JWT_SECRET_ARN": "jwt",
    "JWT_GATEWAY_SECRET_ARN": "jwt-gateway",
    "GATEWAY_SERVICE_TOKEN_ARN": "service-token",
    "LIMITER_HASH_SALT_ARN": "limiter-salt",
    "ORIGIN_SECRET_ARN": "origin",
}
