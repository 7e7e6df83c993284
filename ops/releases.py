"""Which release is live at a stage, and which one was before it: a parameter of Systems Manager.

`make deploy` writes it when a release is out, and `make rollback` when one is taken back. CloudFormation knows only
what it deployed last, and a function's versions do not tell which of them belong together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import botocore.exceptions


@dataclass(frozen=True, slots=True)
class Release:
    """What viewers and callers get.

    Attributes:
        functions: a function's path below the stack, such as `Gateway-Connect` -> its version.
        pages: the name of a page -> the MD5 of its content.
    """

    functions: Mapping[str, str]
    pages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """The release that is live, and what to go back to.

    Attributes:
        now: the release that is live.
        before: the one before it; None when there is none to go back to.
        went_back: whether `now` was gone back to. CloudFormation believes then that a newer release is live.
    """

    now: Release
    before: Release | None = None
    went_back: bool = False

    def after_deploying(self, release: Release) -> Record:
        """What is recorded when a release is out. Deploying the same again forgets nothing."""
        return self if release == self.now else Record(release, self.now)

    def after_going_back(self) -> Record:
        """What is recorded when the release before is live again. Raises `ValueError` when there was none."""
        if self.before is None:
            raise ValueError("there is no release before this one")
        return Record(self.before, went_back=True)


def parameter(stage: str) -> str:
    """The name of the parameter."""
    return f"/tidegate/{stage}/release"


def read(ssm: Any, stage: str) -> Record | None:
    """The record of a stage; None when no release was recorded. Another error of boto3 is passed on."""
    try:
        text = ssm.get_parameter(Name=parameter(stage))["Parameter"]["Value"]
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] == "ParameterNotFound":
            return None
        raise
    raw = json.loads(text)
    before = raw["before"]
    return Record(Release(**raw["now"]), Release(**before) if before else None, raw["went_back"])


def write(ssm: Any, stage: str, record: Record) -> None:
    """An error of boto3 is passed on."""
    text = json.dumps(asdict(record), separators=(",", ":"))
    ssm.put_parameter(Name=parameter(stage), Value=text, Type="String", Overwrite=True)


def note(record: Record | None, release: Release) -> Record:
    """What is recorded after a deployment, when this was recorded before it."""
    return Record(release) if record is None else record.after_deploying(release)


def forget(ssm: Any, stage: str) -> None:
    """Remove the record of a stage that is gone. An error of AWS is passed on."""
    try:
        ssm.delete_parameter(Name=parameter(stage))
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "ParameterNotFound":
            raise
