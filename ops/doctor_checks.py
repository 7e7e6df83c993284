"""What of a stage is not as it should be in production, decided from its file and from answers. Nobody is asked here.

Invariant of this file: what was not answered is `could not check`, never `ok` and never `failed`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from infra.stage import Stage
from ops import doctor_settings
from ops.account_answers import no_stack
from ops.answers import Answer
from ops.doctor_verdict import Check, Verdict, deploy, file_of
from ops.protection import was_created
from ops.readiness import Line, State, caller_line, concurrency_line, places_line, region_line, unknown
from ops.stack_policy import POLICY
from tidegate.settings import SettingsError, documented, load

#: After so many days a secret is to be rotated: the default of AWS Security Hub's control SecretsManager.4.
MOST_DAYS = 90
#: A rotation that has not moved for so many days was forgotten: its longest wait is the life of a login, a week.
FORGOTTEN_DAYS = 8
#: Protocol of an intent -> the setting that switches it.
TOGGLES = {"sse": "REALTIME_SSE_ENABLED", "websocket": "REALTIME_WS_ENABLED", "mqtt": "REALTIME_MQTT_ENABLED"}


@dataclass(frozen=True, slots=True)
class Protection:
    """What keeps a stage from being deleted.

    Attributes:
        stack: whether the stack has termination protection.
        policy: the stack's policy, as JSON text; None without one.
        tables: the tables without deletion protection.
    """

    stack: bool
    policy: str | None
    tables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SecretAge:
    """A secret's versions. `days`: since the current value was made; `beside`: whether another value has a label."""

    days: float
    beside: bool = False


@dataclass(frozen=True, slots=True)
class Receiver:
    """The SNS topic of the alarms: how many take its messages, and how many have yet to confirm that they want them."""

    confirmed: int
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Used:
    """Protocols of the datasources there are, and whether all datasources were looked at."""

    protocols: Collection[str]
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Probed:
    """A request through the edge, with a made-up `X-Forwarded-For`.

    Attributes:
        address: whose request it was.
        own, forged: how often it was counted under that address, and under the made-up one.
    """

    address: str
    own: int
    forged: int


def findings(stage: Stage, answers: Mapping[str, Answer], region: str | None) -> list[Line]:
    """All lines. What has no answer in `answers` was not asked. `region`: that of the credentials."""
    found = [Line(check.name, *check.decide(stage, None)) for check in doctor_settings.CHECKS]
    # Whoever asks without credentials has not found the stage to be wrong.
    first = [_known(stage, line) for line in (caller_line(stage, answers["caller"]), region_line(stage, region))]
    if all(line.state is State.OK for line in first):
        first.append(_stack(stage, answers["stack"]))
    stopped = next((line for line in first if line.state is not State.OK), None)
    found += first
    for check in CHECKS:
        if check.of(stage):
            found.append(_decided(check, stage, answers.get(check.answer), stopped))
    for name, decide in _PLACES.items() if stage.tls else ():
        answer = answers.get("concurrency")
        found.append(_not_asked(name, stopped) if answer is None else decide(stage, answer))
    return found


def _decided(check: Check, stage: Stage, answer: Answer | None, stopped: Line | None) -> Line:
    if answer is None:
        return _not_asked(check.name, stopped)
    return Line(check.name, *check.decide(stage, answer.value)) if answer.there else unknown(check.name, answer)


def _not_asked(check: str, stopped: Line | None) -> Line:
    """`stopped`: the line without which nothing else can be asked. It says what to do."""
    return Line(check, State.UNKNOWN, "not asked" + (f", see `{stopped.check}`" if stopped else ""))


def _known(stage: Stage, line: Line) -> Line:
    if line.state is State.OK:
        return line
    return replace(line, state=State.UNKNOWN, do=line.do if stage.tls else deploy(stage))


def _stack(stage: Stage, answer: Answer) -> Line:
    name = f"Tidegate-{stage.name}"
    if no_stack(answer):
        return Line("stack", State.UNKNOWN, f"{name} is not deployed here", deploy(stage))
    if not answer.there:
        return unknown("stack", answer)
    status = str(answer.value["StackStatus"])
    if not was_created(status):
        return Line("stack", State.UNKNOWN, f"{name} is {status}, so nothing of it is in use", deploy(stage))
    if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"):
        return Line("stack", State.FAILED, f"{name} is {status}", f"run `make preflight STAGE={stage.name}`")
    return Line("stack", State.OK, f"{name} is {status}")


def _deployed_modes(stage: Stage, functions: Mapping[str, Mapping[str, str]]) -> Verdict:
    """Of functions that read other settings than the file has. Those with the file's are judged with it."""
    told = []
    for name, environment in sorted(functions.items()):
        try:
            told += [f"{mode} of {name}" for mode in doctor_settings.opened(load(environment))]
        except SettingsError:
            told.append(f"the settings of {name} are wrong, so that it does not start")
    if not told:
        return Verdict(State.OK, f"fail-closed in all {len(functions)} functions")
    allowed = set(doctor_settings.opened(stage.settings)) & set(stage.settings.exceptions)
    if all(each.split(" ")[0] in allowed for each in told):
        return Verdict(State.WARN, f"fail-open: {', '.join(told)}; an exception of the file", "take it back in time")
    return Verdict(State.FAILED, f"not fail-closed: {', '.join(told)}", deploy(stage))


def _deployed_settings(stage: Stage, functions: Mapping[str, Mapping[str, str]]) -> Verdict:
    names = {setting.variable for setting in documented()}
    other: dict[str, list[str]] = {}
    for function, environment in sorted(functions.items()):
        for name in sorted(names):
            if environment.get(name, "") != stage.variables.get(name, ""):
                other.setdefault(name, []).append(function)
    if not other:
        return Verdict(State.OK, f"those of the file, in all {len(functions)} functions")
    told = [f"{name} of {', '.join(where) if len(where) < len(functions) else 'all'}" for name, where in other.items()]
    do = f"bring {file_of(stage)} and what is deployed together: change the file, or {deploy(stage)}"
    return Verdict(State.FAILED, f"not as in the file: {'; '.join(told)}", do)


def _drift(stage: Stage, described: Mapping[str, Any]) -> Verdict:
    drift = described.get("DriftInformation") or {}
    status, since = drift.get("StackDriftStatus", "NOT_CHECKED"), drift.get("LastCheckTimestamp")
    stack = f"--stack-name Tidegate-{stage.name}"
    if status == "DRIFTED":
        do = f"run: aws cloudformation describe-stack-resource-drifts {stack}; then deploy again"
        return Verdict(State.FAILED, f"CloudFormation found some at {since}", do)
    if status != "IN_SYNC":
        do = f"run: aws cloudformation detect-stack-drift {stack}; then this command again"
        return Verdict(State.WARN, "CloudFormation was not asked to look for any", do)
    return Verdict(State.OK, f"CloudFormation found none at {since}")


def _schedule(stage: Stage, state: str | None) -> Verdict:
    """`state`: of the schedule that the stack made, as EventBridge Scheduler says it; None when it is gone."""
    if state == "ENABLED":
        return Verdict(State.OK, "on")
    do = f"look at docs/operations/runbooks.md#the-schedule-has-stopped; {deploy(stage)} makes one that is gone again"
    return Verdict(State.FAILED, f"{'off' if state else 'gone'}, so nobody looks for what is due", do)


def _protection(stage: Stage, value: Protection) -> Verdict:
    if stage.disposable:
        return Verdict(State.OK, "none, the stage is disposable")
    missing = [] if value.stack else ["the stack"]
    if value.policy is None or json.loads(value.policy) != json.loads(POLICY):
        missing.append("the policy against replacing data")
    missing += [f"table {name}" for name in value.tables]
    if missing:
        found = f"not protected: {', '.join(missing)}"
        return Verdict(State.FAILED, found, f"{deploy(stage)}, which protects it again")
    return Verdict(State.OK, "the stack, its policy and all tables")


def _recovery(stage: Stage, off: Collection[str]) -> Verdict:
    """`off`: tables to be backed up for which it is off."""
    if stage.disposable:
        return Verdict(State.OK, "none, the stage is disposable")
    if off:
        do = "run: aws dynamodb update-continuous-backups --table-name <name of the table> "
        do += "--point-in-time-recovery-specification PointInTimeRecoveryEnabled=true"
        return Verdict(State.FAILED, f"off: {', '.join(off)}", do)
    return Verdict(State.OK, "on for every table that cannot be rebuilt")


def _secrets(stage: Stage, ages: Mapping[str, SecretAge]) -> Verdict:
    rotate = f"run `make rotate-secret STAGE={stage.name} NAME=…`"
    forgotten = [name for name, age in ages.items() if age.beside and age.days > FORGOTTEN_DAYS]
    old = [f"{name} {round(age.days)} days" for name, age in ages.items() if age.days > MOST_DAYS]
    if forgotten:
        found = f"a rotation of {', '.join(forgotten)} was begun and not ended, so two values verify"
        return Verdict(State.FAILED, found, rotate)
    if old:
        return Verdict(State.WARN, f"older than {MOST_DAYS} days: {', '.join(old)}", rotate)
    oldest = max((age.days for age in ages.values()), default=0.0)
    return Verdict(State.OK, f"{len(ages)} secrets, the oldest value is {round(oldest)} days old")


def _keys(stage: Stage, rotated: Mapping[str, bool]) -> Verdict:
    """`rotated`: by the number of the key."""
    if off := [number for number, on in rotated.items() if not on]:
        found = f"KMS does not rotate key {', '.join(off)}"
        return Verdict(State.FAILED, found, "run: aws kms enable-key-rotation --key-id <the key's id>")
    return Verdict(State.OK, "KMS rotates " + ("it" if len(rotated) == 1 else f"all {len(rotated)}") + " each year")


def _receives(stage: Stage, topic: Receiver | None) -> Verdict:
    if topic is None:
        return Verdict(State.FAILED, "what is deployed has no topic", deploy(stage))
    if topic.confirmed:
        return Verdict(State.OK, f"{topic.confirmed} confirmed")
    if topic.pending:
        found = f"{topic.pending} have not confirmed that they want them, and get nothing"
        return Verdict(State.FAILED, found, "follow the link in the e-mail of SNS")
    return Verdict(State.FAILED, "the topic has none", "subscribe somebody to it")


def _protocols(stage: Stage, used: Used) -> Verdict:
    settings = stage.settings
    switched = {"sse": settings.sse_enabled, "websocket": settings.ws_enabled, "mqtt": settings.mqtt_enabled}
    on = [protocol for protocol, is_on in switched.items() if is_on]
    unused = [protocol for protocol in on if protocol not in used.protocols]
    if not unused:
        return Verdict(State.OK, f"none; on and used: {', '.join(on) or 'nothing'}")
    if not used.whole:
        found = f"{', '.join(unused)} not found among the first datasources; not all were looked at"
        return Verdict(State.UNKNOWN, found, "look yourself")
    if not used.protocols:
        return Verdict(State.OK, "there is no datasource yet")
    do = f"set {', '.join(f'{TOGGLES[each]}=false' for each in unused)} in {file_of(stage)}, if it stays so"
    return Verdict(State.WARN, f"no datasource uses {', '.join(unused)}", do)


def _around(stage: Stage, status: int) -> Verdict:
    """`status`: of an answer to a call of the API at its own address, without the edge."""
    if status == 403:
        return Verdict(State.OK, "there is none, the API refuses calls that did not come by it")
    if status < 500:
        return Verdict(State.FAILED, f"the API answers with {status} at its own address", "look at ORIGIN_SECRET_ARN")
    return Verdict(State.UNKNOWN, f"the API answers with {status}", "see that it answers, then try again")


def _counted(stage: Stage, probed: Probed) -> Verdict:
    if probed.forged:
        do = "fewer proxies are in front than both settings of hops say: correct `edge`, or these"
        return Verdict(State.FAILED, "it was counted for an address that the client made up", do)
    if probed.own:
        return Verdict(State.OK, "it was counted for the address that it came from")
    found = f"it was counted neither for {probed.address}, nor for the address that the client made up"
    do = "more proxies are in front than both settings of hops say, or you have another address: then give it with "
    do += "OPTIONS=--address=…"
    return Verdict(State.FAILED, found, do)


def _forged(stage: Stage, probed: Probed) -> Verdict:
    if probed.forged:
        do = "correct both settings of trusted proxy hops: a made-up address must never be the one that is counted"
        return Verdict(State.FAILED, "what a client writes into it is believed", do)
    return Verdict(State.OK, "what a client writes into it is not believed")


#: The checks of what is deployed.
CHECKS = (
    Check(
        "deployed failure modes",
        "One that was opened in an outage, by hand, is easily forgotten.",
        _deployed_modes,
        "environments",
    ),
    Check(
        "deployed settings",
        "What was checked above is the file. This is what runs.",
        _deployed_settings,
        "environments",
    ),
    Check(
        "drift of the stack",
        "A deployment changes only what its template changes, and leaves what was changed by hand.",
        _drift,
        "stack",
        of=lambda stage: stage.tls,
    ),
    Check(
        "schedule",
        "It has everything looked for that was not pushed: revocations, expired tokens, dead relay workers.",
        _schedule,
        "schedule",
    ),
    Check("deletion protection", "One wrong call must not delete what people made.", _protection, "protection"),
    Check(
        "point-in-time recovery",
        "What cannot be rebuilt is brought back to the second before a mistake.",
        _recovery,
        "recovery",
    ),
    Check("age of secrets", "What leaked and nobody noticed is worth nothing after a rotation.", _secrets, "secrets"),
    Check(
        "rotation of credential keys",
        "KMS makes new key material each year, so that no material encrypts for ever.",
        _keys,
        "keys",
    ),
    Check(
        "subscribers of alarms",
        "SNS sends nothing to an address that has not confirmed.",
        _receives,
        "topic",
        of=lambda stage: stage.tls and bool(stage.place.alarm_email or stage.alarm_topic_arn),
    ),
    Check("unused protocols", "What is on and not used can only be attacked.", _protocols, "used"),
    Check(
        "way around the edge",
        "Whoever goes around the edge evades its limits and headers.",
        _around,
        "around",
        of=lambda stage: stage.edge,
    ),
    Check(
        "hops of a request",
        "Only a request through the edge shows whom the limits count.",
        _counted,
        "probed",
    ),
    Check(
        "forged X-Forwarded-For",
        "A client that is believed what it writes has as many addresses as it likes.",
        _forged,
        "probed",
    ),
)
#: The places of the account: lines that `make preflight` has too.
_PLACES = {
    "concurrency of Lambda": concurrency_line,
    "lambda_concurrency of the stage file": places_line,
}
#: Every check -> why it is made, in the order of the lines.
REASONS: Mapping[str, str] = {
    **{check.name: check.why for check in doctor_settings.CHECKS},
    "credentials": "Whoever asks decides what can be seen.",
    "region": "A stage is in one region.",
    "stack": "What is deployed can be looked at only where it is.",
    **{check.name: check.why for check in CHECKS},
    "concurrency of Lambda": "All functions share the account's places.",
    "lambda_concurrency of the stage file": "The bounds of all queues follow from what the file says.",
}
