"""What an account answers, as a value: what was asked for, that it is denied, or that it failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import botocore.exceptions

#: AWS's words for "you may not". CloudFront says the same to an account that it has not verified yet.
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"})
#: boto3's names for an address that does not answer.
_UNREACHED = frozenset(
    {
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ConnectionClosedError",
        "ProxyConnectionError",
        "SSLError",
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of AWS.

    Attributes:
        value: what was asked for; None when there is no such answer.
        code: AWS's code of an error, empty when it answered. Of a call that never got there, boto3's name of the error.
        message: AWS's words for it.
        denied: the IAM action that is missing; empty when nothing was denied.
    """

    value: Any = None
    code: str = ""
    message: str = ""
    denied: str = ""

    @property
    def unreached(self) -> bool:
        """Whether nobody answered, which says nothing of what was asked."""
        return self.code in _UNREACHED

    @property
    def there(self) -> bool:
        return self.code == ""

    def unknown(self) -> str:
        """Why it is not known, for people."""
        if self.denied:
            return f"denied; needs {self.denied}"
        return f"{self.code}: {self.message}"


def ask(action: str, call: Callable[[], Any]) -> Answer:
    """Call AWS. No error of AWS or of the way to it is raised.

    Args:
        action: the IAM action that the call needs.
    """
    try:
        return Answer(call())
    except botocore.exceptions.ClientError as error:
        told: Mapping[str, Any] = error.response.get("Error", {})
        code = str(told.get("Code", "Error"))
        return Answer(code=code, message=str(told.get("Message", "")), denied=action if code in _DENIED else "")
    except botocore.exceptions.BotoCoreError as error:
        return Answer(code=type(error).__name__, message=str(error))
