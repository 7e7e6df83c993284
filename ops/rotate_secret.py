"""Rotate a secret of a stage, or show the state of all; `make rotate-secret` and `make secrets`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import botocore.exceptions

from infra.stage import StageError, load_stage, names
from local_stack.show import table
from ops import credential_key, local_stage, preflight
from ops.credential_key import CredentialKey
from ops.deploy import DeployError, stage_environment
from ops.deploy_errors import LOCAL
from ops.edge_header import EdgeHeader
from ops.rotation import Event, Rotation, RotationRefused
from ops.secret_versions import SecretVersions
from ops.stack_outputs import output
from tidegate.domain.credential_keys import next_for
from tidegate.domain.rotation import Done, Refused, State, Step, Version, Wait, waits
from tidegate.domain.secret_names import SECRETS
from tidegate.domain.secret_strength import weakness
from tidegate.errors import TidegateError
from tidegate.tables import PROFILES

#: Something is left to wait for: run the command again later.
UNFINISHED = 3


class RotationError(Exception):
    """One clear sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A stage.

    Attributes:
        client: boto3's client of a service.
        outputs: of its stack.
        environment: what a function of the stage would see of its tables, with the current credentials.
        name: of its file.
    """

    client: Callable[[str], Any]
    outputs: Mapping[str, str]
    environment: Callable[[], Mapping[str, str]] = dict
    name: str = ""

    def names(self) -> list[str]:
        """The secrets that the stage has, without the credential key."""
        return [name for variable, name in SECRETS.items() if output(variable) in self.outputs]

    def credential_key(self) -> CredentialKey | None:
        """The key that encrypts credentials. Raises `DeployError` and `StageError`."""
        keys = credential_key.declared(self.outputs)
        if keys is None:
            return None
        table_name = {PROFILES.variable: self.outputs[output(PROFILES.variable)]}
        return credential_key.of_stage(keys, {**self.environment(), **table_name}, self.name)

    def rotation(self, name: str, new_value: str | None = None) -> Rotation:
        """One of its secrets. Raises `RotationError`."""
        if name not in self.names():
            has = [*self.names(), *([credential_key.NAME] if "CredentialKeys" in self.outputs else [])]
            raise RotationError(f"NAME={name!r} is no secret of this stage; it has: {', '.join(has)}.")
        variable = next(variable for variable, each in SECRETS.items() if each == name)
        use = json.loads(self.outputs["SecretWaits"])
        versions = SecretVersions(self.client("secretsmanager"), self.outputs[output(variable)], new_value=new_value)
        edge = (
            EdgeHeader(self.client("cloudfront"), self.outputs["DistributionId"])
            if name == "origin" and "DistributionId" in self.outputs
            else None
        )
        return Rotation(versions, waits(use["cache"], use.get(name, 0)), edge)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.rotate_secret", description=__doc__)
    parser.add_argument("--stage", default="")
    parser.add_argument("--name", default="", help="the secret; without it, the state of all is shown")
    parser.add_argument("--no-wait", action="store_true", help=f"do what is due, then end (exit code {UNFINISHED})")
    parser.add_argument("--again", action="store_true", help="begin although the last rotation has only just ended")
    parser.add_argument("--value-from-stdin", action="store_true", help="add this value instead of a random one")
    parser.add_argument("--json", action="store_true", help="one JSON object in a line for each event")
    options = parser.parse_args(arguments)
    try:
        stage = deployed(options.stage)
        if not options.name:
            _show(stage, as_json=options.json)
            return 0
        report = _reporter(options.name, as_json=options.json)
        if options.name == credential_key.NAME and (key := stage.credential_key()):
            if options.value_from_stdin:
                raise RotationError(f"{credential_key.NAME} is a key of KMS, which has no value to give.")
            return 0 if key.run(report, time.sleep, wait=not options.no_wait) else UNFINISHED
        given = _given_value() if options.value_from_stdin else None
        finished = stage.rotation(options.name, given).run(
            report, time.sleep, again=options.again, wait=not options.no_wait
        )
        return 0 if finished else UNFINISHED
    except RotationRefused as refused:
        print(f"refused: {refused}", file=sys.stderr)
    except (RotationError, DeployError, StageError) as error:
        print(f"error: {error}", file=sys.stderr)
    except TidegateError as error:
        print(f"error: {error.message}; run the command again to go on", file=sys.stderr)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        print(f"error: AWS did not do it: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; run the command again to go on", file=sys.stderr)
        return 130
    return 1


def deployed(stage: str) -> Deployed:
    """A deployed stage. Raises `RotationError`, and `DeployError` when the local stack does not run."""
    if stage not in names():
        raise RotationError(f"STAGE={stage!r} does not exist; use STAGE=<one of: {', '.join(names())}>.")
    if stage == LOCAL:
        local = local_stage.running()
        return Deployed(local.client, local.outputs, local.environment, stage)
    found = described(preflight.clients(load_stage(stage)), f"Tidegate-{stage}")
    return replace(found, environment=lambda: stage_environment(stage), name=stage)


def described(client: Callable[[str], Any], stack: str) -> Deployed:
    """A stage by its stack. Raises `RotationError`."""
    try:
        (found,) = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        raise RotationError(f"{stack} cannot be read here ({error}); is it deployed?") from error
    return Deployed(client, {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]})


def _given_value() -> str:
    value = sys.stdin.read().strip()
    if why := weakness(value):
        raise RotationError(f"The value from standard input is too weak: {why}.")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise RotationError("The value from standard input is not fit for a header: use visible ASCII characters.")
    return value


def _reporter(name: str, *, as_json: bool) -> Callable[[Event], None]:
    def report(event: Event) -> None:
        if as_json:
            print(json.dumps({"secret": name, **asdict(event)}), flush=True)
        else:
            left = "" if event.seconds is None else f" ({round(event.seconds)} s left)"
            print(f"  {name}: {'waiting ' if event.step == 'wait' else ''}{event.text}{left}", flush=True)

    return report


def _show(stage: Deployed, *, as_json: bool) -> None:
    rows = [{"secret": name, **_row(*stage.rotation(name).next())} for name in stage.names()]
    key = stage.credential_key()
    if as_json:
        for row in [*rows, *([{"secret": credential_key.NAME, **_key_state(key)}] if key else [])]:
            print(json.dumps(row))
        return
    heads = ("secret", "current", "previous", "pending", "edge", "next")
    print(table([heads, *(tuple(str(row[head] or "-") for head in heads) for row in rows)]))
    if key is not None:
        print(f"\n{_key_table(key)}")


def _key_state(key: CredentialKey) -> dict[str, Any]:
    """The credential key, as `--json` prints it. `credentials`: how many are under each key, the newest last."""
    now = key.held()
    credentials = {str(number): count for number, count in now.counts.items()}
    return {
        "current": key.keys.newest,
        "credentials": credentials,
        "elsewhere": now.elsewhere,
        "next": next_for(key.keys, now),
    }


def _key_table(key: CredentialKey) -> str:
    now = key.held()
    rows = [
        (f"key {number}", "encrypts" if number == key.keys.newest else "decrypts", str(now.counts[number]))
        for number in [key.keys.newest, *reversed(key.keys.older)]
    ]
    if now.elsewhere:
        rows.append(("no key of the stage", "-", str(now.elsewhere)))
    return f"{table([(credential_key.NAME, 'use', 'credentials'), *rows])}\n  next: {next_for(key.keys, now)}"


def _row(state: State, step: Step) -> dict[str, str | None]:
    def since(version: Version | None) -> str | None:
        return None if version is None else f"{round(state.now - version.created_at)} s old"

    # The previous value has not signed since the current one took its place.
    previous = None if state.previous is None else f"for {round(state.now - state.current.created_at)} s"
    edge = None
    if state.carrier is not None:
        edge = state.carrier.value.value + ("" if state.carrier.deployed else ", not everywhere")
    return {
        "current": since(state.current),
        "previous": previous,
        "pending": None if state.switched else since(state.pending),
        "edge": edge,
        "next": _next(step),
    }


def _next(step: Step) -> str:
    match step:
        case Done():
            return "nothing is under way"
        case Wait(seconds, reason):
            return f"wait{'' if seconds is None else f' {round(seconds)} s'} {reason}"
        case Refused(reason):
            return f"refused: {reason}"
        case _:
            return f"{type(step).__name__.lower()}, due now: run make rotate-secret"


if __name__ == "__main__":
    sys.exit(main())
