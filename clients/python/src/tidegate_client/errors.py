"""Refusals: by the API, by the protocol, and the end of what was watched."""

from __future__ import annotations


class Refused(Exception):
    """The server refused, or could not be reached.

    Attributes:
        code: what programs decide by, such as `denied`, `network` or `STREAM_RATE_LIMITED`.
        message: what people are shown.
        retryable: whether asking again may help. False is a denial; true is a limit, or that it could not be checked.
        retry_after: how long it makes no sense to ask again, seconds.
    """

    def __init__(self, code: str, message: str, *, retryable: bool, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after = retry_after


class Ended(Refused):
    """What was watched is over for good: `code` and `message` say why. It is raised where values are waited for."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message, retryable=False)
