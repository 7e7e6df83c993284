"""What `make doctor` says, decided from a file and from answers: each check is seen well, not well, and unknown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from infra.stage import Stage, load_stage
from local_stack.config import ROOT, Config
from local_stack.up import overrides
from ops import doctor_settings
from ops.answers import Answer
from ops.doctor_checks import CHECKS, REASONS, Probed, Protection, Receiver, SecretAge, Used, findings
from ops.doctor_verdict import Check
from ops.preflight import shown
from ops.readiness import Line, State, exit_code
from ops.stack_policy import POLICY
from tests.docs.pages import rows, section
from tests.stage_files import PLAIN, write
from tidegate.tables import ALL_TABLES

OK, WARN, FAILED, UNKNOWN = State.OK, State.WARN, State.FAILED, State.UNKNOWN
REGION = "eu-central-1"
#: A file in which nothing is to be mended.
KEYS: dict[str, Any] = {"account": "111122223333", "region": REGION, "alarm_email": "on-call@example.com"}
SETTINGS: dict[str, Any] = {
    "REALTIME_SSE_ENABLED": False,
    "REALTIME_WS_ENABLED": False,
    "REALTIME_MQTT_ALLOWED_TOPICS": "qa/#",
}
DENIED = Answer(code="AccessDenied", message="not authorized", denied="some:Action")
UNREACHED = Answer(code="EndpointConnectionError", message="no way")
FAIL_OPEN = {"REALTIME_LIMITER_FAILURE_MODE": "fail-open"}


def stage_of(folder: Path, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> Stage:
    settings = SETTINGS | keys.pop("settings", {})
    place = {} if keys.get("architecture") == "host" else KEYS  # a stage on this machine is in no account
    return write(folder, monkeypatch, **{**place, **keys, "settings": settings})


def good(stage: Stage) -> dict[str, Answer]:
    """The answers of a deployed stage in which nothing is to be mended."""
    described = {"StackStatus": "UPDATE_COMPLETE", "DriftInformation": {"StackDriftStatus": "IN_SYNC"}}
    return {
        "caller": Answer({"Account": "111122223333", "Arn": "arn:aws:iam::111122223333:user/ops"}),
        "stack": Answer(described),
        "concurrency": Answer(1000),
        "environments": Answer({"gateway-connect": dict(stage.variables), "httpapi-api": dict(stage.variables)}),
        "protection": Answer(Protection(stack=True, policy=POLICY)),
        "schedule": Answer("ENABLED"),
        "recovery": Answer([]),
        "secrets": Answer({"jwt": SecretAge(30.2), "origin": SecretAge(1, beside=True)}),
        "keys": Answer({"1": True}),
        "topic": Answer(Receiver(confirmed=1)),
        "used": Answer(Used({"mqtt"})),
        "around": Answer(403),
        "probed": Answer(Probed("203.0.113.7", own=1, forged=0)),
    }


def line(stage: Stage, check: str, **other: Answer) -> Line:
    (found,) = [each for each in findings(stage, good(stage) | other, REGION) if each.check == check]
    return found


def test_a_stage_in_which_nothing_is_to_be_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of(tmp_path, monkeypatch)
    found = findings(stage, good(stage), REGION)
    assert {each.state for each in found} == {OK} and exit_code(found) == 0
    assert [each.check for each in found] == list(REASONS), "every check has its reason, in this order"
    assert not [each for each in found if each.do]


# --- the stage's file ---------------------------------------------------------------------------------------

#: Check, keys and settings of the file, state, what is told.
OF_FILES: tuple[tuple[str, dict[str, Any], State, str], ...] = (
    ("account and region of the file", {"account": "111122223333"}, OK, "111122223333, eu-central-1"),
    ("trusted proxy hops", {}, OK, "2, which is right for what is in front (edge)"),
    ("trusted proxy hops", {"edge": False}, OK, "0, which is right for what is in front (none)"),
    (
        "trusted proxy hops",
        {"hops_confirmed": True, "settings": {"REALTIME_TRUST_PROXY_HOPS": 3, "API_TRUST_PROXY_HOPS": 3}},
        WARN,
        "3, confirmed by `hops_confirmed`; what is in front (edge) has 2",
    ),
    ("failure modes", {}, OK, "fail-closed, of the gateway and of the API"),
    (
        "failure modes",
        {"settings": {"TIDEGATE_ENV": "development"}, "disposable": True},
        FAILED,
        "REALTIME_LIMITER_FAILURE_MODE and SECURITY_LIMITER_FAILURE_MODE: fail-open",
    ),
    (
        "failure modes",
        {"settings": FAIL_OPEN, "exceptions": {"REALTIME_LIMITER_FAILURE_MODE": "a trial"}},
        WARN,
        "REALTIME_LIMITER_FAILURE_MODE: fail-open, as an exception",
    ),
    ("limits", {}, OK, "all 18 are on"),
    ("limits", {"settings": {"REALTIME_MAX_SENDS_PER_SECOND": 0}}, FAILED, "REALTIME_MAX_SENDS_PER_SECOND=0"),
    ("limits", {"settings": {"AUTH_LOGIN_MAX_ATTEMPTS": 50}}, OK, "all 18 are on"),
    ("limits", {"settings": {"AUTH_LOGIN_MAX_ATTEMPTS": 51}}, WARN, "=51 is far from its default 5"),
    ("limits", {"settings": {"REALTIME_MAX_CLIENT_CONNECTIONS_PER_IP": 2}}, WARN, "=2 is far from its default 25"),
    (
        "limits",
        {"settings": {"SECURITY_LIMITER_BACKEND": "memory", "TIDEGATE_ENV": "test"}, "disposable": True},
        WARN,
        "in the memory of each process",
    ),
    ("allowed topics", {}, OK, "qa/#"),
    ("allowed topics", {"settings": {"REALTIME_MQTT_ALLOWED_TOPICS": ""}}, WARN, "none, so no datasource"),
    (
        "allowed topics",
        {"settings": {"REALTIME_MQTT_ALLOWED_TOPICS": "", "REALTIME_MQTT_ENABLED": False}},
        OK,
        "MQTT is off",
    ),
    ("allowed topics", {"settings": {"REALTIME_MQTT_ALLOWED_TOPICS": "qa/#,#"}}, FAILED, "#: a wildcard"),
    ("allowed topics", {"settings": {"REALTIME_MQTT_ALLOWED_TOPICS": "+/t"}}, FAILED, "+/t: a wildcard"),
    ("allowed hosts", {}, OK, "only IoT Core"),
    ("allowed hosts", {"settings": {"EGRESS_ALLOWED_HOSTS": "*.example.com,a.org"}}, OK, "*.example.com, a.org"),
    ("allowed hosts", {"settings": {"EGRESS_ALLOWED_HOSTS": "a.org,*.com"}}, FAILED, "*.com: hosts of anybody"),
    (
        "allowed hosts",
        {"settings": {"TIDEGATE_ENV": "development"}, "disposable": True},
        WARN,
        "none, and TIDEGATE_ENV=development takes that for all",
    ),
    (
        "allowed hosts",
        {"settings": {"TIDEGATE_ENV": "development", "EGRESS_ALLOWED_HOSTS": "*"}, "disposable": True},
        WARN,
        "*: hosts of anybody",
    ),
    ("private and unproved upstreams", {}, OK, "neither"),
    (
        "private and unproved upstreams",
        {
            "settings": {"EGRESS_ALLOW_PRIVATE_DESTINATIONS": True},
            "exceptions": {"EGRESS_ALLOW_PRIVATE_DESTINATIONS": "the plant"},
        },
        WARN,
        "at private addresses",
    ),
    (
        "private and unproved upstreams",
        {"settings": {"TIDEGATE_ENV": "development", "EGRESS_ALLOW_INSECURE_TLS": True}, "disposable": True},
        WARN,
        "certificates of upstreams are not checked",
    ),
    ("alarm receiver", {}, OK, "on-call@example.com"),
    ("alarm receiver", {"architecture": "host", "edge": False, "disposable": True}, OK, "not needed"),
)


@pytest.mark.parametrize(("check", "keys", "state", "told"), OF_FILES)
def test_what_a_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str, keys: dict[str, Any], state: State, told: str
) -> None:
    found = line(stage_of(tmp_path, monkeypatch, **keys), check)
    assert (found.state, told in found.found, bool(found.do)) == (state, True, state is not OK), found


@pytest.mark.parametrize("disposable", [True, False])
def test_what_a_file_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disposable: bool) -> None:
    bare = write(tmp_path, monkeypatch, **{**PLAIN, "disposable": disposable})
    place, receiver = line(bare, "account and region of the file"), line(bare, "alarm receiver")
    assert place.state is WARN and "no account and no region" in place.found and "account and region" in place.do
    assert receiver.state is (WARN if disposable else FAILED) and "alarm_email" in receiver.do
    assert "subscribers of alarms" not in {each.check for each in findings(bare, good(bare), REGION)}


def test_every_limit_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is none would stop every look at a file."""
    assert line(stage_of(tmp_path, monkeypatch), "limits").state is OK
    assert len(set(doctor_settings.LIMITS)) == len(doctor_settings.LIMITS)


# --- what is deployed ---------------------------------------------------------------------------------------

#: Check, name and value of its answer, state, what is told. Without this value the check is ok.
OF_DEPLOYED: tuple[tuple[str, str, Any, State, str], ...] = (
    ("schedule", "schedule", "DISABLED", FAILED, "off, so nobody looks for what is due"),
    ("schedule", "schedule", None, FAILED, "gone, so nobody looks for what is due"),
    ("deletion protection", "protection", Protection(False, POLICY), FAILED, "not protected: the stack"),
    ("deletion protection", "protection", Protection(True, None), FAILED, "the policy against replacing data"),
    ("deletion protection", "protection", Protection(True, '{"Statement": []}'), FAILED, "the policy"),
    ("deletion protection", "protection", Protection(True, POLICY, ("t-1", "t-2")), FAILED, "table t-1, table t-2"),
    ("point-in-time recovery", "recovery", ["users", "audit"], FAILED, "off: users, audit"),
    ("age of secrets", "secrets", {"jwt": SecretAge(90.4)}, WARN, "older than 90 days: jwt 90 days"),
    ("age of secrets", "secrets", {"jwt": SecretAge(9, beside=True)}, FAILED, "a rotation of jwt was begun"),
    ("age of secrets", "secrets", {"jwt": SecretAge(7, beside=True)}, OK, "1 secrets"),
    ("rotation of credential keys", "keys", {"1": True, "2": False}, FAILED, "KMS does not rotate key 2"),
    ("subscribers of alarms", "topic", Receiver(0, pending=1), FAILED, "1 have not confirmed"),
    ("subscribers of alarms", "topic", Receiver(0), FAILED, "the topic has none"),
    ("subscribers of alarms", "topic", None, FAILED, "what is deployed has no topic"),
    ("unused protocols", "used", Used({"sse"}), WARN, "no datasource uses mqtt"),
    ("unused protocols", "used", Used(()), OK, "there is no datasource yet"),
    ("unused protocols", "used", Used({"sse"}, whole=False), UNKNOWN, "not all were looked at"),
    ("unused protocols", "used", Used({"mqtt"}, whole=False), OK, "on and used: mqtt"),
    ("way around the edge", "around", 200, FAILED, "the API answers with 200 at its own address"),
    ("way around the edge", "around", 503, UNKNOWN, "the API answers with 503"),
    ("hops of a request", "probed", Probed("203.0.113.7", own=0, forged=1), FAILED, "that the client made up"),
    ("hops of a request", "probed", Probed("203.0.113.7", own=1, forged=1), FAILED, "that the client made up"),
    ("hops of a request", "probed", Probed("203.0.113.7", own=0, forged=0), FAILED, "neither for 203.0.113.7"),
    ("forged X-Forwarded-For", "probed", Probed("203.0.113.7", own=1, forged=1), FAILED, "is believed"),
    ("forged X-Forwarded-For", "probed", Probed("203.0.113.7", own=0, forged=0), OK, "is not believed"),
    ("concurrency of Lambda", "concurrency", 10, FAILED, "10 functions at once"),
    ("lambda_concurrency of the stage file", "concurrency", 10, FAILED, "and the account has 10"),
)


@pytest.mark.parametrize(("check", "name", "value", "state", "told"), OF_DEPLOYED)
def test_what_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str, name: str, value: Any, state: State, told: str
) -> None:
    found = line(stage_of(tmp_path, monkeypatch), check, **{name: Answer(value)})
    assert (found.state, told in found.found, bool(found.do)) == (state, True, state is not OK), found


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("answer", [DENIED, UNREACHED], ids=["denied", "unreached"])
def test_what_is_not_answered_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Check, answer: Answer
) -> None:
    stage = stage_of(tmp_path, monkeypatch)
    found = line(stage, check.name, **{check.answer: answer})
    assert found.state is UNKNOWN
    if check.answer != "stack":  # then all lines say where to look
        assert answer.unknown() in found.found and found.do
    assert exit_code(findings(stage, good(stage) | {check.answer: answer}, REGION)) == 3


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_each_check_is_seen_when_it_is_not_well(check: Check) -> None:
    """In one of the tables above, or in a test below."""
    below = {"deployed failure modes", "deployed settings", "drift of the stack"}
    assert check.name in below | {name for name, *_, state, _ in OF_DEPLOYED if state is FAILED or state is WARN}


def test_settings_that_were_changed_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of(tmp_path, monkeypatch)
    opened = dict(stage.variables) | FAIL_OPEN | {"TIDEGATE_EXCEPTIONS": "REALTIME_LIMITER_FAILURE_MODE"}
    environments = Answer({"gateway-connect": opened, "httpapi-api": dict(stage.variables)})
    found = line(stage, "deployed settings", environments=environments)
    assert found.state is FAILED and "REALTIME_LIMITER_FAILURE_MODE of gateway-connect" in found.found
    modes = line(stage, "deployed failure modes", environments=environments)
    assert modes.state is FAILED and "not fail-closed: REALTIME_LIMITER_FAILURE_MODE of gateway-connect" in modes.found
    everywhere = Answer(dict.fromkeys(("gateway-connect", "httpapi-api"), opened))
    assert "REALTIME_LIMITER_FAILURE_MODE of all" in line(stage, "deployed settings", environments=everywhere).found


def test_a_mode_that_no_reason_was_given_for_keeps_a_function_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of(tmp_path, monkeypatch)
    wrong = Answer({"gateway-connect": dict(stage.variables) | FAIL_OPEN})
    found = line(stage, "deployed failure modes", environments=wrong)
    assert found.state is FAILED and "the settings of gateway-connect are wrong" in found.found


def test_a_mode_with_a_reason_is_worth_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {"REALTIME_LIMITER_FAILURE_MODE": "a trial"}
    stage = stage_of(tmp_path, monkeypatch, settings=FAIL_OPEN, exceptions=reasons)
    found = line(stage, "deployed failure modes")
    assert found.state is WARN and "an exception of the file" in found.found
    assert line(stage, "deployed settings").state is OK


@pytest.mark.parametrize(
    ("drift", "state", "told"),
    [
        ({"StackDriftStatus": "DRIFTED", "LastCheckTimestamp": "today"}, FAILED, "found some at today"),
        ({"StackDriftStatus": "NOT_CHECKED"}, WARN, "was not asked"),
        ({}, WARN, "was not asked"),
    ],
)
def test_drift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drift: Mapping[str, str], state: State, told: str
) -> None:
    described = Answer({"StackStatus": "CREATE_COMPLETE", "DriftInformation": drift})
    found = line(stage_of(tmp_path, monkeypatch), "drift of the stack", stack=described)
    assert found.state is state and told in found.found and "aws cloudformation" in found.do


def test_what_is_not_to_last_is_not_protected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of(tmp_path, monkeypatch, disposable=True)
    bare = {"protection": Answer(Protection(False, None)), "recovery": Answer(["users"])}
    for check in ("deletion protection", "point-in-time recovery"):
        assert line(stage, check, **bare).state is OK


# --- what cannot be asked -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "caller",
    [
        Answer(code="NoCredentialsError", message="Unable to locate credentials"),
        DENIED,
        Answer({"Account": "999988887777", "Arn": "arn:aws:iam::999988887777:user/ops"}),
    ],
    ids=["none", "denied", "another account"],
)
def test_without_credentials_only_the_file_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: Answer
) -> None:
    stage = stage_of(tmp_path, monkeypatch)
    found = findings(stage, {"caller": caller}, REGION)
    of_file = {check.name for check in doctor_settings.CHECKS}
    assert {each.check for each in found if each.state is OK} == of_file | {"region"}
    unknown = [each for each in found if each.state is UNKNOWN]
    assert unknown[0].check == "credentials" and unknown[0].do and exit_code(found) == 3
    assert all(each.found == "not asked, see `credentials`" for each in unknown[1:])
    assert {each.check for each in found} == REASONS.keys() - {"stack"}


@pytest.mark.parametrize(
    ("stack", "state", "told"),
    [
        (Answer(code="ValidationError", message="Stack with id Tidegate-qa does not exist"), UNKNOWN, "not deployed"),
        (Answer({"StackStatus": "ROLLBACK_COMPLETE"}), UNKNOWN, "nothing of it is in use"),
        (Answer({"StackStatus": "UPDATE_ROLLBACK_FAILED"}), FAILED, "is UPDATE_ROLLBACK_FAILED"),
        (DENIED, UNKNOWN, "denied; needs some:Action"),
    ],
)
def test_what_is_not_deployed_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: Answer, state: State, told: str
) -> None:
    stage = stage_of(tmp_path, monkeypatch)
    answers = {"caller": good(stage)["caller"], "concurrency": Answer(1000), "stack": stack}
    found = {each.check: each for each in findings(stage, answers, REGION)}
    assert found["stack"].state is state and told in found["stack"].found and found["stack"].do
    assert found["age of secrets"].state is UNKNOWN and found["age of secrets"].found == "not asked, see `stack`"
    assert found["concurrency of Lambda"].state is OK, "it is the account's"


def test_what_a_stage_does_not_have_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = stage_of(tmp_path, monkeypatch, architecture="host", edge=False, disposable=True)
    missing = REASONS.keys() - {each.check for each in findings(local, good(local), REGION)}
    assert missing == {
        "drift of the stack",
        "subscribers of alarms",
        "way around the edge",
        "concurrency of Lambda",
        "lambda_concurrency of the stage file",
    }


#: What the emulator answered of a stack that had just come up.
LOCAL_FUNCTIONS = 12
PAGE = (ROOT / "docs/operations/doctor.md").read_text()


def test_the_page_shows_what_a_local_stack_prints() -> None:
    local = load_stage("local", overrides(Config(), None))
    recorded = {
        "caller": Answer({"Account": "000000000000", "Arn": "arn:aws:iam::000000000000:root"}),
        "stack": Answer({"StackStatus": "CREATE_COMPLETE"}),
        "environments": Answer({str(each): dict(local.variables) for each in range(LOCAL_FUNCTIONS)}),
        "schedule": Answer("ENABLED"),
        "protection": Answer(Protection(stack=False, policy=None)),
        "recovery": Answer([table.name for table in ALL_TABLES if table.backed_up]),
        "secrets": Answer(dict.fromkeys(("jwt", "jwt-gateway", "service-token", "limiter-salt"), SecretAge(0))),
        "keys": Answer({"1": True, "2": True}),
        "used": Answer(Used({"sse", "websocket", "mqtt"})),
        "probed": Answer(Probed("127.0.0.1", own=1, forged=0)),
    }
    assert indent(shown(findings(local, recorded, "us-east-1")), "  ") in PAGE


def test_the_page_shows_what_is_printed_without_credentials() -> None:
    caller = Answer(code="NoCredentialsError", message="Unable to locate credentials")
    found = findings(load_stage("staging"), {"caller": caller}, None)
    assert indent(shown(found), "  ") in PAGE and exit_code(found) == 1


def test_the_page_has_every_check_with_its_reason() -> None:
    assert [tuple(row) for row in rows(section(PAGE, "What is looked at"))] == list(REASONS.items())


def test_mending_comes_before_what_is_not_known() -> None:
    def code(*states: State) -> int:
        return exit_code([Line("check", state, "found") for state in states])

    assert code(OK, WARN) == 0 and code(WARN, UNKNOWN) == 3 and code(UNKNOWN, FAILED, OK) == 1


def test_lines_are_shown_as_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever shows a line ends it with a full stop."""
    for name, why in REASONS.items():
        assert re.fullmatch(r"[A-Z].+\.", why) and not name.endswith(".")
    stage = stage_of(tmp_path, monkeypatch)
    for found in findings(stage, good(stage), REGION):
        assert not found.found.endswith(".")
