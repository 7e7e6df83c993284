"""Credential secrets at rest: AES-256-GCM. Each secret has its own data key, which KMS wraps.

Invariant of this file: the profile id is associated data both of the secret and of its wrapped key. So a sealed secret
that is moved to another profile does not open.

A sealed secret names the key of KMS that wraps its data key, as KMS itself answered. Opening does not need the name:
KMS finds it in the wrapped data key.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.errors import SecretUnreadable, Unavailable
from tidegate.ports.control_plane import CredentialCipher

#: Errors of KMS `Decrypt` that the same request meets again until an operator changes something (AWS KMS API Reference,
#: "Decrypt", "Errors"). The ciphertext is of another key or of another context, or the key is disabled, being deleted,
#: deleted, or not ours to use. All other errors say that KMS could not answer now.
_FINAL = frozenset(
    {
        "InvalidCiphertextException",
        "IncorrectKeyException",
        "InvalidKeyUsageException",
        "DisabledException",
        "KMSInvalidStateException",
        "NotFoundException",
        "AccessDeniedException",
    }
)


class KmsCredentialCipher(CredentialCipher):
    """Seals and opens secrets with data keys from KMS."""

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
            "key": answer["CiphertextBlob"],
            "keyId": answer["KeyId"],
            "nonce": base64.b64encode(nonce).decode(),
            "sealed": base64.b64encode(sealed).decode(),
        }
        return json.dumps(parts, separators=(",", ":"))

    def decrypt(self, profile_id: str, sealed: str) -> Mapping[str, str]:
        try:
            parts = json.loads(sealed)
            wrapped, nonce = parts["key"], base64.b64decode(parts["nonce"], validate=True)
            body = base64.b64decode(parts["sealed"], validate=True)
            base64.b64decode(wrapped, validate=True)  # KMS would refuse the request as malformed, not the secret
        except (ValueError, TypeError, KeyError, binascii.Error) as error:
            raise _unreadable() from error
        answer = self._call("Decrypt", {"CiphertextBlob": wrapped, "EncryptionContext": {"profile": profile_id}})
        try:
            plain = AESGCM(base64.b64decode(answer["Plaintext"])).decrypt(nonce, body, profile_id.encode())
            secret = json.loads(plain)
        except (InvalidTag, ValueError) as error:
            raise _unreadable() from error
        if not isinstance(secret, dict):
            raise _unreadable()
        return secret

    @staticmethod
    def key_of(sealed: str) -> str | None:
        """The ARN of the key that a sealed secret is under; None when it does not say."""
        try:
            key_id = json.loads(sealed)["keyId"]
        except (ValueError, TypeError, KeyError):
            return None
        return key_id if isinstance(key_id, str) else None

    def _call(self, operation: str, request: Mapping[str, object]) -> Mapping[str, str]:
        try:
            return self._kms.call(operation, request)
        except AwsError as error:
            if operation == "Decrypt" and error.code in _FINAL:
                raise _unreadable() from error
            raise Unavailable("The key service did not answer", code="key_unavailable") from error


def _unreadable() -> SecretUnreadable:
    return SecretUnreadable("A credential cannot be opened", code="credential_unreadable")
