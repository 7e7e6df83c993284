"""Credential secrets at rest: AES-256-GCM with a data key of its own per secret, wrapped by KMS.

Invariant of this file: the profile id is associated data of both layers, so a sealed secret moved to another profile
does not open.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.errors import Unavailable
from tidegate.ports.control_plane import CredentialCipher


class KmsCredentialCipher(CredentialCipher):
    """Secrets sealed with a data key from KMS."""

    def __init__(self, kms: JsonClient, key_id: str) -> None:
        self._kms = kms
        self._key_id = key_id

    def encrypt(self, profile_id: str, secret: Mapping[str, str]) -> str:
        answer = self._call(
            "GenerateDataKey",
            {"KeyId": self._key_id, "KeySpec": "AES_256", "EncryptionContext": {"profile": profile_id}},
        )
        nonce = secrets.token_bytes(12)
        plain = json.dumps(dict(secret)).encode()
        sealed = AESGCM(base64.b64decode(answer["Plaintext"])).encrypt(nonce, plain, profile_id.encode())
        parts = {
            "v": 1,
            "key": answer["CiphertextBlob"],
            "nonce": base64.b64encode(nonce).decode(),
            "sealed": base64.b64encode(sealed).decode(),
        }
        return json.dumps(parts, separators=(",", ":"))

    def decrypt(self, profile_id: str, sealed: str) -> Mapping[str, str]:
        parts = json.loads(sealed)
        answer = self._call("Decrypt", {"CiphertextBlob": parts["key"], "EncryptionContext": {"profile": profile_id}})
        key = AESGCM(base64.b64decode(answer["Plaintext"]))
        try:
            plain = key.decrypt(
                base64.b64decode(parts["nonce"]), base64.b64decode(parts["sealed"]), profile_id.encode()
            )
        except InvalidTag as error:
            raise Unavailable("A credential cannot be opened", code="credential_unreadable") from error
        secret: dict[str, str] = json.loads(plain)
        return secret

    def _call(self, operation: str, request: Mapping[str, object]) -> Mapping[str, str]:
        try:
            return self._kms.call(operation, request)
        except AwsError as error:
            raise Unavailable("The key service did not answer", code="key_unavailable") from error
