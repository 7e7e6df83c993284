"""What `make deploy` found in the account, and tells the app by context. The app itself asks nobody."""

from __future__ import annotations

from dataclasses import dataclass

from constructs import Node

from infra.stage_file import StageError

#: The names in the context.
CREATED, LOGGING_ROLE = "created", "others_logging_role"


@dataclass(frozen=True, slots=True)
class Account:
    """How the account was found.

    Attributes:
        created: the stage's stack was created with success before. Only then is it protected: what fails at its first
            creation has to be deleted, before it can be tried again.
        others_logging_role: somebody else has set the role with which API Gateway writes logs. It is one for the whole
            account and region, so it is left alone.
    """

    created: bool = False
    others_logging_role: bool = False


def told(node: Node) -> Account:
    """Read the context. What is not there was not found. Raises `StageError`."""
    return Account(_switch(node, CREATED), _switch(node, LOGGING_ROLE))


def _switch(node: Node, name: str) -> bool:
    given = node.try_get_context(name)
    if given not in (None, True, False, "true", "false"):
        raise StageError(f"context `{name}` is {str(given)[:60]!r}; allowed: true, false")
    return given in (True, "true")
