"""Every error Tidegate raises on purpose, and what each one means to its caller.

    TidegateError                    code, message (safe to show), temporary
    |-- InvalidInput                 the request is wrong; the same request will be refused again      (400)
    |-- Unauthenticated              the caller is unknown, or no longer known                          (401)
    |-- Denied                       the caller is known and has no right to this                       (403)
    |-- NotFound                     the thing is not there, or its existence is not to be shown        (404)
    |-- Conflict                     somebody else was first; read again, then decide                   (409)
    |-- PolicyBlocked                the operator's policy forbids it for every caller                  (422)
    |-- LimitReached                 a rate or a cap refused; later it may be allowed                   (429)
    |-- Disabled                     the operator turned the feature off                                (404)
    |-- SecretUnreadable             a stored secret cannot be opened; trying again will not help       (500)
    `-- Unavailable                  nobody said no; a store or service that is needed did not answer   (503)
        |-- KeyNotYetKnown           a token names a key that our copy of the secret may only lack
        |-- LimiterUnavailable       it was the limiter's store, and its failure mode is fail-closed
        |-- ApiBusy                  a remote API said that it is called too often
        `-- ApiTimeout               a remote API did not answer in time

Invariant of this file: `Denied` and `Unavailable` are never each other's base class, so no handler can
confuse "no" with "don't know". `message` never holds an internal fault's text, a secret or a key.
"""

from __future__ import annotations


class TidegateError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        code: stable, machine-readable, lower snake case.
        message: for people; safe to show to a client.
        temporary: whether the same request may succeed later without a change.
        status: the HTTP status that says the same.
    """

    code: str = "error"
    temporary: bool = False
    status: int = 500

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidInput(TidegateError):
    """The request is malformed. The message names what was wrong and what is allowed."""

    code = "invalid_input"
    status = 400


class TooManyAtOnce(InvalidInput):
    """The change touches more than can be written at once. It can be made in smaller steps."""

    code = "too_many_at_once"


class Unauthenticated(TidegateError):
    """No valid credentials: missing, expired, forged, or of an account that is no longer active."""

    code = "unauthenticated"
    status = 401


class Denied(TidegateError):
    """The caller is known and has no right to this."""

    code = "denied"
    status = 403


class NotFound(TidegateError):
    """Absent, or hidden from this caller."""

    code = "not_found"
    status = 404


class Disabled(TidegateError):
    """The operator switched this off."""

    code = "disabled"
    status = 404


class Conflict(TidegateError):
    """A condition did not hold: somebody else changed the thing first.

    Attributes:
        current_revision: the revision that stands now, when the caller may know it.
    """

    code = "conflict"
    status = 409

    def __init__(self, message: str, *, code: str | None = None, current_revision: int | None = None) -> None:
        super().__init__(message, code=code)
        self.current_revision = current_revision


class ChangedMeanwhile(Conflict):
    """It was written by others between reading and writing, and nothing of the change was written.

    So the change may be made again from what stands now.
    """

    code = "changed_meanwhile"


class PolicyBlocked(TidegateError):
    """The operator's policy forbids this stream, for every caller."""

    code = "policy_blocked"
    status = 422


class LimitReached(TidegateError):
    """A rate limit or a cap refused. The message says which, and when to come back.

    Attributes:
        refusal: which limit, without when to come back.
        retry_after_ms: when it makes sense to come back, milliseconds from now: for a rate, when its window ends. None
            when no waiting helps, because the client itself has to give something up.
    """

    code = "limit_reached"
    status = 429

    def __init__(self, refusal: str, *, code: str | None = None, retry_after_ms: int | None = None) -> None:
        """`refusal`: which limit, without a full stop."""
        come_back = "" if retry_after_ms is None else f". Try again in {_in_words(retry_after_ms)}."
        super().__init__(f"{refusal}{come_back}", code=code)
        self.refusal = refusal
        self.retry_after_ms = retry_after_ms
        self.temporary = retry_after_ms is not None


def _in_words(ms: int) -> str:
    seconds = -(-ms // 1000)
    return "1 second" if seconds == 1 else f"{seconds} seconds"


class SecretUnreadable(TidegateError):
    """A stored secret cannot be opened: it is damaged, of another profile, or its key may not be used.

    It says nothing about the caller's rights. It stays so until an operator changes something.
    """

    code = "secret_unreadable"
    status = 500


class Unavailable(TidegateError):
    """A store or service that was needed did not answer. This says nothing about the caller's rights."""

    code = "unavailable"
    temporary = True
    status = 503


class KeyNotYetKnown(Unavailable):
    """A token names a signing key that is not known, and the secret was read too short a time ago to read it again.

    The key may be a new one, so this says nothing about the token. It holds for seconds.
    """

    code = "token_key_unknown"


class LimiterUnavailable(Unavailable):
    """The limiter's store did not answer in time, and the failure mode is `fail-closed`.

    Its message is shown to clients and names the limiter. On a WebSocket, where an API would answer 503, the client
    gets the error code RATE_LIMITED with this text.
    """

    code = "limiter_unavailable"


class ApiBusy(Unavailable):
    """A remote API refused to answer because it is called too often. Further calls to it would fare no better now."""

    code = "api_busy"
    status = 429


class ApiTimeout(Unavailable):
    """A remote API did not answer within the time set for it."""

    code = "api_timeout"
    status = 504
