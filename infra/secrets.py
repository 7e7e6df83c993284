"""The secrets that functions read, and the keys that encrypt credentials. All values are generated, never given."""

from __future__ import annotations

import string

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.retention import data_of
from infra.stage import Stage
from tidegate.settings import Settings


def secret_waits(settings: Settings) -> dict[str, int]:
    """What a rotation waits for, seconds: `cache` is how long processes keep a secret. The others say how long what a
    secret made is in use. What is not named here is in use no longer than a request."""
    session = settings.datasource_session_ttl_seconds
    # Viewers of a remote API's upstreams come to a stream with a new fingerprint when they refresh their token.
    return {
        "cache": settings.secret_cache_seconds,
        "jwt": settings.login_ttl_seconds,
        "jwt-gateway": session,
        "limiter-salt": session,
    }


class Secrets(Construct):
    """A secret for each purpose, so that each can be rotated alone."""

    def __init__(self, scope: Construct, construct_id: str, *, stage: Stage) -> None:
        super().__init__(scope, construct_id)
        removal = data_of(stage)
        self.jwt = self._secret("Jwt", "Signs login tokens", removal)
        self.jwt_gateway = self._secret("JwtGateway", "Signs datasource session tokens", removal)
        self.service_token = self._secret("ServiceToken", "Bearer token of the internal API", removal)
        self.limiter_salt = self._secret("LimiterSalt", "Salt of limiter keys and stored addresses", removal)
        self.origin = self._secret("Origin", "Header the edge adds, so that nobody goes around it", removal)
        # A key that is dropped from the list stays in the account, unless the stage is disposable.
        self.credential_keys = {
            number: kms.Key(
                self,
                f"CredentialKey{number}",
                description=f"Wraps the data keys of credential profiles, key {number}",
                enable_key_rotation=True,
                removal_policy=removal,
            )
            for number in stage.credential_keys
        }
        #: The newest, which encrypts. All of them decrypt.
        self.credential_key = self.credential_keys[stage.credential_keys[-1]]

    def credential_key_arns(self) -> dict[int, str]:
        """Number -> ARN, the newest last."""
        return {number: key.key_arn for number, key in self.credential_keys.items()}

    def _secret(self, name: str, description: str, removal: cdk.RemovalPolicy) -> secretsmanager.Secret:
        return secretsmanager.Secret(
            self,
            name,
            description=description,
            # Letters and digits only: the value goes into an env file or a shell without quotation marks. Both ways of
            # saying it are there, because emulators know only the second.
            generate_secret_string=secretsmanager.SecretStringGenerator(
                password_length=64, exclude_punctuation=True, exclude_characters=string.punctuation
            ),
            removal_policy=removal,
        )
