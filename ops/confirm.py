"""Asking whoever runs a command. Where nobody can be asked, it refuses and says how to answer beforehand."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ops.changes import Reason
from ops.deploy_errors import DeployError


def _typed(question: str) -> str:
    """What somebody types. Who ends the input has said nothing."""
    try:
        return input(question).strip()
    except EOFError:
        return ""


def by_name(stage: str, given: str, command: str) -> None:
    """Go on only when the stage's name was given once more, or is typed now. Raises `DeployError`.

    Args:
        given: the name as it was given with the command; empty when it was not.
        command: the command that gives it.
    """
    if not given:
        if not sys.stdin.isatty():
            raise DeployError(f"Nobody can be asked here, so nothing was changed. To go on: {command}")
        given = _typed(f"  type the stage's name to go on ({stage}): ")
    if given != stage:
        raise DeployError(f"{given[:60]!r} is not {stage!r}; nothing was changed.")


def changes(stage: str, found: Sequence[Reason], yes: str) -> None:
    """Go on with what is asked about only when somebody says so. Raises `DeployError`.

    Args:
        yes: `1` when it was said beforehand.
    """
    if not found:
        return
    if yes not in ("", "1"):
        raise DeployError(f"YES={yes[:60]!r}; allowed: 1, or nothing. Nothing was changed.")
    told = "\n".join(f"  this deployment {reason.what}" for reason in found)
    if yes == "1":
        print(told)
        return
    if not sys.stdin.isatty():
        raise DeployError(
            f"Nobody can be asked here, so nothing was changed. It would have been asked:\n{told}\n"
            f"To go on: make deploy STAGE={stage} YES=1"
        )
    print(told)
    if _typed("  type yes to go on: ").lower() != "yes":
        raise DeployError("Nothing was changed.")
