"""HMAC keys for limiters and stored addresses, so that no table tells who somebody is."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from functools import partial

from tidegate.adapters.aws.secrets_manager import Secret
from tidegate.ports.limits import KeyHasher


class SaltedKeys(KeyHasher):
    """Makes keys with the salt from a secret: 32 hex characters each."""

    def __init__(self, salt: Secret) -> None:
        self._salt = salt

    def key(self, *parts: str) -> str:
        return _key(self._salt.current(), *parts)

    def known(self) -> Sequence[Callable[..., str]]:
        return [partial(_key, value) for value in self._salt.values()]


def _key(salt: str, *parts: str) -> str:
    text = "\0".join(part.lower() for part in parts)
    return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()[:32]
