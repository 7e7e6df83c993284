"""What `make rollback` does, and in which order. No input or output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.rollout_table import STEPS
from ops.releases import Record


class Refused(Exception):
    """There is no way back that can be gone safely. The message says what to do instead."""


@dataclass(frozen=True, slots=True)
class Alias:
    """Where calls of a function go.

    Attributes:
        version: most of them, or all.
        shifting: whether others go elsewhere.
    """

    version: str
    shifting: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A stage as it is.

    Attributes:
        status: of its stack, as CloudFormation names it.
        aliases: a function's path below the stack -> where its calls go.
        pages: the name of a page -> the MD5 of its content.
        deployments: ids of CodeDeploy's deployments that run.
    """

    status: str
    aliases: Mapping[str, Alias]
    pages: Mapping[str, str]
    deployments: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do.

    Attributes:
        what: `cancel update`, `stop deployment`, `put back page` or `move alias`.
        name: of the deployment, page or function; empty for the update.
        was: the version or the MD5 that is there; empty where there is none.
        to: the one that is to be there.
    """

    what: str
    name: str = ""
    was: str = ""
    to: str = ""

    def __str__(self) -> str:
        change = f": {self.was} -> {self.to}" if self.to else ""
        return f"{self.what} {self.name}".strip() + change


CANCEL, STOP, PAGE, MOVE = "cancel update", "stop deployment", "put back page", "move alias"


def plan(stage: str, found: Found, record: Record | None, *, further: bool = False) -> list[Action]:
    """What to do, in its order; empty when all is done. Raises `Refused`.

    A deployment that runs is stopped, and CloudFormation takes all of it back. One that is out is gone back from in
    reverse order: pages first, which ask the newest API, then each step from the last to the first. What was done by a
    run that stopped on its way is left out.

    Args:
        further: go back although the last deployment was taken back already.
    """
    if found.status == "UPDATE_IN_PROGRESS":
        return [Action(CANCEL), *(Action(STOP, each) for each in found.deployments)]
    if not found.status.endswith("_COMPLETE") or "CLEANUP" in found.status:
        raise Refused(
            f"the stack is {found.status}: CloudFormation is at work, or has stopped. Wait until its state ends in "
            "_COMPLETE, or mend it in the CloudFormation console."
        )
    if found.status == "UPDATE_ROLLBACK_COMPLETE" and not further:
        raise Refused(
            "the last deployment failed and was taken back already. To go back from the release that is live now, use "
            "OPTIONS=--further."
        )
    if record is None or record.before is None:
        raise Refused(
            f"no release before this one is known. Check out the release that is to be live, and run "
            f"`make deploy STAGE={stage}`."
        )
    return [*_pages(found, record), *_aliases(stage, found, record)]


def _pages(found: Found, record: Record) -> list[Action]:
    assert record.before is not None
    return [
        Action(PAGE, name, found.pages.get(name, ""), digest)
        for name, digest in sorted(record.before.pages.items())
        if found.pages.get(name) != digest
    ]


def _aliases(stage: str, found: Found, record: Record) -> list[Action]:
    assert record.before is not None
    actions = []
    for name in [name for step in reversed(STEPS) for name in step.functions]:
        to = record.before.functions.get(name)
        if to is None or name not in found.aliases:
            continue  # it came with this release, or went with it: the release before does not call it
        alias = found.aliases[name]
        if alias.shifting or alias.version not in (to, record.now.functions.get(name)):
            raise Refused(
                f"{name} is at version {alias.version}{' and shifting' if alias.shifting else ''}, but "
                f"`make deploy STAGE={stage}` left it at {record.now.functions.get(name)}. Somebody else moved it, so "
                f"it is not known what is live. Check out the release that is to be live, and deploy it with "
                f"SHIFT=at-once."
            )
        if alias.version != to:
            actions.append(Action(MOVE, name, alias.version, to))
    return actions
